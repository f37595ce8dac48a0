from __future__ import annotations

import inspect

import pytest

from manylens import errors
from manylens.errors import BadRowError, ConfigError, ManylensError, MissingExtraError, UnknownNameError, nearest

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    lines = [line for line in errors.__doc__.splitlines() if "Error" in line]
    drawn: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in lines:
        name = next(word for word in line.split() if word.endswith("Error"))
        depth = line.index(name)
        above = [(other, parent) for other, parent in above if other < depth]
        drawn[name] = above[-1][1] if above else None
        above.append((depth, name))
    real = {kind.__name__: kind.__base__.__name__ for kind in CLASSES if kind.__base__ is not None}
    assert drawn == {**real, "ManylensError": None}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_caught_as_ours(kind: type[Exception]) -> None:
    assert issubclass(kind, ManylensError)


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    error = UnknownNameError("extractor", "gta", ["mlp", "poly", "gat"])
    assert str(error) == "unknown extractor 'gta' (did you mean 'gat'?); known: mlp, poly, gat"
    assert (error.kind, error.name, error.known) == ("extractor", "gta", ("mlp", "poly", "gat"))
    assert isinstance(error, ConfigError)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({}, "pairs.csv: empty"),
        ({"row": 3}, "pairs.csv, row 3: empty"),
        ({"field": "title"}, "pairs.csv, field 'title': empty"),
        ({"row": 3, "field": "title"}, "pairs.csv, row 3, field 'title': empty"),
    ],
)
def test_a_bad_row_names_its_place(place: dict[str, object], expected: str) -> None:
    assert str(BadRowError("empty", file="pairs.csv", **place)) == expected  # type: ignore[arg-type]


def test_a_missing_extra_names_the_command() -> None:
    assert str(MissingExtraError("trl", "teacher")) == "trl is not installed; run: pip install 'manylens[teacher]'"


@pytest.mark.parametrize(("name", "expected"), [("paht", " (did you mean 'path'?)"), ("xyz", "")])
def test_nearest(name: str, expected: str) -> None:
    assert nearest(name, ["loader", "path"]) == expected
    assert nearest(name, iter(["loader", "path"])) == expected
    assert nearest(name, []) == ""
