"""Products as callers hand them over, and the text that a student reads of them."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from manylens.errors import ConfigError, StudentError
from manylens.records import Pair

#: Where tokenizer_config.json keeps the product template.
TEMPLATE_KEY = "product_template"
#: Where it keeps the most tokens of a product, for a student whose products are cut without a look at the query.
PRODUCT_LENGTH_KEY = "product_length"
#: A product as a title alone, or as fields: title, brand, attributes, description, locale.
Product = str | Mapping[str, object]
_TYPES: dict[str, type] = {
    "title": str,
    "brand": str,
    "attributes": Mapping,
    "description": str,
    "locale": str,
    "product_id": str,
}


class ProductTemplate:
    """Renders a product's fields to the text that the student reads.

    A template may come with a downloaded model, so it runs in Jinja's sandbox.
    """

    def __init__(self, source: str) -> None:
        """Compile the template.

        Args:
            source: Jinja source over title, brand, attributes, description, locale and product_id.

        Raises:
            ConfigError: If it does not compile.
        """
        self.source = source
        try:
            self._template = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(source)
        except TemplateError as error:
            raise ConfigError(f"student.product_template: {error}") from None

    def render(self, pair: Pair) -> str:
        """Return the product's text.

        Raises:
            ConfigError: If the template asks for a field that a product does not have, or for what the
                sandbox forbids.
        """
        try:
            return self._template.render({name: getattr(pair, name) for name in _TYPES})
        except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
            raise ConfigError(f"student.product_template: {error}; a product has {', '.join(_TYPES)}") from None


def as_pair(query: str, product: Product) -> Pair:
    """Return the pair of a query and a product that is a title or a mapping of fields.

    Args:
        query: The query.
        product: The title, or fields; a field that is ``None`` is left out.

    Raises:
        StudentError: If there is an unknown field or no title, or a field is not text.
    """
    given = {"title": product} if isinstance(product, str) else product
    fields = {name: value for name, value in given.items() if value is not None}
    if "title" not in fields or not set(fields) <= set(_TYPES):
        raise StudentError(
            f"a product is a title or a mapping of {', '.join(_TYPES)} with the title among them, got {sorted(fields)}"
        )
    for name, value in {"query": query, **fields}.items():
        expected = _TYPES.get(name, str)
        if not isinstance(value, expected):
            raise StudentError(f"{name} must be a {expected.__name__}, got {value!r}")
    return Pair(pair_id="", query_id="", query=query, **{"product_id": "", **fields})  # type: ignore[arg-type]
