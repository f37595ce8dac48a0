from __future__ import annotations

from pathlib import Path

import pytest

from manylens.config import EsciData
from manylens.data import Pairs, load_pairs
from manylens.records import ESCI, Pair

from .build import Row, example, product, write_esci

EXCERPT = Path(__file__).parents[2].parent / "shared/data/esci_us_150"

EXAMPLES = [
    example(1, 10, "E"),
    example(2, 10, "I", small_version=0),
    example(3, 11, "C", split="test"),
    example(1, 12, "S", product_locale="es", query="zapatos"),
    example(4, 13, "S", split="test", small_version=0),
]
PRODUCTS = [
    product(4),
    product(3),
    product(2),
    product(
        1,
        product_description="<p>Light &amp; soft</p>",
        product_bullet_point="Point one\nPoint <b>two</b>",
        product_color="Red",
    ),
    product(1, product_locale="es", product_title="Zapato", product_description="Rojo"),
    product(99),
]


def load(folder: Path, examples: list[Row] = EXAMPLES, sources: str | None = None, **options: object) -> list[Pair]:
    write_esci(folder, examples, PRODUCTS, sources)
    config = EsciData.model_validate({"loader": "esci", "path": str(folder), "dev_fraction": 0.5, **options})
    load_pairs(config, ESCI, folder / "out")
    return list(Pairs.read(folder / "out/pairs.parquet"))


def many(split: str, first: int) -> list[Row]:
    return [example(1 + number % 4, first + number, "E", split=split) for number in range(12)]


def test_an_example_is_joined_with_the_product_of_its_locale(tmp_path: Path) -> None:
    pairs = {
        pair.pair_id: pair for pair in load(tmp_path, [*EXAMPLES, *many("train", 100)], "query_id,source\n10,other\n")
    }
    assert pairs["10:B1"] == Pair(
        pair_id="10:B1",
        query_id="10",
        product_id="B1",
        query="query 10",
        title="Product 1",
        brand="Brand",
        attributes={"Color": "Red"},
        description="Point one Point two\nLight & soft",
        locale="us",
        query_kind="other",
        label="exact",
        split=pairs["10:B1"].split,
    )
    spanish = pairs["12:B1"]
    assert (spanish.title, spanish.description, spanish.locale, spanish.query_kind) == ("Zapato", "Rojo", "es", "")
    assert (pairs["11:B3"].label, pairs["11:B3"].split, pairs["11:B3"].description) == ("complement", "test", "")
    assert pairs["10:B1"].split in {"train", "dev"}


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({"version": "small"}, {"10:B1", "11:B3", "12:B1"}),
        ({"version": "large"}, {"10:B1", "10:B2", "11:B3", "12:B1", "13:B4"}),
        ({"version": "large", "locales": ["us"]}, {"10:B1", "10:B2", "11:B3", "13:B4"}),
    ],
)
def test_version_and_locales_choose(options: dict[str, object], ids: set[str], tmp_path: Path) -> None:
    pairs = load(tmp_path, [*EXAMPLES, *many("train", 100)], **options)
    assert {pair.pair_id for pair in pairs if int(pair.query_id) < 100} == ids


def test_more_products_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manylens.data.lookup.BATCH_ROWS", 5)
    pairs = load(tmp_path, [*many("train", 100), *many("test", 200)])
    assert all(pair.title == f"Product {pair.product_id[1:]}" for pair in pairs)
    assert len(pairs) == 24


@pytest.mark.skipif(not EXCERPT.is_dir(), reason=f"no ESCI excerpt at {EXCERPT}")
def test_the_original_files(tmp_path: Path) -> None:
    config = EsciData(loader="esci", path=str(EXCERPT), version="large")
    report = load_pairs(config, ESCI, tmp_path)
    totals = {split: sum(labels.values()) for split, labels in report.pairs.items()}
    # The figures of the excerpt's own description.
    assert totals["train"] + totals["dev"] == 4014
    assert totals["test"] == 879
    assert report.queries["train"] + report.queries["dev"] == 90
    assert report.queries["test"] == 20
    labels = [sum(report.pairs[split][label] for split in totals) for label in ESCI.names]
    assert labels == [2488, 1373, 181, 851]
    pairs = Pairs.read(tmp_path / "pairs.parquet")
    assert {"negations", "behavioral"} < {pair.query_kind for pair in pairs}
    assert "" not in {pair.query_kind for pair in pairs}
    assert not any("<br" in pair.description for pair in pairs)
