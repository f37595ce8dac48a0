from __future__ import annotations

from pathlib import Path

import pytest

from manylens.config import HubData
from manylens.data import Pairs, input_files, load_pairs
from manylens.errors import BadRowError
from manylens.records import ESCI

from .build import ROWS, Row, write

pytest.importorskip("datasets", reason="the extra 'train' is not installed")

#: The columns of tasksource/esci.
COLUMNS = {
    "title": "product_title",
    "description": "product_description",
    "brand": "product_brand",
    "locale": "product_locale",
    "label": "esci_label",
    "attributes": ["product_color"],
}


def row(number: int) -> Row:
    return {
        "query_id": number,
        "query": f"query {number}",
        "product_id": f"B{number}",
        "product_title": f"Product {number}",
        "product_description": None if number % 2 else "Soft",
        "product_brand": "Brand",
        "product_color": "Red",
        "product_locale": "us",
        "esci_label": ("Exact", "Substitute", "Complement", "Irrelevant")[number % 4],
    }


def load(folder: Path, **options: object) -> Pairs:
    config = HubData.model_validate({"loader": "hub", "path": str(folder / "set"), "columns": COLUMNS, **options})
    load_pairs(config, ESCI, folder / "out")
    return Pairs.read(folder / "out/pairs.parquet")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    (tmp_path / "set").mkdir()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_splits_of_the_dataset_are_the_splits(suffix: str, tmp_path: Path) -> None:
    for number, split in enumerate(["train", "validation", "test"]):
        write(tmp_path / "set" / f"{split}.{suffix}", [row(number * 4 + place) for place in range(4)])
    pairs = load(tmp_path)
    assert [pair.split for pair in pairs] == ["train"] * 4 + ["dev"] * 4 + ["test"] * 4
    assert [pair.label for pair in pairs] == list(ESCI.names) * 3
    first = next(iter(pairs))
    assert (first.pair_id, first.title, first.description, first.brand) == ("0:B0", "Product 0", "Soft", "Brand")
    assert (first.attributes, first.locale) == ({"product_color": "Red"}, "us")


def test_a_single_train_has_no_splits_yet(tmp_path: Path) -> None:
    write(tmp_path / "set" / "pairs.parquet", [row(number) for number in range(60)])
    assert {pair.split for pair in load(tmp_path)} == {"train", "dev", "test"}


def test_a_mapped_split_column_decides(tmp_path: Path) -> None:
    write(tmp_path / "set" / "pairs.parquet", [{**row(number), "fold": ROWS[number]["split"]} for number in range(3)])
    assert [pair.split for pair in load(tmp_path, columns={**COLUMNS, "split": "fold"})] == ["train", "dev", "test"]


def test_class_labels_are_named(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {
            "query": datasets.Value("string"),
            "title": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(ESCI.names)),
            "split": datasets.Value("string"),
        }
    )
    rows = [
        {"query": one["query"], "title": one["title"], "split": one["split"], "label": place}
        for place, one in enumerate(ROWS)
    ]
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "set" / "pairs.parquet")
    assert [pair.label for pair in load(tmp_path, columns={"split": "split"})] == ["exact", "substitute", "complement"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRowError, match="this dataset cannot be read"):
        load(tmp_path)
    with pytest.raises(BadRowError, match=r"someone/pairs: this dataset cannot be read"):
        load(tmp_path, path="someone/pairs")
    write(tmp_path / "set" / "train.parquet", [{**row(1), "esci_label": "Maybe"}])
    with pytest.raises(BadRowError, match=r"set \(train\), row 1, field 'esci_label': unknown label 'Maybe'"):
        load(tmp_path)


def test_input_files_of_a_local_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "set" / "train.parquet", [row(1)])
    assert input_files(HubData(loader="hub", path=str(tmp_path / "set"))) == (path,)
    assert input_files(HubData(loader="hub", path="someone/pairs")) == ()
