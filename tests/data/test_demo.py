from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from manylens.config import DemoData
from manylens.data import LoadReport, Pairs, input_files, load_pairs, recorded_judgements
from manylens.records import ESCI


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadReport, Pairs]:
    folder = tmp_path_factory.mktemp("demo")
    report = load_pairs(DemoData(), ESCI, folder)
    return report, Pairs.read(folder / "pairs.parquet")


def test_the_store_is_what_its_card_says(loaded: tuple[LoadReport, Pairs]) -> None:
    report, pairs = loaded
    assert report.rows_read == len(pairs) == 1232
    assert report.queries == {"train": 64, "dev": 16, "test": 32}
    assert {name: sum(labels.values()) for name, labels in report.pairs.items()} == {
        "train": 704,
        "dev": 176,
        "test": 352,
    }
    assert Counter(pair.label for pair in pairs) == {
        "exact": 457,
        "substitute": 290,
        "complement": 174,
        "irrelevant": 311,
    }
    assert len({pair.product_id for pair in pairs}) <= 512
    assert {pair.locale for pair in pairs} == {"en", "es"}
    assert len({pair.query_kind for pair in pairs}) == 10
    assert set(Counter(pair.query_id for pair in pairs).values()) == {11}


def test_the_category_is_the_first_attribute(loaded: tuple[LoadReport, Pairs]) -> None:
    _, pairs = loaded
    pair = pairs.get("beauty-q01:beauty-p001")
    assert list(pair.attributes)[:2] == ["Category", "Size"]
    assert pair.attributes["Category"] == "Skin Care > Face > Moisturizers"
    assert (pair.query, pair.query_kind, pair.split, pair.label) == ("face moisturizer", "broad", "test", "exact")


def test_every_train_and_dev_pair_has_three_recorded_judgements(loaded: tuple[LoadReport, Pairs]) -> None:
    _, pairs = loaded
    path = recorded_judgements(DemoData())
    assert path is not None
    judged = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        judgement = json.loads(line)
        assert ESCI.parse(judgement["label"]) == judgement["label"]
        judged[f"{judgement['query_id']}:{judgement['product_id']}"] += 1
    assert judged == {pair.pair_id: 3 for name in ("train", "dev") for pair in pairs.split(name)}


def test_the_store_lies_in_the_package_with_its_card() -> None:
    folder = Path(input_files(DemoData())[0]).parent
    assert folder.parent.name == "data"
    assert "Apache-2.0" in (folder / "README.md").read_text(encoding="utf-8")
