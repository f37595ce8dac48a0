from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from manylens.errors import StudentError
from manylens.student.encoding import PairEncoder
from manylens.text import well_formed

from .build import CLS, SEP, TEMPLATE, UNK, VOCABULARY, make_encoder, make_pair, make_tokenizer

RED, BLUE, SHOE, HAT = (VOCABULARY[word] for word in ("red", "blue", "shoe", "hat"))
any_text = st.text(st.characters(), max_size=60)  # lone surrogates included


def test_a_pair_is_cls_query_sep_product_sep() -> None:
    encoded = make_encoder().encode([make_pair("red shoe", "blue hat")])
    assert encoded == {
        "input_ids": [[CLS, RED, SHOE, SEP, BLUE, HAT, SEP]],
        "token_type_ids": [[0, 0, 0, 0, 1, 1, 1]],
        "attention_mask": [[1] * 7],
    }


def test_only_the_products_end_is_cut() -> None:
    encoded = make_encoder(max_length=8).encode([make_pair("red red red red", "blue hat shoe shoe")])
    assert encoded["input_ids"] == [[CLS, RED, RED, RED, RED, SEP, BLUE, SEP]]


def test_a_query_that_fills_the_length_leaves_room_for_the_product_and_spares_its_neighbours() -> None:
    long, short = make_pair("red " * 20, "blue hat shoe"), make_pair("red red red red", "blue hat shoe")
    encoded = make_encoder(max_length=8).encode([short, long])
    assert encoded["input_ids"][0] == [CLS, RED, RED, RED, RED, SEP, BLUE, SEP]
    assert encoded["input_ids"][1] == [CLS, RED, RED, RED, SEP, BLUE, HAT, SEP]
    assert make_encoder(max_length=8).encode([long]) == {key: rows[1:] for key, rows in encoded.items()}


def test_a_query_that_fits_exactly_without_a_product() -> None:
    encoded = make_encoder(max_length=8).encode([make_pair("red red red red red", "")])
    assert encoded["input_ids"] == [[CLS, RED, RED, RED, RED, RED, SEP, SEP]]


@given(st.lists(st.tuples(any_text, any_text), min_size=1, max_size=4))
def test_any_text_becomes_one_pair_of_segments_within_the_length(texts: list[tuple[str, str]]) -> None:
    encoder = make_encoder(max_length=16)
    pairs = [make_pair(query, title, pair_id="p") for query, title in texts]
    encoded = encoder.encode(pairs)
    for pair, ids in zip(pairs, encoded["input_ids"], strict=True):
        assert 3 <= len(ids) <= 16
        assert (ids[0], ids[-1]) == (CLS, SEP)
        query = encoder.tokenizer(well_formed(pair.query), add_special_tokens=False)["input_ids"]
        if len(query) < 13:
            assert ids[1 : len(query) + 2] == [*query, SEP]


def test_half_a_surrogate_pair_is_read_as_a_question_mark() -> None:
    encoded = make_encoder().encode([make_pair("red \ud83d", "\ude00 hat")])
    mark = VOCABULARY["?"]
    assert encoded["input_ids"] == [[CLS, RED, mark, SEP, mark, HAT, SEP]]


def test_padding_goes_to_the_longest_row() -> None:
    encoder = make_encoder()
    encoded = encoder.encode([make_pair("red", "hat"), make_pair("red shoe", "blue hat")])
    batch = encoder.pad([{key: values[row] for key, values in encoded.items()} for row in range(2)])
    assert batch["input_ids"].tolist() == [[CLS, RED, SEP, HAT, SEP, 0, 0], [CLS, RED, SHOE, SEP, BLUE, HAT, SEP]]
    assert batch["attention_mask"].tolist() == [[1] * 5 + [0] * 2, [1] * 7]


def test_saving_keeps_template_length_and_truncation(tmp_path: Path) -> None:
    encoder = make_encoder(max_length=8)
    encoder.save(tmp_path)
    loaded = PairEncoder.load(tmp_path)
    assert (loaded.template.source, loaded.max_length) == (TEMPLATE, 8)
    pairs = [make_pair("red red red red", "blue hat shoe", brand="acme"), make_pair("red", "hat")]
    assert loaded.encode(pairs) == encoder.encode(pairs)

    written = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert written["truncation"] == {"direction": "Right", "max_length": 8, "strategy": "OnlySecond", "stride": 0}
    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("red red red red", "blue hat shoe | acme")
    assert alone.ids == encoder.encode(pairs)["input_ids"][0]


def test_a_backbones_own_padding_and_length_are_not_saved(tmp_path: Path) -> None:
    encoder = make_encoder(max_length=8)
    encoder.tokenizer.backend_tokenizer.enable_padding(length=16)
    encoder.tokenizer.init_kwargs["max_length"] = 4
    encoder.save(tmp_path)
    assert len(Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("red", "hat").ids) == 5
    assert "max_length" not in json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))


def test_a_second_generation_is_the_same(tmp_path: Path) -> None:
    make_encoder(max_length=8).save(tmp_path / "first")
    PairEncoder.load(tmp_path / "first").save(tmp_path / "second")
    again = PairEncoder.load(tmp_path / "second")
    assert (again.template.source, again.max_length) == (TEMPLATE, 8)
    first, second = ((tmp_path / name / "tokenizer.json").read_text() for name in ("first", "second"))
    assert first == second


def test_a_folder_without_a_template_is_no_student(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(StudentError, match=r"tokenizer_config\.json has no product_template"):
        PairEncoder.load(tmp_path)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=rf"no tokenizer at '{tmp_path}'"):
        PairEncoder.load(tmp_path)


def test_a_tokenizer_without_a_separator_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.sep_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(StudentError, match=r"needs a fast tokenizer with a separator token"):
        PairEncoder.from_backbone(str(tmp_path), TEMPLATE, 8)


def test_unknown_words_are_unknown_tokens() -> None:
    assert make_encoder().encode([make_pair("zebra", "hat")])["input_ids"] == [[CLS, UNK, SEP, HAT, SEP]]
