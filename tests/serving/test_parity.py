from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from manylens.config import ExportConfig, Tolerance
from manylens.data import Pairs
from manylens.errors import StudentError
from manylens.records import ESCI, Pair
from manylens.serving import Scorer, parity
from manylens.serving.graphs import Heads
from manylens.serving.layout import CLASSES, VARIANTS, Card
from manylens.serving.parity import Parity, VariantParity, measure, parity_table
from manylens.student import Student
from student.build import make_pairs

OPTIONS = ExportConfig(variants=("onnx_fp32", "onnx_int8"))
MEASURED = VariantParity(
    logit_max=0.5,
    logit_mean=0.1,
    labels=0.9,
    gain_max=0.02,
    macro_f1=0.5,
    ndcg=0.8,
    mebibytes=1.0,
    problems=(),
)


@pytest.fixture(scope="module")
def dev() -> list[Pair]:
    """Judged pairs, four a query, and one that nobody judged."""
    pairs = [replace(pair, query_id=f"q{index // 4}") for index, pair in enumerate(make_pairs(40, seed=3))]
    return [*pairs, replace(pairs[0], pair_id="unjudged", label=None)]


@pytest.fixture(scope="module")
def student(student_folder: Path) -> Student:
    return Student.load(student_folder, device="cpu")


def measured(student: Student, exported: Path, dev: list[Pair], options: ExportConfig = OPTIONS) -> Parity:
    heads = Heads.of(student.model, Card.load(exported / CLASSES))
    return measure(heads, student.encoder, exported, Pairs.from_records(dev), ESCI, options, ndcg_cutoff=10)


def test_the_figures_are_those_of_other_libraries(student: Student, exported: Path, dev: list[Pair]) -> None:
    found = measured(student, exported, dev)
    assert (found.pairs, found.ndcg_cutoff, list(found.variants)) == (41, 10, list(OPTIONS.variants))
    assert found.problems == []
    exact = student.probabilities(dev)
    for variant, each in found.variants.items():
        with Scorer.load(exported, variant=variant) as scorer:
            table, gains = scorer.probabilities(dev), scorer.score(dev)
        labels = [ESCI.names[index] for index in table.argmax(axis=1)]
        assert each.labels == pytest.approx((table.argmax(axis=1) == exact.argmax(axis=1)).mean())
        gold = [str(pair.label) for pair in dev[:-1]]
        wanted = f1_score(gold, labels[:-1], labels=ESCI.names, average="macro", zero_division=0)
        assert each.macro_f1 == pytest.approx(wanted)
        assert each.ndcg == pytest.approx(
            np.mean([ndcg(dev[at : at + 4], gains[at : at + 4]) for at in range(0, 40, 4)])
        )
        assert each.gain_max >= np.abs(gains - exact @ student.gains).max() - 1e-6
        assert each.mebibytes == pytest.approx(
            (exported / CLASSES / VARIANTS[variant]).stat().st_size / 2**20, abs=0.01
        )
    fp32, int8 = found.variants.values()
    assert fp32.logit_max < 1e-5 < int8.logit_mean <= int8.logit_max


def ndcg(pairs: list[Pair], scores: np.ndarray) -> float:
    """Sum of gain / log2(rank + 1), over that of the best order; 0 where no product gains."""
    gains = np.array([ESCI.gain_vector()[ESCI.names.index(str(pair.label))] for pair in pairs])
    discounts = 1.0 / np.log2(np.arange(2, len(gains) + 2))
    best = (np.sort(gains)[::-1] * discounts).sum()
    return float((gains[np.argsort(-scores, kind="stable")] * discounts).sum() / best) if best else 0.0


def test_a_variant_beyond_its_tolerance_is_a_problem(student: Student, exported: Path, dev: list[Pair]) -> None:
    strict = Tolerance(logit_max=1e-9, logit_mean=None, labels=0.0, macro_f1=1.0, ndcg=1.0)
    found = measured(student, exported, dev, OPTIONS.model_copy(update={"low_precision": strict}))
    (problem,) = found.problems
    assert problem.startswith("onnx_int8: logit_max is ") and problem.endswith(", at most 1e-09 is allowed")


def test_dev_pairs_that_nobody_judged_are_compared_by_logits_and_labels(
    student: Student, exported: Path, dev: list[Pair]
) -> None:
    found = measured(student, exported, [replace(pair, label=None) for pair in dev])
    assert (found.macro_f1, found.ndcg, found.problems) == (None, None, [])
    assert all((each.macro_f1, each.ndcg) == (None, None) and each.labels > 0.5 for each in found.variants.values())
    with pytest.raises(StudentError, match=r"compared with PyTorch on dev pairs, got none; give data\.dev_fraction"):
        measured(student, exported, [])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logit_max": 0.51}, "logit_max is 0.51, at most 0.5 is allowed"),
        ({"logit_max": float("nan")}, "logit_max is nan, at most 0.5 is allowed"),
        ({"logit_mean": 0.11}, "logit_mean is 0.11, at most 0.1 is allowed"),
        ({"labels": 0.89}, "labels agree on 0.8900 of the pairs, at least 0.9 is asked for"),
        ({"labels": float("nan")}, "labels agree on nan of the pairs, at least 0.9 is asked for"),
        ({"macro_f1": 0.49}, "macro_f1 falls from 0.7500 to 0.4900, by at most 0.25 it may"),
        ({"ndcg": 0.54}, "ndcg falls from 0.8000 to 0.5400, by at most 0.25 it may"),
    ],
)
def test_each_limit_is_checked_and_inclusive(changed: dict[str, float], message: str) -> None:
    limits = Tolerance(logit_max=0.5, logit_mean=0.1, labels=0.9, macro_f1=0.25, ndcg=0.25)
    assert parity._problems(MEASURED, 0.75, 0.8, limits) == ()
    assert parity._problems(replace(MEASURED, **changed), 0.75, 0.8, limits) == (message,)
    better = replace(MEASURED, macro_f1=0.9, ndcg=1.0, labels=1.0, logit_max=0.0, logit_mean=0.0)
    assert parity._problems(better, 0.75, 0.8, limits) == ()


def test_a_graph_that_does_not_run_is_named_with_its_shape(
    student: Student, exported: Path, dev: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def run(self, batch: object) -> None:
            raise RuntimeError("no such operator")

    monkeypatch.setattr(parity, "build_engine", lambda *args, **options: Broken())
    with pytest.raises(StudentError, match=r"onnx_fp32 does not run on a batch of 32 pairs of \d+ tokens: no such"):
        measured(student, exported, dev)


def test_the_table_has_a_row_for_pytorch_and_each_variant() -> None:
    found = Parity(
        model="lrkd [bold]",
        pairs=40,
        ndcg_cutoff=10,
        macro_f1=None,
        ndcg=0.8125,
        temperature=1.25,
        versions={},
        variants={"onnx_fp32": MEASURED, "onnx_int8": replace(MEASURED, macro_f1=None, problems=("labels",))},
    )
    table = parity_table(found)
    assert str(table.title) == r"lrkd \[bold] on 40 dev pairs, temperature 1.250"
    assert [*table.columns[0].cells] == ["PyTorch", "onnx_fp32", "onnx_int8"]
    assert [*table.columns[5].cells] == ["-", "0.500", "-"]
    assert [row.style for row in table.rows] == [None, None, "red"]


def test_torch_is_compared_without_gradients(student: Student, exported: Path, dev: list[Pair]) -> None:
    measured(student, exported, dev)
    assert all(parameter.grad is None for parameter in student.model.parameters()) and torch.is_grad_enabled()
