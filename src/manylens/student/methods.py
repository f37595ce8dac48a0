"""Methods: the ways to train a student, on the same backbone, data, steps and seeds."""

from __future__ import annotations

from dataclasses import dataclass

from manylens.errors import UnknownNameError


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """What makes one student differ from another.

    Attributes:
        title: For tables.
        extractor: Whether it has a latent reasoning extractor.
        guide: Whether the guide loss aligns its latents to rationales.
    """

    title: str
    extractor: bool
    guide: bool


METHODS: dict[str, Method] = {
    "bert": Method(title="BERT", extractor=False, guide=False),
    "lrkd": Method(title="LRKD", extractor=True, guide=True),
}


def get_method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name]
