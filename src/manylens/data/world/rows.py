"""The rows of a world: pairs, and the judgements of those that are not held back for the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from manylens.config import WorldData
from manylens.data.split import query_share
from manylens.data.world.draw import LABEL_SHARES, draw_label, draw_product, draw_queries
from manylens.data.world.facts import Product, Query, compare, label_of
from manylens.data.world.rationales import LOOKS_AT, rationale
from manylens.data.world.texts import attributes_of, brand_of, query_text, title_of
from manylens.records import Split

#: Queries of the splits that do not grow.
QUERIES: Mapping[Split, int] = {"dev": 40, "test": 120}

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldPair:
    """A query and a product of the world, with the truth.

    Attributes:
        split: The query's split.
        query_id: The query's id.
        product_id: The product's id.
        query: What is asked.
        product: What is offered.
        label: The label that follows.
        hidden: A field that the student does not get to read.
    """

    split: Split
    query_id: str
    product_id: str
    query: Query
    product: Product
    label: str
    hidden: str | None


def world_pairs(config: WorldData) -> Iterator[WorldPair]:
    """Yield the pairs of a world: dev, test, then train.

    Dev and test do not depend on the number of training pairs, and fewer training pairs are the first of more. A
    pair's query and product do not depend on the other dials either. No query of dev or test is asked elsewhere; a
    training query may be asked again, of other products.
    """
    taken: set[Query] = set()
    train = -(-config.pairs // config.products_per_query)
    for split, count in (*QUERIES.items(), ("train", train)):
        for number, query in enumerate(draw_queries(f"{config.seed}/{split}", count, taken)):
            if split != "train":
                taken.add(query)
            yield from _pairs_of(query, split, f"{split}-{number}", config)


def _pairs_of(query: Query, split: Split, query_id: str, config: WorldData) -> Iterator[WorldPair]:
    generator = Random(f"{config.seed}/{query_id}")
    for number in range(config.products_per_query):
        product = draw_product(query, draw_label(generator), generator)
        product_id = f"{query_id}-{number}"
        hides = query_share(product_id, config.seed, "hidden") < config.hidden
        hideable: list[str] = ["fits"] if product.fits else [ask.field for ask in query.asks]
        yield WorldPair(
            split=split,
            query_id=query_id,
            product_id=product_id,
            query=query,
            product=product,
            label=label_of(compare(query, product)),
            hidden=_pick(hideable, product_id, config.seed) if hides else None,
        )


def pair_row(pair: WorldPair, config: WorldData) -> Row:
    """Return a pair as a row of the table; a training label may be noise."""
    noisy = pair.split == "train" and query_share(pair.product_id, config.seed, "noise") < config.label_noise
    others = [label for label in LABEL_SHARES if label != pair.label]
    return {
        "query_id": pair.query_id,
        "product_id": pair.product_id,
        "query": query_text(pair.query),
        "title": title_of(pair.product),
        "brand": brand_of(pair.product, pair.hidden),
        "attributes": attributes_of(pair.product, pair.hidden),
        "locale": "us",
        "label": _pick(others, pair.product_id, config.seed) if noisy else pair.label,
        "split": pair.split,
    }


def judgement_rows(pair: WorldPair, config: WorldData) -> Iterator[Row]:
    """Yield what each perspective says of a pair.

    A teacher that errs takes the product for another one, of another label, and argues just as well.
    """
    for perspective in LOOKS_AT:
        generator = Random(f"{config.seed}/{pair.product_id}/{perspective}")
        words = Random(generator.random())
        errs = query_share(f"{pair.product_id}/{perspective}", config.seed, "error") < config.teacher_error
        label = draw_label(generator, without=pair.label) if errs else pair.label
        product = draw_product(pair.query, label, generator) if errs else pair.product
        yield {
            "query_id": pair.query_id,
            "product_id": pair.product_id,
            "perspective": perspective,
            "rationale": rationale(pair.query, product, perspective, config.informativeness, words),
            "label": label,
        }


def _pick(choices: Sequence[str], key: str, seed: int) -> str:
    """Return one of `choices` by `key` alone."""
    return choices[int(query_share(key, seed, "pick") * len(choices))]
