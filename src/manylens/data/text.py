"""Text: cleaning, the key by which two queries are the same, and stable digests."""

from __future__ import annotations

import hashlib
import html
import unicodedata

from manylens.data.arrow import Array, contains, replaced, texts_of, trimmed

_TAGS = r"(?is)<(?:script|style)\b.*?</(?:script|style)\s*>|<!--.*?-->|</?[a-z][^<>]*>"


def strip_html(texts: Array) -> Array:
    """Return the texts without tags, comments and scripts, entities resolved and white space joined.

    Args:
        texts: Strings, possibly null. A ``<`` that begins no tag stays.

    Returns:
        Strings of the same length; null stays null.
    """
    untagged = replaced(texts, _TAGS, " ")
    if contains(untagged, "&").any():
        untagged = texts_of([text and html.unescape(text) for text in untagged.to_pylist()])
    return trimmed(replaced(untagged, r"[\s\x{a0}]+", " "))


def query_key(query: str, locale: str) -> str:
    """Return what makes two queries the same: compatibility form, case and white space aside, within a locale."""
    return " ".join(unicodedata.normalize("NFKC", query).casefold().split()) + "\x1f" + locale.casefold()


def digest(*parts: str) -> str:
    """Return 16 hexadecimal digits that depend on `parts` alone, on every machine."""
    joined = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(joined, digest_size=8).hexdigest()
