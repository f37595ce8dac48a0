"""The command line: every command is a few lines that call the library."""

from manylens.cli import (  # noqa: F401 - importing a module adds its commands
    batch,
    panel,
    perspectives,
    plan,
    precompute,
    runs,
    score,
    serve,
    serving,
    study,
)
from manylens.cli.app import app

__all__ = ["app"]
