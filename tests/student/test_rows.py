from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from manylens.errors import ConfigError, StudentError
from manylens.records import ESCI
from manylens.student.losses import IGNORED_LABEL
from manylens.student.rows import StudentCollator, write_rows
from manylens.student.targets import Targets

from .build import CLS, DIM, SEP, VOCABULARY, make_encoder, make_pair, make_pairs, make_targets

PAIRS = [
    make_pair("red", "hat", pair_id="a", label="substitute"),
    make_pair("red shoe", "blue hat", pair_id="b", label=None),
]


def test_rows_by_hand(tmp_path: Path) -> None:
    rows = write_rows(PAIRS, make_encoder(), ESCI, tmp_path / "rows.arrow")
    red, hat = VOCABULARY["red"], VOCABULARY["hat"]
    assert rows[0] == {
        "input_ids": [CLS, red, SEP, hat, SEP],
        "token_type_ids": [0, 0, 0, 1, 1],
        "attention_mask": [1] * 5,
        "length": 5,
        "labels": 1,
    }
    assert (rows[1]["length"], rows[1]["labels"]) == (7, IGNORED_LABEL)
    assert rows.cache_files[0]["filename"] == str(tmp_path / "rows.arrow")


def test_targets_follow_their_pairs_and_a_pair_without_one_is_masked(tmp_path: Path) -> None:
    vectors = np.arange(2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3)
    targets = Targets(
        pair_ids=("elsewhere", "a"), names=("x", "y"), vectors=vectors, mask=np.array([[True, True], [True, False]])
    )
    rows = write_rows(PAIRS, make_encoder(), ESCI, tmp_path / "rows.arrow", targets)
    assert rows[0]["rationale_embedding"] == vectors[1].tolist()
    assert rows[0]["rationale_mask"] == [True, False]
    assert rows[1]["rationale_embedding"] == [[0.0] * 3] * 2
    assert rows[1]["rationale_mask"] == [False, False]


def test_rows_of_several_batches_are_in_order(tmp_path: Path) -> None:
    pairs = make_pairs(1500)
    targets = make_targets(pairs)
    rows = write_rows(iter(pairs), make_encoder(), ESCI, tmp_path / "rows.arrow", targets)
    assert len(rows) == 1500
    assert rows["labels"][:] == [ESCI.index(str(pair.label)) for pair in pairs]
    np.testing.assert_array_equal(np.array(rows[1400]["rationale_embedding"], dtype=np.float32), targets.vectors[1399])


def test_a_batch_is_padded_and_typed(tmp_path: Path) -> None:
    encoder, pairs = make_encoder(), [*PAIRS, make_pair("red", "sofa", pair_id="c", label="exact")]
    rows = write_rows(pairs, encoder, ESCI, tmp_path / "rows.arrow", make_targets(pairs))
    batch = StudentCollator(encoder)([rows[index] for index in range(3)])
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "input_ids": (3, 7),
        "token_type_ids": (3, 7),
        "attention_mask": (3, 7),
        "labels": (3,),
        "rationale_embedding": (3, 1, DIM),
        "rationale_mask": (3, 1),
    }
    assert batch["attention_mask"].sum(dim=1).tolist() == [5, 7, 5]
    assert batch["labels"].tolist() == [1, IGNORED_LABEL, 0]
    assert batch["rationale_mask"].tolist() == [[False], [True], [True]]
    assert (batch["rationale_embedding"].dtype, batch["rationale_mask"].dtype) == (torch.float32, torch.bool)


def test_no_pair_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"dev\.arrow: expected at least one pair"):
        write_rows([], make_encoder(), ESCI, tmp_path / "dev.arrow")


def test_a_label_off_the_scale_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label 'partial' is not on the scale"):
        write_rows([make_pair(label="partial")], make_encoder(), ESCI, tmp_path / "rows.arrow")
