"""What docs/backends.md says is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from manylens.config import OpenAITeacher
from manylens.records import ESCI, Pair
from manylens.teacher import JudgementStore, judge, judgements_of, load_perspective
from manylens.teacher.backends import build_backend

PAGE = (Path(__file__).parents[3] / "docs/backends.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found is not None
    return found[1]


def test_the_section_of_the_recipe_is_one() -> None:
    config = OpenAITeacher.model_validate(yaml.safe_load(block("yaml"))["teacher"])
    assert build_backend(config).name == "openai:Qwen/Qwen3-14B"


def test_the_backend_of_ones_own_judges(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(block("python"), names)
    pairs = [Pair(pair_id="q:p", query_id="q", product_id="p", query="mug", title="A mug")]
    panel, echo = [load_perspective("user_intent")], names["Echo"]()
    with JudgementStore(tmp_path / "store.sqlite") as store:
        assert judge(pairs, panel, ESCI, echo, store).asked == 1
        (judgement,) = judgements_of(pairs, panel, ESCI, echo, store)
    assert (judgement.teacher, judgement.label) == ("echo", "exact")
