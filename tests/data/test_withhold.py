from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.config import TableData
from manylens.data import LoadReport, Pairs, load_pairs
from manylens.errors import BadRowError, ConfigError, DataError
from manylens.recipe import load_config
from manylens.records import ESCI

from .build import write


def row(number: int, split: str, label: str = "exact", locale: str = "us") -> dict[str, str]:
    return {
        "query_id": f"q{number}",
        "query": f"query {number}",
        "product_id": f"p{number}",
        "title": "thing",
        "label": label,
        "locale": locale,
        "split": split,
    }


#: One labelled pair of each split and one without a label; half of them Spanish.
ROWS = [
    row(number, split, label, locale)
    for number, (split, label, locale) in enumerate(product(("train", "dev", "test"), ("exact", ""), ("us", "es")))
]


def load(
    folder: Path, rows: list[dict[str, str]], **options: object
) -> tuple[LoadReport, Mapping[str, tuple[str, str | None]]]:
    """Return the report, and split and label by product."""
    config = TableData(loader="table", path=str(write(folder / "pairs.jsonl", rows)), **options)  # type: ignore[arg-type]
    report = load_pairs(config, ESCI, folder / "out")
    pairs = Pairs.read(folder / "out/pairs.parquet")
    return report, {pair.product_id: (pair.split, pair.label) for pair in pairs}


def test_pairs_without_a_label_are_kept_for_training_alone_and_counted(tmp_path: Path) -> None:
    report, pairs = load(tmp_path, ROWS, unlabelled="keep")
    assert pairs == {
        "p0": ("train", "exact"),
        "p1": ("train", "exact"),
        "p2": ("train", None),
        "p3": ("train", None),
        "p4": ("dev", "exact"),
        "p5": ("dev", "exact"),
        "p8": ("test", "exact"),
        "p9": ("test", "exact"),
    }
    assert (report.rows_read, report.unlabelled, report.unmeasurable) == (12, 2, 4)
    assert (report.hidden_labels, report.held_out, report.skipped) == (0, 0, {})
    assert {name: labels["exact"] for name, labels in report.pairs.items()} == {"train": 2, "dev": 2, "test": 2}
    assert report.queries == {"train": 4, "dev": 2, "test": 2}


def test_pairs_without_a_label_are_bad_rows_unless_they_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(BadRowError, match="the label is empty"):
        load(tmp_path, ROWS)
    report, pairs = load(tmp_path, ROWS, on_bad_row="skip")
    assert report.skipped == {"empty_label": 6}
    assert list(pairs) == ["p0", "p1", "p4", "p5", "p8", "p9"]


def test_an_unknown_label_is_wrong_also_where_none_is_needed(tmp_path: Path) -> None:
    with pytest.raises(BadRowError, match=r"unknown label 'exat' \(did you mean 'exact'"):
        load(tmp_path, [*ROWS, row(12, "train", "exat")], unlabelled="keep")


def test_a_row_without_a_label_does_not_contradict_one_with_it(tmp_path: Path) -> None:
    again = [{**ROWS[0], "label": ""}, *ROWS, {**ROWS[0], "label": ""}]
    report, pairs = load(tmp_path, again, unlabelled="keep")
    assert report.duplicates == 2
    assert pairs["p0"] == ("train", "exact")


def test_held_out_locales_are_left_out_of_train_and_dev(tmp_path: Path) -> None:
    labelled = [each for each in ROWS if each["label"]]
    report, pairs = load(tmp_path, labelled, held_out_locales=["ES"])
    assert list(pairs) == ["p0", "p4", "p8", "p9"]
    assert (report.held_out, report.unmeasurable) == (2, 0)
    assert report.queries == {"train": 1, "dev": 1, "test": 2}


def test_every_row_is_counted_once(tmp_path: Path) -> None:
    report, pairs = load(tmp_path, ROWS, unlabelled="keep", held_out_locales=["es"])
    assert report.rows_read == len(pairs) + report.unmeasurable + report.held_out
    assert (report.unmeasurable, report.held_out, report.unlabelled) == (4, 3, 1)


def test_a_locale_that_nobody_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pair is of the locale 'fr'; there are 'us', 'es'"):
        load(tmp_path, ROWS, unlabelled="keep", held_out_locales=["fr"])


@pytest.mark.parametrize(
    ("rows", "options", "split"),
    [
        ([each for each in ROWS if each["locale"] == "es"], {"held_out_locales": ["es"]}, "train"),
        ([row(0, "train"), row(1, "dev", ""), row(2, "test")], {}, "dev"),
        ([row(0, "train", ""), row(1, "dev"), row(2, "test")], {}, "train"),
        ([row(0, "train"), row(1, "dev"), row(2, "test")], {"hide_labels": 0.999}, "train"),
    ],
)
def test_a_split_without_any_label_is_refused(
    tmp_path: Path, rows: list[dict[str, str]], options: dict[str, object], split: str
) -> None:
    with pytest.raises(DataError, match=f"the {split} split has no labelled pair left"):
        load(tmp_path, rows, unlabelled="keep", **options)


MANY = [{**row(number, "train"), "product_id": f"p{number}-{place}"} for number in range(200) for place in range(2)] + [
    row(998, "dev"),
    row(999, "test"),
]


def hidden(folder: Path, share: float, rows: list[dict[str, str]], seed: int = 13) -> set[str]:
    report, pairs = load(folder, rows, unlabelled="keep", hide_labels=share, split_seed=seed)
    found = {product_id for product_id, (_, label) in pairs.items() if label is None}
    assert report.hidden_labels == report.unlabelled == len(found)
    assert report.pairs["train"]["exact"] == 400 - len(found)
    return found


def test_labels_are_hidden_by_query_and_the_same_ones_again(tmp_path: Path) -> None:
    some = hidden(tmp_path, 0.5, MANY)
    assert len(some) / 400 == pytest.approx(0.5, abs=0.1)
    assert {product_id.partition("-")[0] for product_id in some} == {
        product_id.removesuffix("-0") for product_id in some if product_id.endswith("-0")
    }
    assert len(some) % 2 == 0
    assert hidden(tmp_path, 0.5, MANY) == hidden(tmp_path, 0.5, MANY[::-1]) == some
    assert hidden(tmp_path, 0.5, MANY, seed=14) != some


@given(st.floats(0.0, 0.95), st.floats(0.0, 0.95))
@settings(max_examples=10, deadline=None)
def test_what_is_hidden_at_one_share_is_hidden_at_a_larger_one(
    tmp_path_factory: pytest.TempPathFactory, one: float, other: float
) -> None:
    folder = tmp_path_factory.mktemp("nested")
    smaller, larger = sorted((one, other))
    assert hidden(folder, smaller, MANY) <= hidden(folder, larger, MANY)


def test_hidden_labels_need_leave_to_be_missing() -> None:
    recipe = {"name": "x", "data": {"loader": "demo", "hide_labels": 0.5}, "labels": {"scale": "esci"}}
    with pytest.raises(ConfigError, match="set unlabelled to 'keep'"):
        load_config(recipe)


def test_the_demo_store_without_spanish_and_with_few_labels(tmp_path: Path) -> None:
    """Every loader goes the same way: here it is the demo store."""
    recipe = {"loader": "demo", "held_out_locales": ["es"], "unlabelled": "keep", "hide_labels": 0.75}
    config = load_config({"name": "x", "data": recipe, "labels": {"scale": "esci"}}).data
    report = load_pairs(config, ESCI, tmp_path)
    pairs = Pairs.read(tmp_path / "pairs.parquet")
    assert {pair.locale for pair in pairs.split("train", "dev")} == {"en"}
    assert {pair.locale for pair in pairs.split("test")} == {"en", "es"}
    train = list(pairs.split("train"))
    assert report.hidden_labels == sum(pair.label is None for pair in train) > len(train) / 2
    assert None not in {pair.label for pair in pairs.split("dev", "test")}
