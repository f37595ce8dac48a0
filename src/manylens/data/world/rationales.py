"""The teacher's rationales: comparisons in natural words, and what they come to."""

from __future__ import annotations

from random import Random

from manylens.data.world.catalogue import FAMILY_OF
from manylens.data.world.facts import Comparison, Product, Query, compare, label_of
from manylens.data.world.texts import title_of

#: What each perspective looks at; ``structured_analysis`` at everything.
LOOKS_AT = {
    "user_intent": ("kind", "fits", "colour", "material"),
    "structured_analysis": ("kind", "fits", "brand", "colour", "material", "price", "size"),
    "business_rules": ("kind", "fits", "brand", "price", "size"),
}

#: By perspective: how a comparison of kinds, of a fit, and of anything else is worded.
_WORDINGS: dict[str, dict[str, str]] = {
    "user_intent": {
        "same": "The shopper wants a {asked}, and this is one.",
        "alternative": "The shopper wants a {asked}; a {found} does a similar job.",
        "accessory": "The shopper wants a {asked}, and a {found} is something to use with one.",
        "unrelated": "The shopper wants a {asked}, and a {found} serves quite another purpose.",
        "fits holds": "It goes with the {asked} that they have in mind.",
        "fits misses": "It is made for the {found}, so it would not go with their {asked}.",
        "holds": "They want {wanted}, and they get it: {found}.",
        "misses": "They want {wanted}, but would get {found}.",
        "excluded": "They want {wanted}, and {found} is just what they would get.",
    },
    "structured_analysis": {
        "same": "Type: {asked} asked, {found} offered, the same.",
        "alternative": "Type: {asked} asked, {found} offered, a different type of the same use.",
        "accessory": "Type: {asked} asked, {found} offered, an accessory.",
        "unrelated": "Type: {asked} asked, {found} offered, unrelated types.",
        "fits holds": "Compatibility: made for {found}, which covers a {asked}.",
        "fits misses": "Compatibility: made for {found}, which does not cover a {asked}.",
        "holds": "{subject}: {wanted} asked, {found} offered, satisfied.",
        "misses": "{subject}: {wanted} asked, {found} offered, not satisfied.",
        "excluded": "{subject}: {wanted} asked, {found} offered, which is ruled out.",
    },
    "business_rules": {
        "same": "The product belongs to the category searched for, {asked}.",
        "alternative": "The category searched for is {asked}; {found} is the neighbouring one.",
        "accessory": "The category searched for is {asked}; {found} is listed among its accessories.",
        "unrelated": "The category searched for is {asked}; {found} belongs to another department.",
        "fits holds": "The accessory is listed as compatible with the {asked}.",
        "fits misses": "The accessory is listed for {found} only, not for a {asked}.",
        "holds": "The rule on {subject} is met: {wanted}, and it is {found}.",
        "misses": "The rule on {subject} is broken: {wanted}, but it is {found}.",
        "excluded": "The rule on {subject} forbids it: {wanted}, but it is {found}.",
    },
}
#: How a label is put, without its name.
CONCLUSIONS = {
    "exact": (
        "Everything that was asked for is there.",
        "It is precisely the right product for this search.",
        "So nothing is missing, and it belongs at the top.",
    ),
    "substitute": (
        "It falls short in one point but could still stand in.",
        "So it is not quite the right one, though it could serve instead.",
        "With one wish unmet it remains a fair replacement.",
    ),
    "complement": (
        "It does not answer the search by itself but goes along with what does.",
        "So it is useful beside the thing that was searched for, not in its place.",
        "It would make a sensible addition to the purchase.",
    ),
    "irrelevant": (
        "So it is of no use for this search.",
        "It should not be shown here at all.",
        "That leaves no reason to offer it.",
    ),
}
#: What is said instead of a comparison or a conclusion that is passed over.
ASIDES = (
    "The listing is headed {title}.",
    "The page shows the product from several sides.",
    "The description is short and easy to read.",
    "The listing uses plain words.",
    "There is a picture and a list of details.",
    "Delivery and returns follow the usual terms.",
)


def rationale(query: Query, product: Product, perspective: str, informativeness: float, generator: Random) -> str:
    """Return what a perspective says of a product.

    Args:
        query: The query.
        product: The product as the teacher sees it.
        perspective: A name of `LOOKS_AT`.
        informativeness: Chance of each comparison, and of the conclusion, to be stated and not passed over; what is
            stated at a smaller chance is also stated at a larger one.
        generator: Chooses words.

    Returns:
        As many sentences at any informativeness: the perspective's own comparisons, then the conclusion, which follows
        from all comparisons.
    """
    comparisons = compare(query, product)
    stated = [_state(each, query, perspective) for each in comparisons if each.subject in LOOKS_AT[perspective]]
    stated.append(generator.choice(CONCLUSIONS[label_of(comparisons)]))
    asides = iter(generator.sample(ASIDES, len(stated)))
    sentences = []
    for sentence, aside in zip(stated, asides, strict=True):
        sentences.append(sentence if generator.random() < informativeness else aside.format(title=title_of(product)))
    return " ".join(sentences)


def _state(comparison: Comparison, query: Query, perspective: str) -> str:
    wordings, unit = _WORDINGS[perspective], f" {FAMILY_OF[query.kind].unit}" if comparison.subject == "size" else ""
    key = f"fits {comparison.finding}" if comparison.subject == "fits" else comparison.finding
    return wordings[key].format(
        subject=_subject(comparison, query),
        asked=comparison.asked,
        found=f"{comparison.found}{unit}",
        wanted=_wanted(comparison, unit),
    )


def _subject(comparison: Comparison, query: Query) -> str:
    return FAMILY_OF[query.kind].measure if comparison.subject == "size" else comparison.subject.capitalize()


def _wanted(comparison: Comparison, unit: str) -> str:
    prefix = {"is": "", "not": "anything but ", "under": "less than ", "least": "at least "}[comparison.relation]
    return f"{prefix}{comparison.asked}{unit}"
