from collections.abc import Sequence

import numpy as np
import pytest
import torch

from manylens.errors import DataError
from manylens.evaluation.latency import _latency, latencies
from manylens.records import Pair
from manylens.student import Student
from manylens.student.encoding import PairEncoder
from student.build import TEMPLATE, make_encoder, make_model, make_pairs, make_tokenizer

PAIRS = make_pairs(5)


def make_students() -> dict[str, Student]:
    return {str(extractor): Student(make_model(extractor=extractor), make_encoder()) for extractor in (None, "mlp")}


def test_every_student_and_size_is_measured() -> None:
    threads = torch.get_num_threads()
    rows = latencies(make_students(), PAIRS, sizes=(1, 3), rounds=4, threads=2)
    assert torch.get_num_threads() == threads
    assert [(row.products, row.student, row.threads) for row in rows] == [
        (1, "None", 2),
        (1, "mlp", 2),
        (3, "None", 2),
        (3, "mlp", 2),
    ]
    for row in rows:
        assert 0.0 < row.model_p50 < row.p50 <= row.p95 and row.model_p50 <= row.model_p95
        assert row.ratio > 0.0
    assert rows[0].ratio == rows[2].ratio == 1.0


class Recording(PairEncoder):
    """An encoder that notes who was asked for which pairs."""

    def __init__(self, name: str, asked: list[tuple[str, list[str]]]) -> None:
        super().__init__(make_tokenizer(), TEMPLATE, 12)
        self.name, self.asked = name, asked

    def encode(self, pairs: Sequence[Pair]) -> dict[str, list[list[int]]]:
        self.asked.append((self.name, [pair.pair_id for pair in pairs]))
        return super().encode(pairs)


def test_students_get_the_same_requests_in_turns() -> None:
    asked: list[tuple[str, list[str]]] = []
    students = {name: Student(make_model(extractor=None), Recording(name, asked)) for name in ("one", "two")}
    latencies(students, PAIRS, sizes=(2,), rounds=2)
    assert asked == [
        ("one", ["p0", "p1"]),
        ("two", ["p0", "p1"]),
        ("two", ["p2", "p3"]),
        ("one", ["p2", "p3"]),
        ("one", ["p4", "p0"]),
        ("two", ["p4", "p0"]),
    ]


def test_percentiles_and_the_ratio_by_round() -> None:
    first = np.array([[3.0, 1.0], [4.0, 2.0], [9.0, 8.0]])
    row = _latency("mlp", 10, 1, np.array([[5.0, 3.0], [7.0, 6.0], [9.0, 8.0]]), first)
    assert (row.p50, row.p95, row.model_p50, row.model_p95) == pytest.approx((7.0, 8.8, 6.0, 7.8))
    assert row.ratio == 3.0  # Of 3, 3 and 1.


@pytest.mark.parametrize("wrong", [{"sizes": ()}, {"sizes": (0,)}, {"rounds": 0}, {"pairs": []}, {"students": {}}])
def test_nothing_to_measure_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(DataError, match="latency needs students, pairs, sizes and rounds of at least 1"):
        latencies(**{"students": make_students(), "pairs": PAIRS, **wrong})
