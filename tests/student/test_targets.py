from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from manylens.errors import StudentError
from manylens.student.targets import Targets, build_targets

PERSPECTIVES = ("intent", "rules")
VECTORS = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [3.0, 5.0], "a\nb": [7.0, 7.0], "c\nb": [8.0, 0.0]}
#: p1 has one rationale of each perspective, p2 two samples of rules, the first of which p1 has too.
RATIONALES = [("p1", "rules", "b"), ("p1", "intent", "a"), ("p2", "rules", "b"), ("p2", "rules", "c")]


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    assert len(set(texts)) == len(texts)
    return np.array([VECTORS[text] for text in texts], dtype=np.float32)


def test_mean_of_all_rationales_of_a_pair() -> None:
    targets = build_targets(RATIONALES, embed, combine="mean", perspectives=PERSPECTIVES)
    assert (targets.pair_ids, targets.names, targets.dim) == (("p1", "p2"), ("rationale",), 2)
    assert targets.vectors.tolist() == [[[0.5, 0.5]], [[1.5, 3.0]]]
    assert targets.mask.tolist() == [[True], [True]]


def test_one_target_per_perspective_is_the_mean_over_its_samples() -> None:
    targets = build_targets(RATIONALES, embed, combine="per_perspective", perspectives=PERSPECTIVES)
    assert targets.names == PERSPECTIVES
    assert targets.vectors.tolist() == [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.5, 3.0]]]
    assert targets.mask.tolist() == [[True, True], [False, True]]


def test_concatenated_text_goes_in_the_order_of_the_perspectives() -> None:
    rationales = [*RATIONALES[:2], ("p2", "rules", "c"), ("p2", "rules", "b")]
    targets = build_targets(rationales, embed, combine="concat_text", perspectives=PERSPECTIVES)
    assert targets.vectors.tolist() == [[[7.0, 7.0]], [[8.0, 0.0]]]


def test_centring_takes_the_mean_of_the_training_pairs_alone() -> None:
    rationales = [("t1", "intent", "a"), ("t2", "intent", "c"), ("d1", "intent", "b")]
    targets = build_targets(
        rationales, embed, combine="mean", perspectives=PERSPECTIVES, centre_on=frozenset({"t1", "t2", "unjudged"})
    )
    # The mean of (1, 0) and (3, 5) is (2, 2.5).
    assert targets.vectors[:, 0].tolist() == [[-1.0, -2.5], [1.0, 2.5], [-2.0, -1.5]]


def test_centring_goes_by_latent_and_leaves_what_is_masked_at_zero() -> None:
    targets = build_targets(
        RATIONALES, embed, combine="per_perspective", perspectives=PERSPECTIVES, centre_on=frozenset({"p1", "p2"})
    )
    # intent: only p1, so its mean is itself. rules: the mean of (0, 1) and (1.5, 3) is (0.75, 2).
    assert targets.vectors.tolist() == [[[0.0, 0.0], [-0.75, -1.0]], [[0.0, 0.0], [0.75, 1.0]]]


def test_the_order_of_the_rationales_of_a_pair_does_not_matter() -> None:
    forwards, backwards = (
        build_targets(order, embed, combine="concat_text", perspectives=PERSPECTIVES)
        for order in (RATIONALES[:2], RATIONALES[1::-1])
    )
    np.testing.assert_array_equal(forwards.vectors, backwards.vectors)


def test_nothing_to_distil_is_an_error() -> None:
    with pytest.raises(StudentError, match=r"no rationale passed the filter"):
        build_targets([], embed, combine="mean", perspectives=PERSPECTIVES)


def test_saving_and_loading(tmp_path: Path) -> None:
    targets = build_targets(RATIONALES, embed, combine="per_perspective", perspectives=PERSPECTIVES)
    targets.save(tmp_path)
    loaded = Targets.load(tmp_path)
    assert (loaded.pair_ids, loaded.names) == (targets.pair_ids, targets.names)
    np.testing.assert_array_equal(loaded.vectors, targets.vectors)
    np.testing.assert_array_equal(loaded.mask, targets.mask)
    assert isinstance(loaded.vectors, np.memmap)


def test_files_of_two_runs_are_not_mixed(tmp_path: Path) -> None:
    build_targets(RATIONALES, embed, combine="per_perspective", perspectives=PERSPECTIVES).save(tmp_path)
    np.save(tmp_path / "targets.npy", np.zeros((3, 2, 2), dtype=np.float32))
    with pytest.raises(StudentError, match=r"targets\.npy has shape \(3, 2, 2\), targets\.parquet \(2, 2\); run embed"):
        Targets.load(tmp_path)
