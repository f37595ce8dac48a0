"""Perspectives as a teacher proposes them: read from its answer, and written as files for the user to edit."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from manylens.errors import TeacherError
from manylens.files import write_text
from manylens.teacher.perspectives import NEUTRAL, PERSPECTIVES, load_perspective

_LONGEST_NAME = 40
_JSON_OPENING = re.compile(r"[\[{]")
_JINJA_OPENING = re.compile(r"\{[{%#]")


def _writable(value: object) -> object:
    """Replace lone surrogates, which JSON can spell and no file can hold."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


_Text = Annotated[str, BeforeValidator(_writable)]


class Proposal(BaseModel):
    """A perspective as the teacher words it.

    Attributes:
        name: Short name.
        description: One line.
        instruction: What the judge is told.
    """

    model_config = ConfigDict(frozen=True, str_strip_whitespace=True)

    name: _Text = Field(min_length=1)
    description: _Text = ""
    instruction: _Text = Field(min_length=1)


def read_proposals(text: str) -> tuple[list[Proposal], int]:
    """Read perspectives from a teacher's raw answer: JSON objects, with any text and fences around them.

    Args:
        text: The raw answer; thinking is left out, closed or not, and so is what a truncated answer breaks off.

    Returns:
        The proposals, and how many objects were refused for want of a name or an instruction.
    """
    proposals: list[Proposal] = []
    refused = 0
    for value in _objects(text.rpartition("</think>")[2].partition("<think>")[0]):
        try:
            proposals.append(Proposal.model_validate(value))
        except ValidationError:
            refused += 1
    return proposals, refused


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a text, those within arrays and within an object that only wraps an array too."""
    decoder, place = json.JSONDecoder(strict=False), 0
    while opening := _JSON_OPENING.search(text, place):
        try:
            value, place = decoder.raw_decode(text, opening.start())
            found = list(_flat(value))
        except (ValueError, RecursionError):
            place = opening.end()
        else:
            yield from found


def _flat(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    elif isinstance(value, dict):
        lists = [each for each in value.values() if isinstance(each, list)]
        if lists and "instruction" not in value:
            yield from _flat(lists)
        else:
            yield value


def file_stem(name: str, taken: Iterable[str] = ()) -> str:
    """Return a name that is safe as a file's stem: lower case, ASCII letters, digits and underscores.

    Args:
        name: Any text.
        taken: Names that it must differ from.

    Returns:
        The name; with a number behind it where it would be taken.
    """
    ascii_ = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii").lower()
    stem = re.sub(r"[^a-z0-9]+", "_", ascii_)[:_LONGEST_NAME].strip("_") or "perspective"
    known, number, unique = set(taken), 1, stem
    while unique in known:
        number += 1
        unique = f"{stem}_{number}"
    return unique


def perspective_source(proposal: Proposal) -> str:
    """Return the Jinja source of a perspective's file, in which the proposal's text stands for itself."""
    description = " ".join(proposal.description.split()).replace("#}", "# }")
    lines = (line.rstrip() for line in proposal.instruction.splitlines())
    instruction = _JINJA_OPENING.sub(lambda opening: "{{ '" + opening[0] + "' }}", "\n".join(lines).strip())
    return (
        f'{{# {description} #}}\n{{% extends "perspective.jinja" %}}\n{{% block instruction %}}\n'
        f"{instruction}\n{{% endblock %}}\n"
    )


def write_perspectives(proposals: Sequence[Proposal], folder: Path, taken: Iterable[str]) -> list[Path]:
    """Write each proposal as ``NAME.jinja``.

    Args:
        proposals: The perspectives.
        folder: Where to; made where it does not exist.
        taken: Names of the panel so far; those of the packaged perspectives are not given either.

    Returns:
        The files, in the order of the proposals. One that is there already and says the same is left alone.

    Raises:
        TeacherError: If one of the files is there and says something else; none is then written.
        PromptError: If a file is no perspective.
    """
    names = [*taken, *PERSPECTIVES, NEUTRAL.name]
    sources: dict[Path, str] = {}
    for proposal in proposals:
        names.append(file_stem(proposal.name, names))
        sources[folder / f"{names[-1]}.jinja"] = perspective_source(proposal)
    for path, source in sources.items():
        if path.exists() and path.read_bytes() != source.encode("utf-8"):
            raise TeacherError(
                f"{path} exists and says something else, it is not overwritten; give another folder with --out, or "
                "measure the file as it is: manylens perspectives measure RECIPE FILE"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for path, source in sources.items():
        write_text(path, source)
        load_perspective(str(path))
    return list(sources)
