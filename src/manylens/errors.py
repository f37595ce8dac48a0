"""Every error that manylens raises on purpose.

    ManylensError
    ├── ConfigError          a recipe is wrong: unknown key, wrong value, unset variable
    │   └── UnknownNameError     a name that no registry holds (loader, extractor, loss, ...)
    ├── DataError            pairs or their files are wrong
    │   ├── BadRowError          one row, named by file, row and field
    │   └── QueryLeakError       a query stands in more than one split
    ├── TeacherError         the teacher's side: prompts, backends, the judgement store
    │   ├── PromptError          a template is missing or cannot be rendered
    │   └── BudgetError          the budget is spent; what was answered is kept
    ├── StudentError         the student's side: a folder, a shape, an option of a model
    ├── StageError           a stage of the pipeline cannot run in this run folder
    └── MissingExtraError    an optional dependency is not installed

A message says what was expected, what came, and how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ManylensError(Exception):
    """Base of all errors that manylens raises on purpose."""


class ConfigError(ManylensError):
    """A recipe or an override is wrong."""


class UnknownNameError(ConfigError):
    """A name that no registry holds; the message lists the known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Word the error.

        Args:
            kind: What the name should have named, such as ``"extractor"``.
            name: The name that came.
            known: The names that exist.
        """
        self.kind, self.name, self.known = kind, name, tuple(known)
        super().__init__(f"unknown {kind} {name!r}{nearest(name, self.known)}; known: {', '.join(self.known)}")


class DataError(ManylensError):
    """Pairs or their files are wrong."""


class BadRowError(DataError):
    """One row of one file is wrong."""

    def __init__(self, problem: str, *, file: str, row: int | None = None, field: str | None = None) -> None:
        """Word the error.

        Args:
            problem: What was expected, what came, and the fix.
            file: The file as the user named it.
            row: The row, counted from 1 after any header; ``None`` where the whole file is meant.
            field: The column.
        """
        self.problem, self.file, self.row, self.field = problem, file, row, field
        place = file + (f", row {row}" if row is not None else "") + (f", field {field!r}" if field else "")
        super().__init__(f"{place}: {problem}")


class QueryLeakError(DataError):
    """A query stands in more than one split."""


class TeacherError(ManylensError):
    """Prompts, backends or the judgement store are wrong."""


class PromptError(TeacherError):
    """A prompt template is missing or cannot be rendered."""


class BudgetError(TeacherError):
    """The budget is spent; what was answered is kept."""


class StudentError(ManylensError):
    """A student's folder, shape or option is wrong."""


class StageError(ManylensError):
    """A stage of the pipeline cannot run in this run folder."""


class MissingExtraError(ManylensError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        """Word the error.

        Args:
            package: The module that could not be imported.
            extra: The install extra of manylens that brings it.
        """
        self.package, self.extra = package, extra
        super().__init__(f"{package} is not installed; run: pip install 'manylens[{extra}]'")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known name nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
