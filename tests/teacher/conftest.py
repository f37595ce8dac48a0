from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manylens.records import Judgement, Pair
from manylens.teacher.store import JudgementStore


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    def build(number: int, label: str | None = "exact", **fields: object) -> Pair:
        known: dict[str, object] = {
            "pair_id": f"q{number}:p{number}",
            "query_id": f"q{number}",
            "product_id": f"p{number}",
            "query": f"unscented lotion {number}",
            "title": f"Pellumire Body Lotion {number}",
            "label": label,
        }
        return Pair(**{**known, **fields})  # type: ignore[arg-type]

    return build


@pytest.fixture
def make_judgement() -> Callable[..., Judgement]:
    def build(pair: Pair, perspective: str, label: str | None, **fields: object) -> Judgement:
        known: dict[str, object] = {
            "pair_id": pair.pair_id,
            "perspective": perspective,
            "label": label,
            "reason": None if label else "no_label",
            "rationale": f"{perspective} says {label}",
            "raw": f"{perspective} says {label}\n\nLabel: {label}",
            "teacher": "test",
            "prompt_hash": "0" * 64,
        }
        return Judgement(**{**known, **fields})  # type: ignore[arg-type]

    return build


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JudgementStore]:
    with JudgementStore(tmp_path / "store.sqlite") as store:
        yield store
