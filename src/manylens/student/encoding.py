"""From pairs to token ids; the way is saved with the tokenizer, so training and serving cannot drift apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerFast

from manylens.errors import ConfigError, StudentError
from manylens.records import Pair

#: Where tokenizer_config.json keeps the product template.
TEMPLATE_KEY = "product_template"
_PRODUCT_FIELDS = ("title", "brand", "attributes", "description", "locale", "product_id")


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
            return self._template.render({name: getattr(pair, name) for name in _PRODUCT_FIELDS})
        except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
            raise ConfigError(
                f"student.product_template: {error}; a product has {', '.join(_PRODUCT_FIELDS)}"
            ) from None


class PairEncoder:
    """Tokenises pairs as ``[CLS] query [SEP] product [SEP]``.

    Where a pair is longer than `max_length`, the product's end is cut and the query stays whole
    (``only_second``); only a query that fills `max_length` by itself is cut too.

    Attributes:
        tokenizer: The backbone's fast tokenizer.
        template: The product's template.
        max_length: Most tokens of a pair.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template: str, max_length: int) -> None:
        """Bind a template and a length to a tokenizer.

        Raises:
            ConfigError: If the template does not compile.
        """
        self.tokenizer, self.template, self.max_length = tokenizer, ProductTemplate(template), max_length

    @classmethod
    def from_backbone(cls, backbone: str, template: str, max_length: int) -> PairEncoder:
        """Return the encoder of pairs for a pretrained backbone.

        Args:
            backbone: A model id or a folder.
            template: The product's template.
            max_length: Most tokens of a pair.

        Raises:
            StudentError: If the tokenizer cannot be loaded or does not fit.
        """
        return cls(_load_tokenizer(backbone), template, max_length)

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
        return cls(tokenizer, template, tokenizer.model_max_length)

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer with template, length and truncation into a model's folder."""
        self.tokenizer.init_kwargs[TEMPLATE_KEY] = self.template.source
        self.tokenizer.model_max_length = self.max_length
        # For consumers that read tokenizer.json alone: the same cut without a word from them.
        self.tokenizer.backend_tokenizer.enable_truncation(self.max_length, strategy="only_second")
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

    def pad(self, rows: Sequence[Mapping[str, list[int]]]) -> BatchEncoding:
        """Return a batch of PyTorch tensors, padded to its longest row."""
        padded: BatchEncoding = self.tokenizer.pad([dict(row) for row in rows], return_tensors="pt")
        return padded


def well_formed(text: str) -> str:
    """Return `text` with ``?`` for each lone surrogate, which tokenizers refuse."""
    return text.encode("utf-8", "replace").decode("utf-8")


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
