"""Pairs to score: queries and products that were made up, with lengths as a shop has them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from manylens.errors import BadRowError

#: A query and a product's text.
TextPair = tuple[str, str]
#: Tokens that a pair of this share has at most, straight lines between: most products say little, and a few say all.
_SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
_LENGTHS = (14, 20, 30, 43, 64, 96, 133, 264, 458)
#: Pairs of the workload, and the seeds of it and of the pairs that int8 models are calibrated on.
PAIRS, SEED, CALIBRATION_SEED = 2000, 1, 2

_BRANDS = ("Orvel", "Pellumire", "Tarnholt", "Quibra", "Nestova", "Halden & Roe", "Zephyrine", "Kodowa", "Brackett")
_KINDS = {
    "desk lamp": ("dimmable", "clip on", "led", "architect"),
    "rain jacket": ("packable", "hooded", "lightweight", "womens"),
    "water bottle": ("insulated", "stainless steel", "leakproof", "kids"),
    "cast iron skillet": ("pre-seasoned", "10 inch", "non stick", "deep"),
    "hiking boots": ("waterproof", "mid", "mens", "wide"),
    "usb hub": ("7 port", "powered", "usb-c", "slim"),
    "cat litter": ("clumping", "unscented", "low dust", "natural"),
    "bath towels": ("quick dry", "egyptian cotton", "oversized", "set of 4"),
    "garden hose": ("expandable", "50 ft", "kink free", "heavy duty"),
    "board game": ("cooperative", "two player", "family", "travel"),
    "shower curtain": ("mildew resistant", "extra long", "hookless", "clear"),
    "face cream": ("fragrance free", "spf 30", "night", "vitamin c"),
}
_COLOURS = ("charcoal", "sage green", "navy", "ivory", "rust", "matte black", "sky blue", "walnut")
_FIELDS = (
    "Colour: {colour}",
    "Material: {material}",
    "Size: {number} x {other} in",
    "Weight: {number}.{digit} oz",
    "Model: {letter}{number}-{other}{letter}",
    "Pack of {digit}",
    "Care: {care}",
    "Age range: {digit} years and up",
)
_MATERIALS = ("recycled polyester", "bamboo", "powder-coated steel", "organic cotton", "borosilicate glass", "cork")
_CARE = ("machine wash cold, tumble dry low", "wipe clean with a damp cloth", "hand wash only", "dishwasher safe")
_SENTENCES = (
    "Made for everyday use at home, in the office or on the road.",
    "The reinforced seams hold where others tear, even after {number} washes.",
    "Comes with a storage pouch, a spare part and a printed guide.",
    "Tested in our own workshop for {number} hours before it ships.",
    "Goes together in minutes, and no tools are needed.",
    "The {colour} finish resists scratches, fingerprints and fading.",
    "If it fails within {digit} years, we replace it free of charge.",
    "Fits most standard cupboards; please measure {number} inches first.",
    "Designed with people who use a {kind} every day.",
    "Free of BPA, latex, phthalates and PVC.",
)
#: Tokens of a word, or of a mark of punctuation, in the mean over these texts.
_TOKENS_A_WORD = 1.03


def pairs(count: int = PAIRS, seed: int = SEED) -> list[TextPair]:
    """Make pairs, the same for the same arguments.

    A few queries are frequent and many stand once, as in a shop's log. Their lengths have a
    median of 44 tokens of BERT's uncased English vocabulary and a long tail.

    Args:
        count: How many.
        seed: Another seed makes other pairs.
    """
    draw = random.Random(seed)
    shares = [(number + draw.random()) / count for number in range(count)]  # Even, so that the quantiles are met.
    draw.shuffle(shares)
    return [_pair(draw, share) for share in shares]


def read_pairs(path: Path, limit: int | None = None) -> list[TextPair]:
    """Read pairs, a JSON object with ``query`` and ``product`` a line.

    Args:
        path: The file.
        limit: Most pairs to take; all by default.

    Raises:
        BadRowError: If a line is something else.
    """
    found = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if len(found) == limit:
                break
            try:
                row = json.loads(line)
                query, product = row["query"], row["product"]
            except (ValueError, TypeError, KeyError):
                query = product = None
            if not isinstance(query, str) or not isinstance(product, str):
                raise BadRowError(
                    f"expected a JSON object with the texts query and product, got {line.strip()[:80]!r}",
                    file=str(path),
                    row=number,
                )
            found.append((query, product))
    return found


def write_pairs(path: Path, wanted: Sequence[TextPair]) -> Path:
    """Write pairs as `read_pairs` reads them, and return the file."""
    path.write_text(
        "".join(json.dumps({"query": query, "product": product}) + "\n" for query, product in wanted), encoding="utf-8"
    )
    return path


def _pair(draw: random.Random, share: float) -> TextPair:
    kind = draw.choice(list(_KINDS))
    query = _query(draw, kind)
    other = kind if draw.random() < 0.6 else draw.choice(list(_KINDS))
    room = float(np.interp(share, _SHARES, _LENGTHS)) - 3 - _tokens(query)
    product = _title(draw, other)
    for clause in _clauses(draw, other):
        longer = f"{product}{clause}"
        if _tokens(longer) - room > room - _tokens(product):  # Without it, the length is nearer to the one wanted.
            break
        product = longer
    return query, product


def _query(draw: random.Random, kind: str) -> str:
    words = [kind] if draw.random() < 0.4 else [draw.choice(_KINDS[kind]), kind]
    if draw.random() < 0.25:
        words.insert(0, draw.choice(_BRANDS).lower())
    if draw.random() < 0.15:
        words.append(draw.choice(_COLOURS))
    if draw.random() < 0.1:
        words.append(f"under {draw.randrange(10, 90)} dollars")
    return " ".join(words)


def _title(draw: random.Random, kind: str) -> str:
    return f"{draw.choice(_BRANDS)} {draw.choice(_KINDS[kind]).title()} {kind.title()}"


def _clauses(draw: random.Random, kind: str) -> Iterator[str]:
    yield f", {draw.choice(_COLOURS).title()}"
    while True:
        blanks = {
            "kind": kind,
            "colour": draw.choice(_COLOURS),
            "material": draw.choice(_MATERIALS),
            "care": draw.choice(_CARE),
            "letter": draw.choice("ABKMTX"),
            "number": draw.randrange(10, 60),
            "other": draw.randrange(10, 60),
            "digit": draw.randrange(2, 10),
        }
        yield f" | {draw.choice(_FIELDS if draw.random() < 0.5 else _SENTENCES).format(**blanks)}"


def _tokens(text: str) -> float:
    """Return about how many tokens a text has, without a tokenizer."""
    words = sum(len(part.split()) for part in text.split("-"))
    return _TOKENS_A_WORD * words + sum(text.count(mark) for mark in ",.;:|&-")
