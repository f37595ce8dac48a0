"""A teacher trained from scratch on a synthetic catalogue, and what tuning makes of it."""
