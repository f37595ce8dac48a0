from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.errors import TeacherError
from manylens.records import ESCI, Pair, Perspective
from manylens.teacher.perspectives import Prompt, load_perspective
from manylens.teacher.proposals import Proposal, file_stem, perspective_source, read_proposals, write_perspectives

PAIR = Pair(pair_id="a", query_id="a", product_id="a", query="red mug", title="red mug")
TWO = [
    {"name": "returns desk", "description": "Would it come back?", "instruction": "Imagine the parcel.\nIs it kept?"},
    {"name": "gift giver", "description": "Bought for another?", "instruction": "Ask who it is for."},
]


def proposal(**fields: str) -> Proposal:
    return Proposal(**{"name": "returns", "description": "Would it come back?", "instruction": "Imagine.", **fields})


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TWO),
        f"```json\n{json.dumps(TWO, indent=2)}\n```\nI hope that these help [1].",
        f"Here are two perspectives:\n{json.dumps(TWO)} And {{more}} could be said.",
        f"<think>\nPerhaps {json.dumps([{'name': 'no', 'instruction': 'no'}])}?\n</think>\n\n{json.dumps(TWO)}",
        json.dumps({"perspectives": TWO}),
        "\n".join(map(json.dumps, TWO)),
        json.dumps(TWO).replace("\\n", "\n"),  # Raw line breaks within a string.
        json.dumps(TWO)[:-1],  # Only the array is cut.
    ],
)
def test_perspectives_are_found_whatever_stands_around_them(text: str) -> None:
    proposals, refused = read_proposals(text)
    assert [each.model_dump() for each in proposals] == TWO
    assert refused == 0


def test_a_truncated_answer_gives_its_whole_objects() -> None:
    text = json.dumps(TWO)
    proposals, _ = read_proposals(text[: text.index("gift") + 30])
    assert [each.name for each in proposals] == ["returns desk"]


def test_thinking_that_never_ends_is_no_answer() -> None:
    assert read_proposals(f"<think>\nPerhaps {json.dumps(TWO)}") == ([], 0)
    assert len(read_proposals(f"So be it.</think>{json.dumps(TWO)}")[0]) == 2


def test_objects_without_a_name_or_an_instruction_are_counted() -> None:
    wrong = [{"name": "a"}, {"name": " ", "instruction": "b"}, {"name": 3, "instruction": "c"}, TWO[0]]
    proposals, refused = read_proposals(json.dumps(wrong))
    assert ([each.name for each in proposals], refused) == (["returns desk"], 3)


@settings(deadline=None)
@given(
    st.text()
    | st.text("[{\"'}],:ab1", max_size=60)
    | st.sampled_from(["[" * 1200, '{"a":' * 1200, "[" * 900 + "]" * 900])
)
def test_no_answer_breaks_the_reader(text: str) -> None:
    read_proposals(text)


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4), st.text(st.characters(exclude_characters="[{<")))
def test_what_json_holds_is_read(texts: list[tuple[str, str]], around: str) -> None:
    objects = [{"name": f"n{name}", "description": text, "instruction": f"i{text}"} for name, text in texts]
    proposals, refused = read_proposals(f"{around}{json.dumps(objects)}{around}")
    found = [(each.name.split(), each.instruction.split()) for each in proposals]
    assert found == [(each["name"].split(), each["instruction"].split()) for each in objects]
    assert refused == 0


@given(st.text(), st.lists(st.text(max_size=5), max_size=3))
def test_a_stem_is_safe_and_not_taken(name: str, taken: list[str]) -> None:
    stem = file_stem(name, taken)
    assert re.fullmatch(r"[a-z0-9][a-z0-9_]*", stem) and len(stem) <= 45
    assert stem not in taken


def test_stems_by_hand() -> None:
    assert file_stem("../../etc/Passwd") == "etc_passwd"
    assert file_stem("Größe & Maß") == "groe_ma"
    assert file_stem("返品") == "perspective"
    assert file_stem("returns", ["returns", "returns_2"]) == "returns_3"


@settings(deadline=None)
@given(st.text(min_size=1) | st.text("{}%#-' rawendblock\n\r", min_size=1), st.text("{}#%-\n ab"))
def test_the_text_stands_for_itself_in_the_prompt(instruction: str, description: str) -> None:
    """Nothing that a teacher writes is taken for Jinja: the prompt holds its words, and the layout stays whole."""
    source = perspective_source(proposal(instruction=f"<{instruction}>", description=description))
    system = Prompt(Perspective(name="x", description="", template=source), ESCI).messages(PAIR)[0]["content"]
    assert " ".join(f"<{instruction}>".split()) in " ".join(system.split())
    assert system.startswith("You judge how relevant") and "Labels, best first:" in system


def test_a_file_is_a_perspective_with_its_description(tmp_path: Path) -> None:
    (path,) = write_perspectives([proposal(description="Would it\ncome #} back?")], tmp_path / "new", [])
    loaded = load_perspective(str(path))
    assert (path, loaded.name) == (tmp_path / "new" / "returns.jinja", "returns")
    assert loaded.description == "Would it come # } back?"
    assert path.read_text(encoding="utf-8") == (
        '{# Would it come # } back? #}\n{% extends "perspective.jinja" %}\n{% block instruction %}\nImagine.\n'
        "{% endblock %}\n"
    )


def test_a_lone_surrogate_can_be_written(tmp_path: Path) -> None:
    (found,), _ = read_proposals('[{"name": "a", "instruction": "x \\ud800 y"}]')
    (path,) = write_perspectives([found], tmp_path, [])
    assert "x ? y" in path.read_text(encoding="utf-8")


def test_names_differ_from_the_panels_and_from_each_other(tmp_path: Path) -> None:
    proposals = [proposal(name=name) for name in ("Own", "Returns", "returns", "Neutral", "user intent")]
    files = write_perspectives(proposals, tmp_path, ["own"])
    assert [file.stem for file in files] == ["own_2", "returns", "returns_2", "neutral_2", "user_intent_2"]


def test_a_file_that_says_something_else_is_never_overwritten(tmp_path: Path) -> None:
    write_perspectives([proposal()], tmp_path, [])
    assert write_perspectives([proposal()], tmp_path, []) == [tmp_path / "returns.jinja"]
    (tmp_path / "returns.jinja").write_text("edited by hand")
    with pytest.raises(TeacherError, match=r"returns\.jinja exists and says something else.*--out"):
        write_perspectives([proposal(name="another"), proposal()], tmp_path, [])
    assert [file.name for file in tmp_path.iterdir()] == ["returns.jinja"]
    assert (tmp_path / "returns.jinja").read_text() == "edited by hand"
