"""The command line: every command is a few lines that call the library."""

from manylens.cli import batch, panel, perspectives, plan, runs, study  # noqa: F401 - importing a module adds its commands
from manylens.cli.app import app

__all__ = ["app"]
