from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from manylens.errors import ConfigError, StudentError
from manylens.records import ESCI
from manylens.student.encoding import PairEncoder
from manylens.student.losses import IGNORED_LABEL
from manylens.student.parts import Need
from manylens.student.rows import StudentCollator, write_rows
from manylens.student.targets import Targets

from .build import (
    CLS,
    DIM,
    SEP,
    TEMPLATE,
    VOCABULARY,
    make_encoder,
    make_pair,
    make_pairs,
    make_targets,
    make_tokenizer,
)

PAIRS = [
    make_pair("red", "hat", pair_id="a", label="substitute"),
    make_pair("red shoe", "blue hat", pair_id="b", label="exact"),
]
LABEL_FREE = [replace(pair, label=None) for pair in PAIRS]


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
    assert (rows[1]["length"], rows[1]["labels"]) == (7, 0)
    assert rows.cache_files[0]["filename"] == str(tmp_path / "rows.arrow")


def targets_of(
    pair_ids: tuple[str, ...], mask: list[list[bool]], votes: list[list[float]], texts: tuple[str, ...]
) -> Targets:
    """Return targets whose vectors count from 0."""
    shape = (len(pair_ids), len(mask[0]), 3)
    return Targets(
        pair_ids=pair_ids,
        names=("x", "y")[: shape[1]],
        vectors=np.arange(np.prod(shape), dtype=np.float32).reshape(shape),
        mask=np.array(mask),
        votes=np.array(votes, dtype=np.float32),
        texts=texts,
    )


def test_targets_follow_their_pairs_and_a_pair_without_one_is_masked(tmp_path: Path) -> None:
    votes = [[0, 0, 0, 1], [0.5, 0.5, 0, 0]]
    targets = targets_of(("elsewhere", "a"), [[True, True], [True, False]], votes, ("", "so red"))
    rows = write_rows(PAIRS, make_encoder(), ESCI, tmp_path / "rows.arrow", targets)
    assert rows["target"][:] == [1, -1]
    batch = StudentCollator(make_encoder(), targets)([rows[0], rows[1]])
    assert batch["rationale_embedding"].tolist() == [targets.vectors[1].tolist(), [[0.0] * 3] * 2]
    assert batch["rationale_mask"].tolist() == [[True, False], [False, False]]
    assert batch["votes"].tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0, 0]]
    assert "has_text" not in batch


@pytest.mark.parametrize(
    ("needs", "kept"),
    [((), []), (("vectors",), ["v"]), (("votes",), ["w"]), (("texts",), ["t"]), (("vectors", "texts"), ["v", "t"])],
)
def test_a_pair_without_a_label_stays_where_the_method_learns_something_from_it(
    tmp_path: Path, needs: tuple[Need, ...], kept: list[str]
) -> None:
    targets = targets_of(
        ("v", "w", "t", "n"),
        [[True], [False], [False], [False]],
        [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        ("", "", "because", ""),
    )
    pairs = [make_pair("red", "hat", pair_id=name) for name in ("v", "w", "t", "n", "elsewhere")]
    labelled = make_pair("red", "hat", pair_id="labelled", label="exact")
    rows = write_rows([*pairs, labelled], make_encoder(), ESCI, tmp_path / "rows.arrow", targets, needs=needs)
    places = [-1 if name == "labelled" else targets.pair_ids.index(name) for name in [*kept, "labelled"]]
    assert rows["target"][:] == places
    assert rows["labels"][:] == [IGNORED_LABEL] * len(kept) + [0]


def test_the_augmented_view_reads_the_rationale_behind_the_product(tmp_path: Path) -> None:
    targets = targets_of(("a",), [[True]], [[1, 0, 0, 0]], ("blue cup lamp sofa",))
    encoder = make_encoder()
    rows = write_rows(PAIRS, encoder, ESCI, tmp_path / "rows.arrow", targets, needs=("texts",), augmented_length=8)
    red, hat, blue, cup, lamp = (VOCABULARY[word] for word in ("red", "hat", "blue", "cup", "lamp"))
    assert rows[0]["augmented_input_ids"] == [CLS, red, SEP, hat, blue, cup, lamp, SEP]
    assert rows[1]["augmented_input_ids"] == rows[1]["input_ids"]
    batch = StudentCollator(encoder, targets)([rows[0], rows[1]])
    assert batch["has_text"].tolist() == [True, False]
    assert tuple(batch["augmented_input_ids"].shape) == tuple(batch["augmented_token_type_ids"].shape) == (2, 8)
    assert batch["augmented_attention_mask"].sum(dim=1).tolist() == [8, 7]
    assert tuple(batch["input_ids"].shape) == (2, 7)


def test_rows_of_several_batches_are_in_order(tmp_path: Path) -> None:
    pairs = make_pairs(1500)
    targets = make_targets(pairs)
    rows = write_rows(iter(pairs), make_encoder(), ESCI, tmp_path / "rows.arrow", targets)
    assert len(rows) == 1500
    assert rows["labels"][:] == [ESCI.index(str(pair.label)) for pair in pairs]
    batch = StudentCollator(make_encoder(), targets)([rows[1400]])
    np.testing.assert_array_equal(batch["rationale_embedding"][0], targets.vectors[1399])


@pytest.mark.parametrize("token_types", [True, False])
def test_a_batch_is_padded_as_the_tokenizer_pads_it(tmp_path: Path, token_types: bool) -> None:
    encoder = PairEncoder(make_tokenizer(token_types=token_types), TEMPLATE, 12)
    pairs = make_pairs(20)
    rows = write_rows(pairs, encoder, ESCI, tmp_path / "rows.arrow", make_targets(pairs))
    batch = StudentCollator(encoder)([rows[index] for index in range(20)])
    names = encoder.tokenizer.model_input_names
    expected = encoder.pad([{name: row[name] for name in names} for row in rows])
    assert set(expected) == {*batch} - {"labels"} == set(names)
    for name in names:
        assert torch.equal(batch[name], expected[name])
        assert batch[name].dtype == expected[name].dtype


def test_a_batch_is_typed(tmp_path: Path) -> None:
    pairs = [*PAIRS, make_pair("red", "sofa", pair_id="c", label="exact")]
    targets = make_targets(pairs)
    rows = write_rows(pairs, make_encoder(), ESCI, tmp_path / "rows.arrow", targets)
    batch = StudentCollator(make_encoder(), targets)([rows[index] for index in range(3)])
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == {
        "input_ids": ((3, 7), torch.int64),
        "token_type_ids": ((3, 7), torch.int64),
        "attention_mask": ((3, 7), torch.int64),
        "labels": ((3,), torch.int64),
        "rationale_embedding": ((3, 1, DIM), torch.float32),
        "rationale_mask": ((3, 1), torch.bool),
        "votes": ((3, 4), torch.float32),
    }


def test_no_pair_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"dev\.arrow: expected at least one pair to learn from"):
        write_rows([], make_encoder(), ESCI, tmp_path / "dev.arrow")
    with pytest.raises(StudentError, match=r"dev\.arrow: expected at least one pair to learn from"):
        write_rows(LABEL_FREE, make_encoder(), ESCI, tmp_path / "dev.arrow")


def test_a_label_off_the_scale_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label 'partial' is not on the scale"):
        write_rows([make_pair(label="partial")], make_encoder(), ESCI, tmp_path / "rows.arrow")
