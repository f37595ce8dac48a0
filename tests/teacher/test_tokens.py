from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.config import OpenAITeacher, RecordedTeacher, TransformersTeacher, VllmTeacher
from manylens.errors import TeacherError
from manylens.teacher.perspectives import Messages
from manylens.teacher.tokens import TokenCounter, chunks, token_counter
from tiny_teacher import make_teacher

MESSAGES = [{"role": "system", "content": "Judge relevance."}, {"role": "user", "content": "Query: red mug"}]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def counter(teacher: Path) -> TokenCounter:
    return token_counter(TransformersTeacher(backend="transformers", model=str(teacher)))


def written_out(teacher: Path, messages: Messages, end: str = "") -> int:
    """Return the tokens of a prompt in Qwen's form, by the bare tokenizer, without a chat template."""
    from tokenizers import Tokenizer

    turns = "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
    text = f"{turns}<|im_start|>assistant\n{end}"
    return len(Tokenizer.from_file(str(teacher / "tokenizer.json")).encode(text, add_special_tokens=False))


def test_a_local_teachers_count_is_its_tokenizers(teacher: Path, counter: TokenCounter) -> None:
    assert counter.exact
    assert counter.count(MESSAGES) == written_out(teacher, MESSAGES)


def test_variables_of_the_chat_template_count(teacher: Path) -> None:
    quick = {"enable_thinking": False}
    config = VllmTeacher(backend="vllm", model=str(teacher), chat_template_kwargs=quick)
    assert token_counter(config).count(MESSAGES) == written_out(teacher, MESSAGES, "<think>\n\n</think>\n\n")


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_is_counted_as_the_tokenizer_reads_it(
    teacher: Path, counter: TokenCounter, queries: list[str]
) -> None:
    prompts = [[{"role": "user", "content": query}] for query in queries]
    assert list(counter.count_all(prompts)) == [written_out(teacher, prompt) for prompt in prompts]


def test_a_server_is_counted_exactly_where_its_tokenizer_is_named(teacher: Path) -> None:
    named = token_counter(OpenAITeacher(backend="openai", model="m", tokenizer=str(teacher)))
    unnamed = token_counter(OpenAITeacher(backend="openai", model="m"))
    assert (named.exact, named.count(MESSAGES)) == (True, written_out(teacher, MESSAGES))
    # 16 characters are 4 tokens, 14 are begun into 4 more.
    assert (unnamed.exact, unnamed.count(MESSAGES)) == (False, 8)


def test_a_recorded_teacher_is_estimated() -> None:
    assert not token_counter(RecordedTeacher()).exact


def test_a_prompt_longer_than_the_model_is_counted_whole(teacher: Path, counter: TokenCounter) -> None:
    long = [{"role": "user", "content": "red mug " * 3000}]
    assert counter.count(long) == written_out(teacher, long) > 2048


def test_a_missing_tokenizer_is_named() -> None:
    with pytest.raises(TeacherError, match="got 'nobody/nothing', which cannot be loaded"):
        token_counter(TransformersTeacher(backend="transformers", model="nobody/nothing"))


def without_template(teacher: Path, folder: Path, template: str | None) -> TransformersTeacher:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(teacher)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return TransformersTeacher(backend="transformers", model=str(folder))


def test_a_base_model_without_a_chat_template_is_refused(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="no chat template; take an instruction-tuned model"):
        token_counter(without_template(teacher, tmp_path, None))


def test_a_chat_template_that_knows_no_system_message_says_so(teacher: Path, tmp_path: Path) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    with pytest.raises(TeacherError, match="System role not supported; take another model"):
        token_counter(without_template(teacher, tmp_path, template)).count(MESSAGES)


def test_chunks_take_no_item_before_it_is_due() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(5):
            taken.append(item)
            yield item

    parts = chunks(items(), 2)
    assert (next(parts), taken) == ([0, 1], [0, 1])
    assert list(parts) == [[2, 3], [4]]
