"""Imports go one way; the arrows are read from the source, those inside functions and TYPE_CHECKING too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import manylens

SOURCE = Path(manylens.__file__).parent
#: A module or folder imports only from the levels above its own, and from itself.
LEVELS = (
    ("_version", "errors", "records", "progress", "files", "text"),
    ("config", "products", "trainer_progress"),
    ("recipe",),
    ("data",),
    ("teacher", "student"),
    ("evaluation",),
    ("serving",),
    ("run_folder",),
    ("artefacts", "inputs"),
    ("preflight", "stages"),
    ("pipeline",),
    ("results",),
    ("study",),
    ("cli",),
)
RANK = {room: rank for rank, level in enumerate(LEVELS) for room in level}
#: What may be imported within the first level.
WITHIN = {("records", "errors")}
#: The light front door resolves its names lazily; it is nobody's layer.
FRONT = "__init__"
FILES = sorted(file.relative_to(SOURCE) for file in SOURCE.rglob("*.py"))


def room(file: Path) -> str:
    return file.parts[0].removesuffix(".py")


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the dotted names that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            # `from manylens import pipeline` names a module, `from manylens.errors import nearest` does not.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def arrows(source: str, file: Path) -> set[str]:
    """Return the rooms of manylens that a module imports from."""
    package = ".".join(("manylens", *file.parts[:-1]))
    names = [name.split(".") for name in imported(ast.parse(source), package)]
    return {name[1] for name in names if name[0] == "manylens" and name[1] in RANK} - {room(file)}


def backward(source: str, file: Path) -> set[str]:
    """Return those of them that a module must not import from."""
    own = room(file)
    return {other for other in arrows(source, file) if RANK[other] >= RANK[own] and (own, other) not in WITHIN}


def test_every_module_has_its_layer() -> None:
    assert {room(file) for file in FILES} == {*RANK, FRONT}


@pytest.mark.parametrize("file", [file for file in FILES if room(file) != FRONT], ids=str)
def test_no_arrow_goes_back(file: Path) -> None:
    assert backward((SOURCE / file).read_text(encoding="utf-8"), file) == set()


def test_arrows_are_seen_wherever_they_stand() -> None:
    source = """
from typing import TYPE_CHECKING
import manylens.cli
from manylens import results as r
from ..student.predict import Student
from . import answers
from manylens.data import Pairs
from manylens.errors import nearest
if TYPE_CHECKING:
    from manylens.pipeline import run
def function():
    from manylens.evaluation.compare import compare
"""
    file = Path("teacher/judge.py")
    assert arrows(source, file) == {"cli", "results", "student", "data", "errors", "pipeline", "evaluation"}
    assert backward(source, file) == {"cli", "results", "student", "pipeline", "evaluation"}
    assert backward("from manylens.teacher import judge", Path("student/train.py")) == {"teacher"}
    assert backward("from manylens.records import Pair", Path("errors.py")) == {"records"}


def test_manylens_star_imports_nothing() -> None:
    stars = [
        file
        for file in FILES
        for node in ast.walk(ast.parse((SOURCE / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]
    assert stars == []
