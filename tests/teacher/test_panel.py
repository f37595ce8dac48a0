from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from manylens.records import ESCI, Judgement, Pair
from manylens.teacher.backends import RecordedBackend
from manylens.teacher.judge import judge, judgements_of
from manylens.teacher.panel import PanelStatistics, fleiss_kappa, label_confusion, panel_statistics, panel_table
from manylens.teacher.perspectives import PERSPECTIVES, load_perspective
from manylens.teacher.store import JudgementStore

ROOT = Path(__file__).parents[2]
ESCI_US_150 = ROOT.parent / "shared/data/esci_us_150"
DEMO_STORE = ROOT / "src/manylens/data/demo_store"


def test_figures_worked_out_by_hand(make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]) -> None:
    labels: list[tuple[str | None, str | None, str | None, str]] = [
        ("exact", "exact", "exact", "-"),  # all right; c was not answered
        ("exact", "substitute", "exact", "exact"),  # conflict
        ("exact", "irrelevant", "irrelevant", "irrelevant"),  # unanimous, wrong
        ("substitute", "substitute", "substitute", "substitute"),  # unanimous, right
        ("irrelevant", "exact", "", "substitute"),  # all wrong, b unparseable
        (None, "exact", "exact", "exact"),  # unanimous, no gold label
        ("exact", "-", "-", "-"),  # nothing answered: not among the pairs
    ]
    pairs = [make_pair(number, row[0]) for number, row in enumerate(labels)]
    judgements = [
        make_judgement(pair, name, None, reason="unanswered")
        if label == "-"
        else make_judgement(pair, name, label or None)
        for pair, row in zip(pairs, labels, strict=True)
        for name, label in zip("abc", row[1:], strict=True)
    ]
    statistics = panel_statistics(pairs, judgements, ESCI, ["a", "b", "c"])
    assert statistics.pairs == 6
    assert statistics.oracle == pytest.approx(3 / 5)
    assert statistics.conflict == pytest.approx(1 / 5)
    # Complete panels: the second, third, fourth and sixth pair.
    assert statistics.unanimous == pytest.approx(3 / 4)
    assert statistics.unanimous_accuracy == pytest.approx(1 / 2)
    # Votes (exact, substitute, complement, irrelevant): 2100, 0003, 0300, 3000. P = (1/3 + 1 + 1 + 1) / 4 = 5/6 and
    # chance = (5/12)^2 + (4/12)^2 + (3/12)^2 = 50/144.
    assert statistics.kappa == pytest.approx((5 / 6 - 50 / 144) / (1 - 50 / 144))
    a, b, c = (statistics.by_perspective[name] for name in "abc")
    assert (a.judgements, a.unanswered, a.unparseable) == (7, pytest.approx(1 / 7), 0.0)
    assert a.accuracy == pytest.approx(2 / 5)
    assert a.recall == {"exact": pytest.approx(1 / 3), "substitute": 1.0, "complement": None, "irrelevant": 0.0}
    assert (b.unanswered, b.unparseable, b.accuracy) == (
        pytest.approx(1 / 7),
        pytest.approx(1 / 6),
        pytest.approx(3 / 5),
    )
    assert (c.unanswered, c.unparseable, c.accuracy) == (pytest.approx(2 / 7), 0.0, pytest.approx(2 / 4))
    assert [(row.answered, row.right) for row in (a, b, c)] == [(6, 2), (6, 3), (5, 2)]
    # Of the five pairs with a gold label, the first and the fifth have an answer of both a and c, and so on; b is right
    # and a wrong on the second; c is right on the second and fourth, b's empty answer to the fifth is not wrong.
    assert statistics.disagreement == {
        "a": {"b": 0.0, "c": 0.0},
        "b": {"a": pytest.approx(1 / 5), "c": 0.0},
        "c": {"a": pytest.approx(1 / 4), "b": 0.0},
    }
    assert (statistics.pass_at_k.samples, statistics.pass_at_k.pairs) == (1, 4)
    assert statistics.pass_at_k.rows[-1].panel == pytest.approx(2 / 4)


def test_samples_are_spread_over_all_couples(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    pair = make_pair(1)
    says = {"a": ["exact", "exact", "irrelevant", None], "b": ["exact", "irrelevant", "substitute", None]}
    judgements = [
        make_judgement(pair, name, label, sample=sample)
        for name, labels in says.items()
        for sample, label in enumerate(labels)
    ]
    statistics = panel_statistics([pair], judgements, ESCI, ["a", "b"])
    # a is right in 2 of 4 samples and wrong in 1; b right in 1 and wrong in 2.
    assert statistics.disagreement == {"a": {"b": 2 / 4 * 2 / 4}, "b": {"a": 1 / 4 * 1 / 4}}
    calls = {row.calls: row for row in statistics.pass_at_k.rows}
    assert calls[2].by_perspective == {"a": pytest.approx(1 - 1 / 6), "b": pytest.approx(1 - 3 / 6)}
    assert calls[2].panel == pytest.approx(1 - 2 / 4 * 3 / 4)


def test_tokens_are_summed_and_one_unknown_makes_the_sum_unknown(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    pairs = [make_pair(1), make_pair(2)]
    judgements = [
        make_judgement(pairs[0], "a", "exact", prompt_tokens=500, completion_tokens=60),
        make_judgement(pairs[0], "b", "exact", prompt_tokens=500, completion_tokens=50),
        make_judgement(pairs[1], "a", None, prompt_tokens=510, completion_tokens=70),
        make_judgement(pairs[1], "b", "exact"),
    ]
    statistics = panel_statistics(pairs, judgements, ESCI, ["a", "b"])
    a, b = statistics.by_perspective["a"], statistics.by_perspective["b"]
    assert (a.prompt_tokens, a.completion_tokens, a.right) == (1010, 130, 1)
    assert (b.prompt_tokens, b.completion_tokens, b.right) == (None, None, 2)


def test_a_part_of_the_panel_can_be_measured(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    pair = make_pair(1)
    judgements = [make_judgement(pair, "a", "exact"), make_judgement(pair, "b", "irrelevant")]
    assert panel_statistics([pair], judgements, ESCI, ["a", "b"]).oracle == 1.0
    assert panel_statistics([pair], judgements, ESCI, ["b"]).oracle == 0.0


def test_nothing_gives_no_figures_and_is_json(make_pair: Callable[..., Pair]) -> None:
    statistics = panel_statistics([make_pair(1)], [], ESCI, ["a"])
    assert json.loads(json.dumps(asdict(statistics))) == {
        "pairs": 0,
        "by_perspective": {
            "a": {
                "judgements": 0,
                "answered": 0,
                "unanswered": None,
                "unparseable": None,
                "accuracy": None,
                "recall": dict.fromkeys(ESCI.names),
                "right": 0,
                "prompt_tokens": None,
                "completion_tokens": None,
            }
        },
        "disagreement": {"a": {}},
        "pass_at_k": {"samples": 0, "pairs": 0, "rows": []},
        **dict.fromkeys(("oracle", "conflict", "unanimous", "unanimous_accuracy", "kappa")),
    }


def test_labels_are_counted_by_pair_and_sample(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    says = {"a": ["exact", "irrelevant", None], "b": ["exact", "substitute", "exact"], "c": ["irrelevant"] * 3}
    judgements = [
        make_judgement(make_pair(number), name, label, sample=sample)
        for number in range(2)
        for name, labels in says.items()
        for sample, label in enumerate(labels)
    ]
    assert label_confusion(judgements, ESCI, "a", "b") == ((2, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 2, 0, 0))
    assert label_confusion(judgements, ESCI, "b", "a") == ((2, 0, 0, 0), (0, 0, 0, 2), (0, 0, 0, 0), (0, 0, 0, 0))


def test_kappa_of_the_published_example() -> None:
    # Ten subjects, fourteen raters, five categories: the worked example of Wikipedia's "Fleiss' kappa", 0.210.
    votes = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    assert fleiss_kappa(votes) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa([(3, 0), (0, 3)]) == 1.0
    assert fleiss_kappa([(3, 0), (3, 0)]) is None
    assert fleiss_kappa([(1, 0), (0, 1)]) is None


def test_the_table_shows_every_figure(make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]) -> None:
    pair = make_pair(1)
    statistics = panel_statistics([pair], [make_judgement(pair, "user_intent", "exact")], ESCI, ["user_intent"])
    console = Console(file=StringIO(), width=160)
    console.print(panel_table(statistics, ESCI))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in text for name in ESCI.names)
    row = next(line for line in text.splitlines() if "user_intent" in line)
    assert row.split() == ["user_intent", "1.000", "1.000", "-", "-", "-", "0.000", "0.000"]
    assert max(map(len, text.splitlines())) <= 80
    assert "1 pairs judged; oracle 1.000, conflict 0.000" in text


def esci_pairs() -> Iterator[Pair]:
    columns = ["query_id", "product_id", "query", "esci_label", "split"]
    for row in pq.read_table(ESCI_US_150 / "shopping_queries_dataset_examples.parquet", columns=columns).to_pylist():
        yield Pair(
            pair_id=f"{row['query_id']}:{row['product_id']}",
            query_id=str(row["query_id"]),
            product_id=row["product_id"],
            query=row["query"],
            title=row["product_id"],
            label=ESCI.parse(row["esci_label"]),
            split=row["split"],
        )


def demo_pairs() -> Iterator[Pair]:
    def rows(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (DEMO_STORE / name).read_text(encoding="utf-8").splitlines()]

    queries = {row["query_id"]: row for row in rows("queries.jsonl")}
    for row in rows("labels.jsonl"):
        yield Pair(
            pair_id=f"{row['query_id']}:{row['product_id']}",
            query_id=row["query_id"],
            product_id=row["product_id"],
            query=queries[row["query_id"]]["query"],
            title=row["product_id"],
            label=row["label"],
        )


def recorded_panel(pairs: list[Pair], file: Path, tmp_path: Path) -> PanelStatistics:
    panel, backend = [load_perspective(name) for name in PERSPECTIVES], RecordedBackend(file)
    with JudgementStore(tmp_path / "store.sqlite") as store:
        judge(pairs, panel, ESCI, backend, store)
        return panel_statistics(pairs, judgements_of(pairs, panel, ESCI, backend, store), ESCI, PERSPECTIVES)


@pytest.mark.skipif(not ESCI_US_150.is_dir(), reason="the excerpt of the Shopping Queries Dataset is not here")
def test_what_is_known_of_the_recorded_esci_panel(tmp_path: Path) -> None:
    statistics = recorded_panel(list(esci_pairs()), ESCI_US_150 / "judgements.jsonl", tmp_path)
    accuracy = [round(row.accuracy or 0, 3) for row in statistics.by_perspective.values()]
    assert accuracy == [0.568, 0.572, 0.575]
    assert (round(statistics.oracle or 0, 3), round(statistics.unanimous or 0, 3)) == (0.614, 0.891)
    assert statistics.pairs == 1820
    recall = statistics.by_perspective["user_intent"].recall
    assert (round(recall["exact"] or 0, 1), round(recall["substitute"] or 0, 1)) == (0.5, 0.7)


def test_the_demo_panel_as_counted_from_its_files(tmp_path: Path) -> None:
    # Counted by comparing judgements.jsonl with labels.jsonl row by row, without this package.
    statistics = recorded_panel(list(demo_pairs()), DEMO_STORE / "judgements.jsonl", tmp_path)
    assert statistics.pairs == 880
    assert {name: row.accuracy for name, row in statistics.by_perspective.items()} == {
        "user_intent": pytest.approx(840 / 880),
        "structured_analysis": pytest.approx(865 / 880),
        "business_rules": pytest.approx(844 / 880),
    }
    assert statistics.unanimous == pytest.approx(825 / 880)
