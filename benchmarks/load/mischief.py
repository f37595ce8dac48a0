"""Requests of a soak: good ones with ever new products, and in a fixed share such as no client should send."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.load.connection import post, rerank
from benchmarks.serving.workload import TextPair

#: Most bytes of a body that a server takes by default are 8 MiB.
LARGE_BODY = 10_000_000
#: Of so many requests, one of each kind of `_odd` is among them, and one in `LARGE_EVERY` has the large body.
CYCLE, LARGE_EVERY = 100, 2_000
#: Characters of a product before its number.
_TITLE = 60
_QUERY = "unscented body lotion"


class Sent(NamedTuple):
    """A request.

    Attributes:
        kind: What it is.
        status: What its answer should have.
        request: Its bytes.
    """

    kind: str
    status: str
    request: bytes


def _json(body: object) -> bytes:
    return post("/rerank", json.dumps(body).encode())


def _odd() -> list[Sent]:
    good = json.dumps({"query": _QUERY, "texts": ["Body Lotion"]}).encode()
    return [
        Sent("malformed JSON", "422", post("/rerank", good[:-1])),
        Sent("wrong type", "422", _json({"query": 5, "texts": ["Body Lotion"]})),
        Sent("texts that are no list", "422", _json({"query": _QUERY, "texts": {"title": "Body Lotion"}})),
        Sent("empty list", "422", _json({"query": _QUERY, "documents": []})),
        Sent("neither texts nor documents", "422", _json([_QUERY])),
        Sent("NUL in a text", "200", _json({"query": _QUERY, "texts": ["Body\0Lotion"]})),
        Sent("NUL in the JSON", "422", post("/rerank", good.replace(b" ", b"\0", 1))),
        Sent("half a surrogate pair", "200", _json({"query": "\ud83d", "texts": ["Body \udc00 Lotion"]})),
        Sent("no UTF-8", "422", post("/rerank", good.replace(b"Body", b"\xff\xfe", 1))),
        Sent("no JSON by its type", "415", post("/rerank", good, {"Content-Type": "text/plain"})),
        Sent("50,000 characters", "200", _json({"query": _QUERY, "texts": ["Lotion " * 7_143]})),
        Sent("too many texts", "413", _json({"query": _QUERY, "texts": ["a"] * 1_001})),
        Sent("no such path", "404", post("/nowhere", good)),
    ]


def mixture(wanted: Sequence[TextPair]) -> Iterator[Sent]:
    """Yield requests without end.

    Args:
        wanted: Pairs that good requests are made of; a number makes each product a new one.
    """
    odd = _odd()
    large = Sent("10 MB", "413", post("/rerank", b'{"query": "' + b"a" * LARGE_BODY))
    apart = CYCLE // len(odd)
    sent = 0
    while True:
        place, at = divmod(sent % CYCLE, apart)
        if sent % LARGE_EVERY == LARGE_EVERY - 1:
            yield large
        elif at == 0 and place < len(odd):
            yield odd[place]
        else:
            products = [
                f"{wanted[(sent * 10 + number) % len(wanted)][1][:_TITLE]} | No. {sent}-{number}"
                for number in range(sent % 10 + 1)
            ]
            yield Sent("good", "200", rerank(wanted[sent % len(wanted)][0], products))
        sent += 1
