from __future__ import annotations

from pathlib import Path

import pytest

from manylens.config import WandsData
from manylens.data import Pairs, load_pairs
from manylens.errors import BadRowError
from manylens.records import WANDS, Pair

QUERIES = "query_id\tquery\tquery_class\n" + "".join(f"{number}\tquery {number}\tSofas\n" for number in range(40))
HEADER = (
    "product_id\tproduct_name\tproduct_class\tcategory hierarchy\tproduct_description\tproduct_features"
    "\trating_count\taverage_rating\treview_count\n"
)
# As pandas writes it: a cell with a quote, a tab or a line end is quoted, and its quotes are doubled.
PRODUCTS = (
    HEADER
    + '7\t"12"" wide ""loft"" sofa"\tSofas\tFurniture / Sofas\t"Soft.\tTwo\nlines &amp; <b>more</b>"'
    + "\tcolor : grey|color:blue| legs : 4 |nonsense|color : grey\t12.0\t4.5\t3.0\n"
    + "8\tplain chair\tChairs\t\t\t\t\t\t\n"
)
LABELS = "id\tquery_id\tproduct_id\tlabel\n" + "".join(
    f"{number}\t{number}\t{7 + number % 2}\t{('Exact', 'Partial', 'Irrelevant')[number % 3]}\n" for number in range(40)
)


def source(folder: Path, **changed: str) -> WandsData:
    for name, text in {"query": QUERIES, "product": PRODUCTS, "label": LABELS, **changed}.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return WandsData(loader="wands", path=str(folder))


def test_labels_are_joined_with_queries_and_products(tmp_path: Path) -> None:
    report = load_pairs(source(tmp_path), WANDS, tmp_path / "out")
    assert report.rows_read == 40
    pairs = {pair.pair_id: pair for pair in Pairs.read(tmp_path / "out/pairs.parquet")}
    assert pairs["4:7"] == Pair(
        pair_id="4:7",
        query_id="4",
        product_id="7",
        query="query 4",
        title='12" wide "loft" sofa',
        attributes={"Category": "Furniture / Sofas", "color": "grey, blue", "legs": "4"},
        description="Soft. Two lines & more",
        locale="us",
        query_kind="Sofas",
        label="partial",
        split=pairs["4:7"].split,
    )
    assert pairs["5:8"].attributes == {"Category": "Chairs"}
    assert {pair.split for pair in pairs.values()} == {"train", "dev", "test"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"label": LABELS + "99\t99\t7\tExact\n"},
            r"label\.csv, row 41, field 'query_id': no query '99' in .*query\.csv",
        ),
        ({"label": LABELS + "99\t1\t9\tExact\n"}, r"label\.csv, row 41, field 'product_id': no product '9' in"),
        ({"label": LABELS + "99\t1\t9\n"}, r"label\.csv, row 41: expected 4 cells"),
        ({"product": PRODUCTS + "9\n"}, r"product\.csv, row 3: expected 9 cells"),
        (
            {"query": QUERIES.replace("query_class", "class")},
            r"query\.csv, field 'query_class': this column is required",
        ),
        ({"product": HEADER}, r"product\.csv: expected at least one usable row, got none"),
    ],
)
def test_files_that_do_not_fit_together(changed: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadRowError, match=message):
        load_pairs(source(tmp_path, **changed), WANDS, tmp_path / "out")
