from __future__ import annotations

import io
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from transformers import AutoTokenizer

from manylens.errors import TeacherError
from manylens.teacher.tune.lengths import fit, histogram_table, row_lengths
from tune.build import make_pairs, make_rows

#: A template that moves the end of the answer away from it.
NO_END = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}"


@pytest.fixture
def tokenizer(teacher: Path) -> Any:  # noqa: ANN401
    return AutoTokenizer.from_pretrained(teacher)


def lengths(rows: pa.Table, tokenizer: Any, **template_options: object) -> list[int]:  # noqa: ANN401
    stops = {tokenizer.eos_token_id}
    return row_lengths(rows, tokenizer, stops, description="sft unified", template_options=template_options)


def template(name: str) -> str:
    return (resources.files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def test_a_row_is_as_long_as_its_prompt_and_its_longest_answer(tokenizer: Any) -> None:  # noqa: ANN401
    rows = make_rows(make_pairs(1))
    sft, preference = rows.sft.to_pylist()[0], rows.preferences.to_pylist()[0]

    def tokens(answer: str) -> int:
        system, user = (message["content"] for message in sft["prompt"])
        text = (
            f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
            f"<|im_start|>assistant\n{answer}<|im_end|>\n"
        )
        return len(tokenizer(text)["input_ids"])

    assert lengths(rows.sft, tokenizer)[0] == tokens(sft["completion"][0]["content"])
    preference["rejected"][0]["content"] += " and more" * 9
    table = pa.Table.from_pylist([preference], schema=rows.preferences.schema)
    assert lengths(table, tokenizer) == [tokens(preference["rejected"][0]["content"])]


@pytest.mark.parametrize("name", ["qwen3", "qwen3_instruct_2507", "qwen3_5_think"])
def test_qwens_own_templates_keep_the_thinking(name: str, tokenizer: Any) -> None:  # noqa: ANN401
    tokenizer.chat_template = template(name)
    assert all(length > 100 for length in lengths(make_rows(make_pairs()).sft, tokenizer))


def test_a_template_that_drops_the_thinking_is_refused(tokenizer: Any) -> None:  # noqa: ANN401
    tokenizer.chat_template = template("deepseek_r1_distill")
    with pytest.raises(TeacherError, match=r"pair 'train0': the model's chat template drops a part of the answer"):
        lengths(make_rows(make_pairs()).sft, tokenizer)


@pytest.mark.parametrize("own", [True, False])
def test_a_prompt_that_generation_writes_otherwise_is_refused(own: bool, tokenizer: Any) -> None:  # noqa: ANN401
    if not own:
        tokenizer.chat_template = template("qwen3")
    with pytest.raises(TeacherError, match=r"enable_thinking must not be false"):
        lengths(make_rows(make_pairs()).sft, tokenizer, enable_thinking=False)


def test_an_answer_without_an_end_is_refused(tokenizer: Any) -> None:  # noqa: ANN401
    tokenizer.chat_template = NO_END
    with pytest.raises(TeacherError, match=r"no token that stops generation; set tune\.sft\.eos_token"):
        lengths(make_rows(make_pairs()).sft, tokenizer)


def table_of(number: int) -> pa.Table:
    return pa.table({"number": list(range(number))})


def test_rows_that_are_too_long_are_refused_or_dropped_and_counted() -> None:
    counts = [30, 70, 50, 71]
    with pytest.raises(TeacherError, match=r"dpo a: 2 of 4 rows are longer than the 69 tokens .* longest has 71"):
        fit(table_of(4), counts, limit=69, too_long="fail", description="dpo a")
    kept, found = fit(table_of(4), counts, limit=69, too_long="drop", description="dpo a")
    assert kept["number"].to_pylist() == [0, 2]
    assert (found.rows, found.dropped, found.limit, found.longest) == (4, 2, 69, 71)
    # 30 to 71 in at most twelve bars: a bar of 4 tokens.
    assert found.bar_width == 4
    assert found.histogram == {28: 1, 32: 0, 36: 0, 40: 0, 44: 0, 48: 1, 52: 0, 56: 0, 60: 0, 64: 0, 68: 2}


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(TeacherError, match="there is no row to train on"):
        fit(table_of(0), [], limit=None, too_long="drop", description="dpo a")
    with pytest.raises(TeacherError, match="no row has at most 9 tokens"):
        fit(table_of(1), [10], limit=9, too_long="drop", description="dpo a")


@given(st.lists(st.integers(1, 10**6), min_size=1), st.integers(1, 10**6))
def test_the_histogram_counts_every_row(counts: list[int], limit: int) -> None:
    try:
        kept, found = fit(table_of(len(counts)), counts, limit=limit, too_long="drop", description="x")
    except TeacherError:
        assert min(counts) > limit
        return
    assert kept["number"].to_pylist() == [index for index, count in enumerate(counts) if count <= limit]
    assert sum(found.histogram.values()) == len(counts) and len(found.histogram) <= 12
    for low, rows in found.histogram.items():
        assert rows == sum(low <= count < low + found.bar_width for count in counts)


def test_the_histogram_fits_a_narrow_terminal() -> None:
    _, found = fit(table_of(5), [1200, 1300, 2500, 2501, 9000], limit=None, too_long="fail", description="sft unified")
    console = Console(width=60, file=io.StringIO())
    console.print(histogram_table(found, "sft unified"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2,048 to 3,071     2  ██████████████████████████████" in text and "…" not in text
