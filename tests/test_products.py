from __future__ import annotations

import pytest

from manylens.config import StudentConfig
from manylens.errors import ConfigError, StudentError
from manylens.products import Product, ProductTemplate, as_pair
from manylens.records import Pair


def make_pair(title: str = "blue shoe", **fields: object) -> Pair:
    return Pair(pair_id="p", query_id="q", product_id="b", query="red shoe", title=title, **fields)


def test_default_template_renders_every_field_that_there_is() -> None:
    template = ProductTemplate(StudentConfig().product_template)
    assert template.render(make_pair(title="Red <b> & shoe")) == "Red <b> & shoe"
    full = make_pair(title="Shoe", brand="Acme", attributes={"size": "10", "colour": "red"}, description="Soft.")
    assert template.render(full) == "Shoe | Acme | size: 10 | colour: red | Soft."


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{{ price }}",
            r"'price' is undefined; a product has title, brand, attributes, description, locale, product_id",
        ),
        ("{{ attributes.colour }}", r"no attribute 'colour'"),
        ("{{ ''.__class__.__mro__ }}", r"access to attribute '__class__'.* is unsafe"),
        ("{{ attributes.update({'a': 'b'}) }}", r"unsafe"),
        ("{% for i in range(1000000000) %}x{% endfor %}", r"[Rr]ange"),
        ("{{ title / 2 }}", r"unsupported operand"),
        ("{{ label }}{{ query }}", r"'label' is undefined"),
    ],
)
def test_a_template_reaches_a_products_fields_and_nothing_else(source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"student\.product_template: .*{message}"):
        ProductTemplate(source).render(make_pair(label="exact"))


def test_a_template_that_does_not_compile_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"student\.product_template: unexpected '}'"):
        ProductTemplate("{{ title }")


@pytest.mark.parametrize(
    ("query", "product", "message"),
    [
        ("hat", {"brand": "acme"}, r"with the title among them, got \['brand'\]"),
        ("hat", {"title": None}, r"with the title among them, got \[\]"),
        (
            "hat",
            {"title": "hat", "price": "3"},
            r"a product is a title or a mapping of title, brand, .*\['price', 'title'\]",
        ),
        ("hat", {"title": "hat", "brand": float("nan")}, r"brand must be a str, got nan"),
        ("hat", {"title": "hat", "attributes": "red"}, r"attributes must be a Mapping, got 'red'"),
        (None, "hat", r"query must be a str, got None"),
    ],
)
def test_wrong_products_are_refused(query: str, product: Product, message: str) -> None:
    with pytest.raises(StudentError, match=message):
        as_pair(query, product)


def test_a_title_or_fields_become_a_pair() -> None:
    empty = {"pair_id": "", "query_id": "", "query": "red shoe", "title": "blue hat"}
    assert as_pair("red shoe", "blue hat") == Pair(product_id="", **empty)
    product = {"title": "blue hat", "brand": None, "product_id": "b7", "attributes": {"size": "10"}}
    assert as_pair("red shoe", product) == Pair(product_id="b7", attributes={"size": "10"}, **empty)
