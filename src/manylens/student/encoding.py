"""From pairs to token ids; the way is saved with the tokenizer, so training and serving cannot drift apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerFast

from manylens.errors import StudentError
from manylens.products import PRODUCT_LENGTH_KEY, TEMPLATE_KEY, ProductTemplate
from manylens.records import Pair
from manylens.text import well_formed

#: Tokens of ``[CLS] query [SEP]`` that a product of a split student leaves room for.
QUERY_ROOM = 16


def product_length(max_length: int) -> int:
    """Return the most tokens of a split student's product: what a query of `QUERY_ROOM` leaves, at least a half."""
    return max(max_length - QUERY_ROOM, max_length // 2)


class PairEncoder:
    """Tokenises pairs as ``[CLS] query [SEP] product [SEP]``.

    Where a pair is longer than `max_length`, the product's end is cut and the query stays whole
    (``only_second``); only a query that fills `max_length` by itself is cut too. With a `product_length`, the product
    is cut to that whatever the query, so that its tokens are always the same, and a pair may be longer than
    `max_length` by what the query has beyond the room that is left to it.

    Attributes:
        tokenizer: The backbone's fast tokenizer.
        template: The product's template.
        max_length: Most tokens of a pair.
        product_length: Most tokens of a product with its [SEP]; ``None``: what the query leaves.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, template: str, max_length: int, product_length: int | None = None
    ) -> None:
        """Bind a template and lengths to a tokenizer.

        Raises:
            ConfigError: If the template does not compile.
        """
        self.tokenizer, self.template = tokenizer, ProductTemplate(template)
        self.max_length, self.product_length = max_length, product_length

    @classmethod
    def from_backbone(
        cls, backbone: str, template: str, max_length: int, product_length: int | None = None
    ) -> PairEncoder:
        """Return the encoder of pairs for a pretrained backbone.

        Args:
            backbone: A model id or a folder.
            template: The product's template.
            max_length: Most tokens of a pair.
            product_length: Most tokens of a product; ``None``: what the query leaves.

        Raises:
            StudentError: If the tokenizer cannot be loaded or does not fit.
        """
        return cls(_load_tokenizer(backbone), template, max_length, product_length)

    @classmethod
    def load(cls, folder: str | Path) -> PairEncoder:
        """Return the encoder of pairs that a student was saved with.

        Raises:
            StudentError: If the folder holds no tokenizer, or one without a product template.
        """
        tokenizer = _load_tokenizer(str(folder))
        template = tokenizer.init_kwargs.get(TEMPLATE_KEY)
        if template is None:
            raise StudentError(f"{folder}: tokenizer_config.json has no {TEMPLATE_KEY}; is this a student of manylens?")
        return cls(tokenizer, template, tokenizer.model_max_length, tokenizer.init_kwargs.get(PRODUCT_LENGTH_KEY))

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer with template, length and truncation into a model's folder."""
        self.tokenizer.init_kwargs[TEMPLATE_KEY] = self.template.source
        if self.product_length is not None:
            self.tokenizer.init_kwargs[PRODUCT_LENGTH_KEY] = self.product_length
        self.tokenizer.model_max_length = self.max_length
        # For consumers that read tokenizer.json alone: the same cut without a word from them, and no more padding than
        # they ask for; MiniLM's own pads everything to 128.
        self.tokenizer.backend_tokenizer.enable_truncation(self.max_length, strategy="only_second")
        self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.init_kwargs.pop("max_length", None)  # MiniLM's own, 128, to which fastembed would cut.
        self.tokenizer.save_pretrained(str(folder))

    def encode(self, pairs: Sequence[Pair]) -> dict[str, list[list[int]]]:
        """Return token ids and masks of pairs, unpadded.

        Args:
            pairs: Any pairs; half a surrogate pair, which no encoding can hold, is read as ``?``.

        Returns:
            From ``input_ids``, ``attention_mask`` and, where the backbone has them,
            ``token_type_ids`` to one list of ints a pair.
        """
        queries = [well_formed(pair.query) for pair in pairs]
        products = [well_formed(self.template.render(pair)) for pair in pairs]
        if self.product_length is not None:
            parts = self.encode_queries(queries), self.encode_products(products)
            return {
                key: [query + product for query, product in zip(column, parts[1][key], strict=True)]
                for key, column in parts[0].items()
            }
        room = self.max_length - self.tokenizer.num_special_tokens_to_add(pair=True)
        lengths = [len(ids) for ids in self.tokenizer(queries, add_special_tokens=False, verbose=False)["input_ids"]]
        if all(length < room for length in lengths):
            return dict(self.tokenizer(queries, products, truncation="only_second", max_length=self.max_length))
        rows = [
            self.tokenizer(
                [query],
                [product],
                truncation="only_second" if length < room else "longest_first",
                max_length=self.max_length,
            )
            for query, product, length in zip(queries, products, lengths, strict=True)
        ]
        return {key: [row[key][0] for row in rows] for key in rows[0]}

    def encode_queries(self, queries: Sequence[str]) -> dict[str, list[list[int]]]:
        """Return the token columns of ``[CLS] query [SEP]``, as of `encode`, of well-formed texts."""
        _, tail = self._frame()
        empty = [""] * len(queries)
        rows = self.tokenizer(queries, empty, truncation="only_first", max_length=self.max_length + tail)
        return {key: [row[: len(row) - tail] for row in column] for key, column in rows.items()}

    def encode_products(self, products: Sequence[str]) -> dict[str, list[list[int]]]:
        """Return the token columns of ``product [SEP]``, as of `encode`, of well-formed rendered texts."""
        head, _ = self._frame()
        length = self.max_length if self.product_length is None else self.product_length
        empty = [""] * len(products)
        rows = self.tokenizer(empty, products, truncation="only_second", max_length=head + length)
        return {key: [row[head:] for row in column] for key, column in rows.items()}

    def _frame(self) -> tuple[int, int]:
        """Return how many tokens of a pair of empty texts belong to the query and to the product."""
        ids = self.tokenizer([""], [""])["input_ids"][0]  # As a batch: a lone "" would be no text at all.
        head = ids.index(self.tokenizer.sep_token_id) + 1
        return head, len(ids) - head

    def pad(self, rows: Sequence[Mapping[str, list[int]]]) -> BatchEncoding:
        """Return a batch of PyTorch tensors, padded to its longest row."""
        padded: BatchEncoding = self.tokenizer.pad([dict(row) for row in rows], return_tensors="pt")
        return padded


def _load_tokenizer(source: str) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise StudentError(f"no tokenizer at {source!r}: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.sep_token_id is None:
        raise StudentError(
            f"{source!r}: a student needs a fast tokenizer with a separator token, as BERT-like encoders have; "
            f"got {type(tokenizer).__name__}"
        )
    return tokenizer
