"""From pairs to token ids with the `tokenizers` library alone; the ids are those of `manylens.student.encoding`."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from manylens.errors import MissingExtraError, StudentError
from manylens.products import PRODUCT_LENGTH_KEY, TEMPLATE_KEY, ProductTemplate
from manylens.records import Pair
from manylens.serving.encoded import Encoded
from manylens.text import text_digest, well_formed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedPairs(Encoded):
    """Token ids of pairs, cut to fit, without special tokens and padding.

    Attributes:
        queries: (tokens,) each, one a pair.
        products: (tokens,) each, one a pair.
        lengths: (pairs,) tokens of each pair, special tokens included.
    """

    queries: Sequence[Ids]
    products: Sequence[Ids]
    lengths: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Frame:
    """The special tokens around a query and a product, and the segments that these belong to."""

    before: Ids
    between: Ids
    after: Ids
    types: tuple[int, int]

    @property
    def size(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


class PairTokenizer:
    """Tokenises pairs as ``[CLS] query [SEP] product [SEP]``, exactly as the student was trained.

    A query is tokenised once a call however many products it has; the ids of products are kept from call to call.
    Safe to share between threads.

    Attributes:
        template: The product's template.
        max_length: Most tokens of a pair.
        product_length: Most tokens of a product with its [SEP], whatever the query; ``None``: what the query leaves.
        inputs: The arrays of a batch: ``input_ids``, ``attention_mask`` and, where the model reads them,
            ``token_type_ids``.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str,
        *,
        max_length: int,
        product_length: int | None = None,
        pad_id: int,
        inputs: Iterable[str],
        cache_products: int = 0,
    ) -> None:
        """Take over a tokenizer; see `load` for a folder.

        Args:
            tokenizer: Cuts and pads no longer.
            template: Jinja source of the product's text.
            max_length: Most tokens of a pair.
            product_length: Most tokens of a product, as `PairEncoder` has it.
            pad_id: The id of the padding token.
            inputs: The arrays that the model reads.
            cache_products: How many products' ids to keep, those used last; 0 keeps none.

        Raises:
            ConfigError: If the template does not compile.
            StudentError: If the tokenizer does not put special tokens between query and product.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.template, self.inputs = ProductTemplate(template), tuple(inputs)
        self.max_length, self.product_length = max_length, product_length
        self._tokenizer, self._pad_id, self._frame = tokenizer, pad_id, _frame(tokenizer)
        self._room = max_length - self._frame.size
        # [CLS] query [SEP], and the product with what follows.
        head = len(self._frame.before) + 1
        self._query_room = max_length - head
        self._product_room = self._room if product_length is None else product_length - (self._frame.size - head)
        self._cache = _Cache(cache_products)

    @classmethod
    def load(cls, folder: str | Path, inputs: Iterable[str], *, cache_products: int = 0) -> Self:
        """Return the tokenizer that a student or an export was saved with.

        Args:
            folder: Holds ``tokenizer.json`` and ``tokenizer_config.json``.
            inputs: The arrays that the model reads.
            cache_products: How many products' ids to keep.

        Raises:
            MissingExtraError: If `tokenizers` is not installed.
            StudentError: If the folder holds no tokenizer of manylens.
        """
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError:
            raise MissingExtraError("tokenizers", "serve") from None
        try:
            config = json.loads((Path(folder) / "tokenizer_config.json").read_text(encoding="utf-8"))
            tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        except Exception as error:  # tokenizers raises plain exceptions
            raise StudentError(f"no tokenizer at {folder}: {error}") from error
        if TEMPLATE_KEY not in config:
            raise StudentError(f"{folder}: tokenizer_config.json has no {TEMPLATE_KEY}; is this a student of manylens?")
        return cls(
            tokenizer,
            config[TEMPLATE_KEY],
            max_length=config["model_max_length"],
            product_length=config.get(PRODUCT_LENGTH_KEY),
            pad_id=_pad_id(config, tokenizer),
            inputs=inputs,
            cache_products=cache_products,
        )

    def encode(self, pairs: Sequence[Pair]) -> EncodedPairs:
        """Return the token ids of pairs; half a surrogate pair is read as ``?``.

        Where a pair is longer than `max_length`, the product's end is cut; only a query that fills `max_length` by
        itself is cut too. With a `product_length`, each is cut by itself.

        Args:
            pairs: Any pairs.

        Raises:
            ConfigError: If the template asks for what a product does not have.
        """
        texts = [well_formed(self.template.render(pair)) for pair in pairs]
        products = self._product_ids(texts)
        numbers: dict[str, int] = {}
        places = [numbers.setdefault(pair.query, len(numbers)) for pair in pairs]
        distinct = self._ids([well_formed(query) for query in numbers])
        queries = [distinct[place] for place in places]
        for index, query in enumerate(queries):
            room = self._room - len(query)
            if self.product_length is not None:
                queries[index] = query[: self._query_room]
            elif room > 0:
                products[index] = products[index][:room]
            else:
                queries[index], products[index] = _cut_both(query, self._ids([texts[index]])[0], self._room)
        lengths = [len(query) + len(product) for query, product in zip(queries, products, strict=True)]
        return EncodedPairs(
            queries=queries, products=products, lengths=np.array(lengths, dtype=np.int64) + self._frame.size
        )

    def batch(
        self, encoded: EncodedPairs, chosen: Sequence[int] | NDArray[np.intp], width: int
    ) -> dict[str, NDArray[np.int64]]:
        """Return the arrays of some pairs, padded on the right.

        Args:
            encoded: The pairs.
            chosen: Which of them, in order.
            width: Tokens of a row; at least those of the longest pair.

        Returns:
            From the names of `inputs` to arrays of shape (chosen, width).
        """
        frame = self._frame
        parts: list[Ids] = []
        for index in chosen:
            parts += (frame.before, encoded.queries[index], frame.between, encoded.products[index], frame.after)
        lengths, places = encoded.lengths[chosen, None], np.arange(width)
        mask = places < lengths
        ids = np.full(mask.shape, self._pad_id, dtype=np.int64)
        ids[mask] = np.concatenate(parts)
        batch = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if "token_type_ids" in self.inputs:
            start = len(frame.before) + len(frame.between) + np.array([[len(encoded.queries[i])] for i in chosen])
            types = np.where(places < start, frame.types[0], frame.types[1])
            batch["token_type_ids"] = np.where(mask, types, 0).astype(np.int64)
        return batch

    def _product_ids(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of products, cut to what a pair can hold, from the cache where they are there."""
        keys = self._cache.keys(texts)
        found = self._cache.get(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        # Copies, because a slice would keep the whole array alive.
        cut = [ids[: self._product_room].copy() for ids in self._ids([*missing.values()])]
        made = dict(zip(missing, cut, strict=True))
        self._cache.put(made)
        found |= made
        return [found[key] for key in keys]

    def _ids(self, texts: list[str]) -> list[Ids]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]


class _Cache:
    """The token ids of the products that were used last, by the digest of their text."""

    def __init__(self, size: int) -> None:
        self._size, self._lock, self._entries = size, Lock(), OrderedDict[bytes | str, Ids]()

    def keys(self, texts: Sequence[str]) -> Sequence[bytes | str]:
        if not self._size:
            return texts
        return [text_digest(text) for text in texts]

    def get(self, keys: Iterable[bytes | str]) -> dict[bytes | str, Ids]:
        found = {}
        with self._lock:
            for key in keys:
                if key in self._entries:
                    self._entries.move_to_end(key)
                    found[key] = self._entries[key]
        return found

    def put(self, entries: Mapping[bytes | str, Ids]) -> None:
        if not self._size:
            return
        with self._lock:
            self._entries |= entries
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)


def _frame(tokenizer: Tokenizer) -> _Frame:
    """Read the special tokens off a pair of two words."""
    encoding = tokenizer.encode("a", "a")
    owners, ids = encoding.sequence_ids, np.array(encoding.ids, dtype=np.int32)
    if not {0, 1} <= set(owners):
        raise StudentError("the tokenizer makes no tokens of the text 'a'; a student needs one that knows letters")
    query, product = owners.index(0), owners.index(1)
    end, after = query + owners.count(0), product + owners.count(1)
    types = encoding.type_ids
    if set(types[:product]) != {types[0]} or set(types[product:]) != {types[product]} or query == 0 or end == product:
        raise StudentError(
            f"the tokenizer must make [CLS] query [SEP] product [SEP] of a pair, in two segments at most; "
            f"it made {encoding.tokens} with segments {types}"
        )
    return _Frame(before=ids[:query], between=ids[end:product], after=ids[after:], types=(types[0], types[product]))


def _pad_id(config: Mapping[str, Any], tokenizer: Tokenizer) -> int:
    token = config.get("pad_token")
    pad_id = tokenizer.token_to_id(token["content"] if isinstance(token, dict) else token) if token else None
    if pad_id is None:
        raise StudentError(f"a student's tokenizer needs a padding token, got {token!r} in tokenizer_config.json")
    return int(pad_id)


def _cut_both(query: Ids, product: Ids, room: int) -> tuple[Ids, Ids]:
    """Cut the longer text, and both where neither is short (``longest_first`` of `tokenizers`)."""
    if len(query) + len(product) <= room:
        return query, product
    short = min(len(query), len(product), room // 2)
    if len(query) <= len(product):
        return query[:short], product[: room - short]
    return query[: room - short], product[:short]
