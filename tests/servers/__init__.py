"""Servers that speak OpenAI's chat completions, for tests: on loopback, each on a free port."""
