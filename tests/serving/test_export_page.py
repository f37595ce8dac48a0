"""What docs/export.md says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from manylens.config import ExportConfig
from manylens.products import ProductTemplate
from manylens.serving.layout import VARIANTS, Card
from student.build import make_pair

PAGE = (Path(__file__).parents[2] / "docs/export.md").read_text(encoding="utf-8")
Rows = list[list[str]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in PAGE.splitlines() if line[:1] == "|"]


def values(rows: Rows, names: list[str], column: int) -> dict[str, object]:
    """Return what a column says of some names, in the order of the page."""
    found = {row[0].strip("`"): row[column] for row in rows if row[0].strip("`") in names}
    return {name: yaml.safe_load(text.strip("`")) for name, text in found.items()}


def test_the_tables_of_keys_are_the_section(rows: Rows) -> None:
    section = ExportConfig().model_dump(mode="json")
    tolerances = {name: section.pop(name) for name in ("fp32", "low_precision")}
    listed = [row[0].strip("`") for row in rows if row[0][:1] == "`" and row[0].strip("`") not in VARIANTS]
    heads = ["classes", "ranking"]
    assert listed == [*heads, *section, *tolerances["fp32"]]
    assert values(rows, list(section), 1) == section
    for column, name in enumerate(("fp32", "low_precision"), start=1):
        assert values(rows, list(tolerances[name]), column) == tolerances[name]


def test_the_table_of_variants_is_complete(rows: Rows) -> None:
    assert [row[0].strip("`") for row in rows if len(row) == 4 and row[0].strip("`") in VARIANTS] == list(VARIANTS)


def test_the_folder_has_what_the_page_lists(exported: Path) -> None:
    (tree,) = re.findall(r"```text\nexport/\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = [line.split() for line in tree.splitlines()]
    listed = {words[0] for words in lines} - {"classes/", "rationales/", "parity.json"}
    listed |= {f"openvino/{words[-1]}" for words in lines if words[-1].endswith(".bin")}
    for head in ("classes", "ranking"):
        files = (exported / head).rglob("*")
        assert {file.relative_to(exported / head).as_posix() for file in files if file.is_file()} == listed
    assert {words[1].strip(","): words[0] for words in lines if words[1].strip(",") in VARIANTS} == dict(VARIANTS)


def test_a_product_is_rendered_as_the_page_says(exported: Path) -> None:
    template = ProductTemplate(Card.load(exported / "ranking").product_template)
    assert template.render(make_pair(title="a lotion", brand="acme")) == "a lotion | acme"
