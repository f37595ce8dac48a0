from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manylens.data.lookup import Lookup
from manylens.data.raw import RawBatch
from manylens.errors import BadRowError


def batch(file: str, first: int = 1, **columns: list[str | None]) -> RawBatch:
    count = len(next(iter(columns.values())))
    return RawBatch(
        file=file,
        rows=np.arange(first, first + count),
        columns={name: pa.array(values, pa.string()) for name, values in columns.items()},
    )


def lookup(folder: Path, *batches: RawBatch, key: tuple[str, ...] = ("product_id",)) -> Lookup:
    return Lookup(batches, key=key, fields=("title", "brand"), file=Path("products.csv"), folder=folder)


def test_rows_get_the_fields_of_their_key(tmp_path: Path) -> None:
    found = lookup(
        tmp_path,
        batch("products.csv", product_id=["p1", "p2"], title=["One", "Two"], brand=[None, "B"]),
        batch("products.csv", 3, product_id=["p3"], title=["Three"], brand=["C"]),
    )
    (joined,) = found.join(batch("pairs.csv", product_id=["p3", "p1", "p3"], query=["a", "b", "c"]))
    assert joined.columns["title"].to_pylist() == ["Three", "One", "Three"]
    assert joined.columns["brand"].to_pylist() == ["C", "", "C"]
    assert joined.columns["query"].to_pylist() == ["a", "b", "c"]
    assert joined.problems == []


def test_a_key_of_two_fields_needs_both(tmp_path: Path) -> None:
    products = batch("products.csv", locale=["us", "es"], product_id=["p", "p"], title=["A", "B"], brand=["", ""])
    found = lookup(tmp_path, products, key=("locale", "product_id"))
    (joined,) = found.join(batch("pairs.csv", locale=["es", "us", "jp"], product_id=["p", "p", "p"]))
    assert joined.columns["title"].to_pylist()[:2] == ["B", "A"]
    (problem,) = joined.problems
    assert (problem.row, problem.field, problem.reason) == (3, "product_id", "no_product")
    assert problem.message.startswith("no product 'p' in products.csv")
    assert problem.raw == {"locale": "jp", "product_id": "p"}


def test_an_unusable_product_tells_where_and_why(tmp_path: Path) -> None:
    found = lookup(tmp_path, batch("products.csv", product_id=["p1", "p2"], title=["One", " "], brand=["", ""]))
    (joined,) = found.join(batch("pairs.csv", product_id=["p2", None]))
    assert [problem.reason for problem in joined.problems] == ["bad_product", "empty_id"]
    assert "products.csv, row 2, field 'title': the title is empty" in joined.problems[0].message


@pytest.mark.parametrize(
    ("ids", "titles", "message"),
    [
        (["p1", "p2", "p1"], ["A", "B", "A"], "field 'product_id': 'p1' stands in more than one row"),
        (["p1", None], ["A", "B"], "row 2, field 'product_id': the product_id is empty"),
        ([], [], "expected at least one usable row"),
        (["p1"], [""], "expected at least one usable row, got none: products.csv, row 1, field 'title'"),
    ],
)
def test_products_that_cannot_be_looked_up(
    ids: list[str | None], titles: list[str | None], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadRowError, match=message):
        lookup(tmp_path, batch("products.csv", product_id=ids, title=titles, brand=titles))
