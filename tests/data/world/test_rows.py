from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.config import WorldData
from manylens.data.world.facts import compare, label_of
from manylens.data.world.rows import WorldPair, judgement_rows, pair_row, world_pairs


def world(**dials: float) -> WorldData:
    return WorldData(**{"loader": "world", "pairs": 200, "products_per_query": 5, **dials})


@pytest.fixture(scope="module")
def pairs() -> list[WorldPair]:
    return list(world_pairs(world(pairs=4000)))


@given(st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_more_training_pairs_change_none_of_the_others(seed: int) -> None:
    few, more = (list(world_pairs(world(seed=seed, pairs=count))) for count in (100, 123))
    assert more[: len(few)] == few
    assert len(more) == len(few) + 25  # Five queries of five pairs are the fewest that hold 23.


def test_the_sizes_of_the_splits(pairs: list[WorldPair]) -> None:
    assert Counter(pair.split for pair in pairs) == {"dev": 200, "test": 600, "train": 4000}
    of_split = {name: {pair.query for pair in pairs if pair.split == name} for name in ("dev", "test", "train")}
    assert (len(of_split["dev"]), len(of_split["test"]), len(of_split["dev"] | of_split["test"])) == (40, 120, 160)
    assert not of_split["train"] & (of_split["dev"] | of_split["test"])
    assert len({pair.product_id for pair in pairs}) == len(pairs)


def test_labels_are_the_truth_where_there_is_no_noise(pairs: list[WorldPair]) -> None:
    for pair in pairs:
        assert pair.label == label_of(compare(pair.query, pair.product)) == pair_row(pair, world())["label"]


def test_noise_is_in_the_training_labels_alone_and_grows_by_adding(pairs: list[WorldPair]) -> None:
    wrong = {}
    for share in (0.1, 0.3):
        noisy = world(label_noise=share)
        wrong[share] = {pair.product_id for pair in pairs if pair_row(pair, noisy)["label"] != pair.label}
        assert len(wrong[share]) / 4000 == pytest.approx(share, abs=0.03)
    assert wrong[0.1] < wrong[0.3]
    assert {product_id.partition("-")[0] for product_id in wrong[0.3]} == {"train"}


def test_the_teacher_errs_and_argues_for_it(pairs: list[WorldPair]) -> None:
    config = world(teacher_error=0.25)
    right = {row["product_id"] + row["perspective"]: row for pair in pairs for row in judgement_rows(pair, world())}
    labels = {pair.product_id: pair.label for pair in pairs}
    errors = []
    for pair in pairs:
        for row in judgement_rows(pair, config):
            same = right[row["product_id"] + row["perspective"]]
            assert same["label"] == labels[row["product_id"]]
            errors.append(row["label"] != same["label"])
            assert (row["rationale"] == same["rationale"]) != errors[-1]
    assert sum(errors) / len(errors) == pytest.approx(0.25, abs=0.02)


def test_what_is_hidden_the_teacher_still_sees(pairs: list[WorldPair]) -> None:
    config = world(pairs=4000, hidden=0.5)
    for open_, hidden in zip(pairs, world_pairs(config), strict=True):
        assert (hidden.query, hidden.product, hidden.label) == (open_.query, open_.product, open_.label)
        assert list(judgement_rows(hidden, config)) == list(judgement_rows(open_, config))
        seen, less = (pair_row(pair, config) for pair in (open_, hidden))
        lacking = [name for name in ("brand", "attributes") if seen[name] != less[name]]
        # The size of a product of another family may be hidden, which it does not show anyhow.
        assert len(lacking) == (hidden.hidden is not None) or hidden.hidden == "size"
    assert sum(pair.hidden is not None for pair in world_pairs(config)) / 4800 == pytest.approx(0.5, abs=0.03)
