"""A synthetic shop whose relevance labels follow from stated rules, and the rationales a flawed teacher learnt from.

A query names a product type, may ask for a brand, a colour and a material, and may exclude a part (``without lid``).
Comparing it with a product gives findings, and `verdict` the ESCI label that follows from them. A rationale states
some of the findings, and its label follows from *those alone*. A perspective mostly leaves out what it does not look at
(`LOOKS_AT`), so each is wrong on pairs of its own, and on every pair one of the three can be right.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from manylens.records import ESCI, Pair, Split

#: A type, one that can stand in for it, and one that goes with both.
FAMILIES = (
    ("kettle", "urn", "descaler"),
    ("mug", "tumbler", "coaster"),
    ("tent", "tarp", "pegs"),
    ("lamp", "lantern", "bulb"),
    ("chair", "stool", "cushion"),
    ("bike", "scooter", "helmet"),
    ("camera", "camcorder", "tripod"),
    ("shelf", "cabinet", "bracket"),
)
#: What a query may ask for besides the type, and the values there are; it may also exclude a part.
VALUES: dict[str, tuple[str, ...]] = {
    "brand": ("orvel", "karvo", "lumen", "tessa", "brakk", "nimbo"),
    "colour": ("red", "blue", "green", "white", "black", "brown"),
    "material": ("steel", "wood", "glass", "plastic", "cotton", "leather"),
    "part": ("timer", "light", "handle", "lid", "strap", "wheels"),
}

Facet = Literal["type", "use", "brand", "colour", "material", "part"]
FACETS: tuple[Facet, ...] = ("type", "use", "part", "brand", "colour", "material")
#: What a perspective's rationales speak of, besides the type; each facet is seen by one or two of the three.
LOOKS_AT: dict[str, frozenset[Facet]] = {
    "user_intent": frozenset({"use", "colour"}),
    "structured_analysis": frozenset({"brand", "colour", "material"}),
    "business_rules": frozenset({"use", "part", "brand"}),
}
#: How a perspective words a finding; the last word says whether it speaks for the product.
MANNERS: dict[str, tuple[str, str, str]] = {
    "user_intent": ("Wants {asked}, gets {found}, {held}.", "fine", "wrong"),
    "structured_analysis": ("{facet}: {asked}, {found}, {held}.", "met", "missed"),
    "business_rules": ("Rule of {facet}, {asked}, {found}, {held}.", "kept", "broken"),
}
#: How the use of a product of another type is worded, by all alike.
USES = {"similar": "{found} serves as {asked}.", "accessory": "{found} goes with {asked}.", "other": "No common use."}

Relation = Literal["same", "similar", "accessory", "other"]
_RELATIONS: tuple[Relation, ...] = ("same", "similar", "accessory", "other")
_RELATION_WEIGHTS = (61, 13, 13, 13)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One comparison of a query with a product.

    Attributes:
        facet: What is compared; ``use`` asks what a product of another type is good for.
        asked: The query's word.
        found: The product's.
        holds: Whether the product is as asked; for a use, whether it can stand in.
        relation: How the product's type stands to the query's.
    """

    facet: Facet
    asked: str
    found: str
    holds: bool
    relation: Relation


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A pair with its gold label, and all findings, in the order of `FACETS`."""

    pair: Pair
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """How the teacher's first texts go wrong.

    Attributes:
        stated: Chance that a rationale states a finding that its perspective looks at.
        strayed: The same for a finding that it does not look at.
        noise: Chance that the label is any label, whatever the rationale says.
    """

    stated: float = 0.95
    strayed: float = 0.25
    noise: float = 0.04


def verdict(findings: Iterable[Finding]) -> str:
    """Return the ESCI label that follows from the findings that are stated.

    Another type is irrelevant unless its use is stated: an accessory is a complement, a similar type a substitute. Of
    the same or a similar type, a broken exclusion makes the product irrelevant, and anything else that is not as
    asked a substitute.
    """
    stated = {finding.facet: finding for finding in findings}
    if not stated["type"].holds:
        use = stated.get("use")
        if use is None or use.relation == "other":
            return "irrelevant"
        if use.relation == "accessory":
            return "complement"
    if "part" in stated and not stated["part"].holds:
        return "irrelevant"
    return "exact" if all(finding.holds for finding in stated.values()) else "substitute"


def make_listings(
    seed: int,
    queries: int,
    *,
    split: Split = "train",
    per_query: int = 6,
    wrong: float | None = None,
    taken: set[str] | None = None,
) -> list[Listing]:
    """Draw queries and products for each.

    Args:
        seed: Of everything drawn.
        queries: Number of queries, all different.
        split: The pairs' split.
        per_query: Products of a query.
        wrong: Chance that a product breaks a wish of the query, for each wish on its own; by default, six products
            in ten break just one wish, so that a rationale that leaves it out goes wrong.
        taken: Queries that must not come again; those drawn are added to it.

    Returns:
        The listings, by query.
    """
    rng, taken = random.Random(f"{seed}:{split}"), set() if taken is None else taken
    listings: list[Listing] = []
    for number in range(queries):
        asked = _query(rng)
        while (text := _query_text(asked)) in taken:
            asked = _query(rng)
        taken.add(text)
        query_id = f"{split}{number}"
        for place in range(per_query):
            relation = rng.choices(_RELATIONS, _RELATION_WEIGHTS)[0]
            product = _product(rng, asked, relation, wrong)
            findings = tuple(_compare(asked, product, relation))
            pair = Pair(
                pair_id=f"{query_id}:{place}",
                query_id=query_id,
                product_id=f"{query_id}-{place}",
                query=text,
                title=f"{product['brand']} {product['type']}",
                attributes={name: product[name] for name in ("colour", "material", "part")},
                label=verdict(findings),
                split=split,
            )
            listings.append(Listing(pair=pair, findings=findings))
    return listings


def write_rationale(rng: random.Random, findings: Sequence[Finding], perspective: str, rates: Rates) -> tuple[str, str]:
    """Return a rationale and a label as the flawed teacher's first texts have them.

    Args:
        rng: Draws what is stated.
        findings: All findings of a pair.
        perspective: Whose manner and whose view.
        rates: How often something goes wrong.
    """
    stated = [
        finding
        for finding in findings
        if finding.facet == "type"
        or rng.random() < (rates.stated if finding.facet in LOOKS_AT[perspective] else rates.strayed)
    ]
    label = rng.choice(ESCI.names) if rng.random() < rates.noise else verdict(stated)
    return " ".join(_sentence(finding, perspective) for finding in stated), label


def _sentence(finding: Finding, perspective: str) -> str:
    if finding.facet == "use":
        return USES[finding.relation].format(asked=finding.asked, found=finding.found)
    sentence, held, broken = MANNERS[perspective]
    return sentence.format(
        facet=finding.facet, asked=finding.asked, found=finding.found, held=held if finding.holds else broken
    )


def _query(rng: random.Random) -> dict[str, str]:
    asked = {"type": rng.choice(rng.choice(FAMILIES)[:2])}
    return asked | {name: rng.choice(values) for name, values in VALUES.items() if rng.random() < 0.5}


def _query_text(asked: Mapping[str, str]) -> str:
    words = [asked[name] for name in ("brand", "colour", "material", "type") if name in asked]
    return " ".join([*words, f"without {asked['part']}"] if "part" in asked else words)


def _product(rng: random.Random, asked: Mapping[str, str], relation: Relation, wrong: float | None) -> dict[str, str]:
    wishes = [facet for facet in asked if facet != "type"]
    if wrong is None:
        broken = rng.sample(wishes, 1) if wishes and rng.random() < 0.6 else []
    else:
        broken = [facet for facet in wishes if rng.random() < wrong]
    product = {"type": _product_type(rng, asked["type"], relation)}
    for name, values in VALUES.items():
        # A part is excluded, so to have it breaks the wish.
        as_named = name in asked and (name in broken) == (name == "part")
        product[name] = asked[name] if as_named else rng.choice([value for value in values if value != asked.get(name)])
    return {name: value.title() for name, value in product.items()}


def _product_type(rng: random.Random, asked: str, relation: Relation) -> str:
    family = next(family for family in FAMILIES if asked in family)
    main, similar, accessory = family
    if relation == "same":
        return asked
    if relation == "similar":
        return similar if asked == main else main
    if relation == "accessory":
        return accessory
    return rng.choice(rng.choice([other for other in FAMILIES if other != family]))


def _compare(asked: Mapping[str, str], product: Mapping[str, str], relation: Relation) -> Iterator[Finding]:
    for facet in FACETS:
        name = "type" if facet == "use" else facet
        if name not in asked or (facet == "use" and relation == "same"):
            continue
        holds = asked[name] == product[name].lower()
        if facet == "use":
            holds = relation == "similar"
        elif facet == "part":
            holds = not holds
        yield Finding(facet=facet, asked=asked[name], found=product[name], holds=holds, relation=relation)
