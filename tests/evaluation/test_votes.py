from __future__ import annotations

from dataclasses import replace
from io import StringIO

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score

from manylens.config import EvaluateConfig
from manylens.errors import DataError
from manylens.evaluation.votes import score_votes, votes_table
from manylens.records import ESCI
from manylens.teacher.votes import VOTE_SCHEMA, Votes

CONFIG = EvaluateConfig(bootstrap_samples=500)
NONE = "none"


def make_votes(splits: list[str], *, panel: tuple[str, ...] = ("a", "b"), right: float = 0.7) -> Votes:
    """Draw three pairs for each split given, a query each; everybody is right at the rate `right`."""
    generator = np.random.default_rng(5)

    def draw(gold: list[str | None]) -> list[str | None]:
        others = [str(name) for name in generator.choice([*ESCI.names, NONE], len(gold))]
        keep = generator.random(len(gold)) < right
        return [
            label if kept else None if other == NONE else other
            for label, other, kept in zip(gold, others, keep, strict=True)
        ]

    split = [name for name in splits for _ in range(3)]
    gold: list[str | None] = [str(name) for name in generator.choice(ESCI.names, len(split))]
    gold[0] = None
    rows = {
        "pair_id": [f"p{number}" for number in range(len(split))],
        "query_id": [f"q{number // 3}" for number in range(len(split))],
        "split": split,
        "label": gold,
        "majority": draw(gold),
        "weighted": draw(gold),
    }
    return Votes(
        table=pa.table(rows, schema=VOTE_SCHEMA),
        complete=[True] * len(split),
        alone={name: draw(gold) for name in panel},
        oracle=gold,
        accuracies={name: 0.5 + 0.1 * number for number, name in enumerate(panel)},
        calls=len(panel),
    )


def test_figures_are_those_of_scikit_learn_on_test_alone() -> None:
    votes = make_votes(["dev"] * 20 + ["test"] * 30)
    report = score_votes(votes, ESCI, CONFIG, seed=1)
    assert (report.split, report.pairs, report.queries, report.reference) == ("test", 90, 30, "b")
    columns = {**votes.alone, "majority": votes.table["majority"].to_pylist(), "oracle": list(votes.oracle)}
    scores = {score.name: score for score in (*report.alone, *report.panel)}
    gold = votes.table["label"].to_pylist()[60:]
    for name, labels in columns.items():
        predicted = [label or NONE for label in labels[60:]]
        assert scores[name].accuracy == pytest.approx(accuracy_score(gold, predicted))
        f1 = f1_score(gold, predicted, labels=list(ESCI.names), average="macro", zero_division=0)
        assert scores[name].macro_f1 == pytest.approx(f1)
        assert scores[name].gain == pytest.approx(scores[name].accuracy - scores["b"].accuracy)
    assert [score.calls for score in (*report.alone, *report.panel)] == [1, 1, 2, 2, 2]


def test_the_interval_is_paired_by_query() -> None:
    votes = make_votes(["test"] * 40)
    scores = {score.name: score for score in score_votes(votes, ESCI, CONFIG, seed=1).panel}
    interval = scores["oracle"].interval
    assert interval is not None and 0.0 < interval[0] < scores["oracle"].gain < interval[1]
    # The reference against itself differs by nothing in any resample.
    (reference,) = (score for score in score_votes(votes, ESCI, CONFIG, seed=1).alone if score.name == "b")
    assert reference.interval == (0.0, 0.0)


def test_without_test_dev_is_measured_and_unlabelled_pairs_are_left_out() -> None:
    report = score_votes(make_votes(["dev"] * 4 + ["train"] * 4), ESCI, CONFIG, seed=1)
    assert (report.split, report.pairs, report.queries) == ("dev", 11, 4)


def test_pairs_with_unanswered_judgements_are_left_out() -> None:
    votes = make_votes(["dev"] * 2 + ["test"] * 3)
    # Nothing of test is complete, and one pair of dev is not either; another has no gold label.
    partly = replace(votes, complete=[True] * 5 + [False] * 10)
    report = score_votes(partly, ESCI, CONFIG, seed=1)
    assert (report.split, report.pairs) == ("dev", 4)
    with pytest.raises(DataError, match="no pair of dev or test has a gold label and answers to all"):
        score_votes(replace(votes, complete=[False] * 15), ESCI, CONFIG, seed=1)


def test_a_neutral_perspective_is_the_reference() -> None:
    assert score_votes(make_votes(["dev"] * 3, panel=("neutral", "z")), ESCI, CONFIG, seed=1).reference == "neutral"


def test_one_query_has_no_interval_and_the_table_shows_what_there_is() -> None:
    report = score_votes(make_votes(["dev", "dev", "test"]), ESCI, CONFIG, seed=1)
    assert all(score.interval is None for score in (*report.alone, *report.panel))
    stream = StringIO()
    Console(file=stream, width=80).print(votes_table(report))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert "on test (accuracies from dev): 1 queries, 3 pairs" in " ".join(stream.getvalue().split())
    oracle, reference = (next(words for words in lines if words[:1] == [name]) for name in ("oracle", "b"))
    assert (oracle[1:3], oracle[-1]) == (["2", "1.000"], "-")
    assert (reference[1], reference[-2:]) == ("1", ["-", "-"])


def test_the_table_fits_eighty_columns() -> None:
    report = score_votes(make_votes(["dev"] * 9, panel=("user_intent", "structured_analysis")), ESCI, CONFIG, seed=1)
    stream = StringIO()
    Console(file=stream, width=80).print(votes_table(report))
    assert "…" not in stream.getvalue()
    assert "on dev (cross-validated)" in stream.getvalue()
    assert "that of structured_analysis alone, with its 95%" in " ".join(stream.getvalue().split())
