"""The command line: every command is a few lines that call the library."""

from manylens.cli import runs  # noqa: F401 - a module's commands join the application when it is imported
from manylens.cli.app import app

__all__ = ["app"]
