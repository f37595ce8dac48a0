from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer, Tokenizer, models, processors
from transformers import BertTokenizerFast

from manylens.errors import ConfigError, MissingExtraError, StudentError
from manylens.records import Pair
from manylens.serving.tokens import PairTokenizer
from manylens.student.encoding import PairEncoder
from student.build import CLS, PAD, SEP, TEMPLATE, UNK, VOCABULARY, make_encoder, make_pair, make_tokenizer

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
RED, BLUE, SHOE, HAT, ACME = (VOCABULARY[word] for word in ("red", "blue", "shoe", "hat", "acme"))
#: Words of the vocabulary, special tokens, and anything else: lone surrogates included.
words = st.sampled_from(["red", "blue", "shoe", "[SEP]", "[PAD]", "|", "\ud83d", "\U0001f600", "\u00e9\u0301", "\x00"])
texts = st.one_of(st.text(st.characters(), max_size=40), st.lists(words, max_size=24).map(" ".join))


def word_piece() -> BertTokenizerFast:
    """Return a WordPiece tokenizer like BERT's: it lower-cases, strips accents and splits words."""
    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(["red shoes and blue shoelaces for the home 0123456789 |"] * 3, show_progress=False)
    return BertTokenizerFast(tokenizer_object=trained._tokenizer)


def encoders() -> dict[str, PairEncoder]:
    word_level = make_tokenizer(token_types=False, double_separator=True)
    return {
        "words": make_encoder(max_length=12),
        "one left": make_encoder(max_length=8),
        "word pieces": PairEncoder(word_piece(), TEMPLATE, 17),
        "two separators": PairEncoder(word_level, TEMPLATE, 13),
        "products by themselves": PairEncoder(make_tokenizer(), TEMPLATE, 12, 7),
        "two separators, products by themselves": PairEncoder(word_level, TEMPLATE, 12, 7),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[PairEncoder, Path]]:
    """The encoders, as a student's folder brings them back."""
    places = {}
    for name, encoder in encoders().items():
        folder = tmp_path_factory.mktemp("tokenizer")
        encoder.save(folder)
        places[name] = PairEncoder.load(folder), folder
    return places


def rows(tokenizer: PairTokenizer, pairs: list[Pair]) -> dict[str, list[list[int]]]:
    """Return the arrays of pairs as lists without padding."""
    encoded = tokenizer.encode(pairs)
    batch = tokenizer.batch(encoded, range(len(pairs)), int(encoded.lengths.max()))
    lengths = batch["attention_mask"].sum(axis=1)
    assert lengths.tolist() == encoded.lengths.tolist()
    return {
        key: [row[:size].tolist() for row, size in zip(array, lengths, strict=True)] for key, array in batch.items()
    }


@pytest.mark.parametrize("name", encoders())
@pytest.mark.parametrize("cache_products", [0, 3])
@settings(max_examples=150, deadline=None)
@given(drawn=st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=5))
def test_the_ids_are_those_that_the_student_was_trained_on(
    saved: dict[str, tuple[PairEncoder, Path]], name: str, cache_products: int, drawn: list[tuple[str, str, str]]
) -> None:
    encoder, folder = saved[name]
    tokenizer = PairTokenizer.load(folder, encoder.tokenizer.model_input_names, cache_products=cache_products)
    pairs = [make_pair(query, title, brand=brand, pair_id="p") for query, title, brand in drawn]
    expected = encoder.encode(pairs)
    assert rows(tokenizer, pairs) == expected
    assert rows(tokenizer, pairs[::-1]) == {key: values[::-1] for key, values in expected.items()}


@given(query=st.integers(0, 30), product=st.integers(0, 30), max_length=st.integers(8, 16))
def test_queries_that_fill_the_length_are_cut_as_in_training(query: int, product: int, max_length: int) -> None:
    encoder = make_encoder(max_length=max_length)
    backend = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
    tokenizer = PairTokenizer(backend, TEMPLATE, max_length=max_length, pad_id=PAD, inputs=INPUTS)
    pairs = [make_pair("red shoe " * query, "blue hat " * product), make_pair("red " * query, "hat " * product)]
    assert rows(tokenizer, pairs) == encoder.encode(pairs)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., PairTokenizer]:
    make_encoder(max_length=12).save(tmp_path)
    return lambda inputs=INPUTS, **options: PairTokenizer.load(tmp_path, inputs, **options)


def test_a_batch_is_padded_on_the_right_and_has_what_the_model_reads(load: Callable[..., PairTokenizer]) -> None:
    tokenizer = load()
    encoded = tokenizer.encode(
        [make_pair("red shoe", "blue"), make_pair("zebra", "red"), make_pair("red", "hat", brand="acme")]
    )
    assert encoded.lengths.tolist() == [6, 5, 7]
    batch = tokenizer.batch(encoded, np.array([1, 0]), 8)
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}
    assert batch["input_ids"].tolist() == [
        [CLS, UNK, SEP, RED, SEP, PAD, PAD, PAD],
        [CLS, RED, SHOE, SEP, BLUE, SEP, PAD, PAD],
    ]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]
    without = load(inputs=("input_ids", "attention_mask"))
    assert set(without.batch(without.encode([make_pair()]), [0], 8)) == {"input_ids", "attention_mask"}


def test_no_pairs_no_tokens(load: Callable[..., PairTokenizer]) -> None:
    assert load().encode([]).lengths.shape == (0,)


def test_a_long_product_is_cut(load: Callable[..., PairTokenizer]) -> None:
    tokenizer = load(cache_products=2)
    for _ in range(2):
        encoded = tokenizer.encode([make_pair("red", "blue hat " * 25_000)])
        assert encoded.lengths.tolist() == [12] and len(encoded.products[0]) == 8


class Counting:
    """A tokenizer that counts the texts that it is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.seen = tokenizer, []

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> object:
        self.seen += texts
        return self.tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)


def counted(tokenizer: PairTokenizer) -> Counting:
    counting = Counting(tokenizer._tokenizer)
    tokenizer._tokenizer = counting
    return counting


def test_a_query_and_a_product_are_tokenised_once_a_call(load: Callable[..., PairTokenizer]) -> None:
    tokenizer = load()
    counting = counted(tokenizer)
    pairs = [make_pair(query, title) for query in ("red", "blue") for title in ("hat", "shoe", "hat")]
    expected = make_encoder(max_length=12).encode(pairs)
    assert rows(tokenizer, pairs) == expected
    assert sorted(counting.seen) == ["blue", "hat", "red", "shoe"]
    tokenizer.encode(pairs)
    assert sorted(counting.seen) == sorted(["blue", "hat", "red", "shoe"] * 2)


def test_the_products_used_last_are_kept(load: Callable[..., PairTokenizer]) -> None:
    tokenizer = load(cache_products=2)
    counting = counted(tokenizer)

    def asked(*titles: str) -> list[str]:
        counting.seen.clear()
        tokenizer.encode([make_pair("lamp", title) for title in titles])
        return [text for text in counting.seen if text != "lamp"]

    assert asked("hat", "shoe") == ["hat", "shoe"]
    assert asked("hat") == []
    assert asked("sofa") == ["sofa"], "and shoe, used before hat, is dropped"
    assert asked("hat") == []
    assert asked("shoe") == ["shoe"]
    assert asked("sofa") == ["sofa"]
    assert asked("cup", "red", "blue") == ["cup", "red", "blue"], "more than fit in one call"
    assert asked("red", "blue") == []


def test_threads_share_a_tokenizer(load: Callable[..., PairTokenizer]) -> None:
    tokenizer, encoder = load(cache_products=5), make_encoder(max_length=12)
    requests = [[make_pair(f"red {a}", f"{b} hat") for b in "abcdefgh"[start:]] for start in range(8) for a in "ab"]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda pairs: rows(tokenizer, pairs), requests * 4)) == [
            encoder.encode(pairs) for pairs in requests * 4
        ]


def test_a_template_that_asks_for_more_is_refused(tmp_path: Path) -> None:
    make_encoder(template="{{ title }}{{ price }}").save(tmp_path)
    with pytest.raises(ConfigError, match="'price' is undefined; a product has title"):
        PairTokenizer.load(tmp_path, INPUTS).encode([make_pair()])


def test_the_library_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"tokenizers is not installed; run: pip install 'manylens\[serve\]'"):
        PairTokenizer.load(tmp_path, INPUTS)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=rf"no tokenizer at {tmp_path}: .*tokenizer_config\.json"):
        PairTokenizer.load(tmp_path, INPUTS)
    make_encoder().save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(StudentError, match=rf"no tokenizer at {tmp_path}"):
        PairTokenizer.load(tmp_path, INPUTS)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("product_template", r"tokenizer_config\.json has no product_template; is this a student of manylens\?"),
        ("pad_token", r"needs a padding token, got None in tokenizer_config\.json"),
    ],
)
def test_a_config_that_lacks_something_is_refused(tmp_path: Path, key: str, message: str) -> None:
    make_encoder().save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))
    with pytest.raises(StudentError, match=message):
        PairTokenizer.load(tmp_path, INPUTS)


def test_a_padding_token_may_be_written_with_its_options(tmp_path: Path) -> None:
    make_encoder().save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": {"content": "[UNK]", "lstrip": False}}))
    tokenizer = PairTokenizer.load(tmp_path, INPUTS)
    assert tokenizer.batch(tokenizer.encode([make_pair("red", "hat")]), [0], 6)["input_ids"].tolist() == [
        [CLS, RED, SEP, HAT, SEP, UNK]
    ]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("$A:0 [SEP]:0 $B:1 [SEP]:1", r"must make \[CLS\] query \[SEP\] product \[SEP\]"),
        ("[CLS]:0 $A:0 $B:1 [SEP]:1", r"must make \[CLS\] query \[SEP\] product \[SEP\]"),
        ("[CLS]:2 $A:0 [SEP]:0 $B:1 [SEP]:1", r"in two segments at most; it made .* with segments \[2, 0, 0, 1, 1\]"),
        ("[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:2", r"in two segments at most"),
    ],
)
def test_another_form_of_pairs_is_refused(pair: str, message: str) -> None:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair=pair, special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    with pytest.raises(StudentError, match=message):
        PairTokenizer(tokenizer, TEMPLATE, max_length=12, pad_id=PAD, inputs=INPUTS)


def test_a_tokenizer_that_knows_no_letter_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[CLS]": 0}, unk_token="[CLS]"))
    tokenizer.model = models.BPE({}, [])
    with pytest.raises(StudentError, match="makes no tokens of the text 'a'"):
        PairTokenizer(tokenizer, TEMPLATE, max_length=12, pad_id=PAD, inputs=INPUTS)
