"""Lengths of training rows, counted before training, so that no label is lost to truncation.

The label stands last. TRL keeps the start of a row that is too long, so a cut row would teach a rationale
without its label. Here such a row is refused, or dropped and counted; none is ever cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from rich.table import Table

from manylens.errors import TeacherError
from manylens.progress import console, meter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Columns that hold what is learnt after the prompt; a row is as long as its longest.
_ANSWERS = ("completion", "chosen", "rejected")
_BATCH = 256
#: Most bars of a histogram.
_BARS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Tokens of prompt and answer together.

    Attributes:
        rows: Rows that came.
        dropped: Of them, rows longer than `limit`.
        limit: Most tokens that a row may have; ``None`` where nothing limits it.
        longest: Tokens of the longest row that came.
        bar_width: Tokens that a bar of the histogram covers.
        histogram: Rows by the fewest tokens of their bar, from the shortest row to the longest.
    """

    rows: int
    dropped: int
    limit: int | None
    longest: int
    bar_width: int
    histogram: Mapping[int, int]


def row_lengths(
    rows: pa.Table,
    tokenizer: PreTrainedTokenizerBase,
    stops: Collection[int],
    *,
    description: str,
    template_options: dict[str, Any],
) -> list[int]:
    """Count the tokens of each row as TRL will, and check that what is trained is what is generated later.

    Args:
        rows: Of `rows.SFT_SCHEMA` or `rows.PREFERENCE_SCHEMA`.
        tokenizer: The model's, with its chat template.
        stops: Token ids that end a generation.
        description: What is counted, for the progress bar and errors.
        template_options: Variables of the chat template, as in generation.

    Returns:
        Tokens of each row.

    Raises:
        TeacherError: If the chat template drops a part of an answer, renders the prompt otherwise than for
            generation, or does not end the answer with a token that stops generation.
    """
    answers = [name for name in _ANSWERS if name in rows.column_names]
    lengths: list[int] = []

    def render(chats: list[Any], *, generation: bool) -> tuple[list[str], list[list[int]]]:
        texts: Any = tokenizer.apply_chat_template(
            chats, tokenize=False, add_generation_prompt=generation, **template_options
        )
        return texts, tokenizer(texts, add_special_tokens=False)["input_ids"]

    with meter(f"{description}: counting tokens", rows.num_rows) as bar:
        for batch in rows.to_batches(max_chunksize=_BATCH):
            chats = batch.to_pylist()
            _, prompts = render([chat["prompt"] for chat in chats], generation=True)
            longest = [0] * len(chats)
            for name in answers:
                texts, tokens = render([chat["prompt"] + chat[name] for chat in chats], generation=False)
                for at, (chat, text, prompt, ids) in enumerate(zip(chats, texts, prompts, tokens, strict=True)):
                    problem = _problem(chat[name][-1]["content"], text, prompt, ids, stops)
                    if problem:
                        raise TeacherError(f"{description}, pair {chat['pair_id']!r}: {problem}")
                    longest[at] = max(longest[at], len(ids))
            lengths += longest
            bar.advance(batch.num_rows)
    return lengths


def _problem(answer: str, text: str, prompt: list[int], ids: list[int], stops: Collection[int]) -> str | None:
    if answer not in text:
        return "the model's chat template drops a part of the answer; tune a model whose template keeps <think>"
    if ids[: len(prompt)] != prompt:
        return (
            "the model's chat template writes the prompt of a training row otherwise than the prompt of a generation; "
            "change tune.generate.chat_template_kwargs (enable_thinking must not be false), or the template"
        )
    if not any(token in stops for token in ids[len(prompt) :]):
        return (
            "the model's chat template ends the answer with no token that stops generation; set tune.sft.eos_token "
            "to the one that it ends with"
        )
    return None


def fit(
    rows: pa.Table, lengths: list[int], *, limit: int | None, too_long: Literal["fail", "drop"], description: str
) -> tuple[pa.Table, Lengths]:
    """Take out, or refuse, rows that are too long, and show the histogram.

    Args:
        rows: The rows.
        lengths: Their tokens.
        limit: Most tokens of a row; ``None`` takes any.
        too_long: What happens to a longer one.
        description: What is counted, for the messages.

    Returns:
        The rows that fit, and the lengths of all.

    Raises:
        TeacherError: If a row is too long and `too_long` is ``fail``, or no row is left.
    """
    if not lengths:
        raise TeacherError(
            f"{description}: there is no row to train on; see what curate/report.json counts, or leave the phase out"
        )
    fits = [limit is None or length <= limit for length in lengths]
    shortest, longest, width = min(lengths), max(lengths), 1
    while longest // width - shortest // width >= _BARS:
        width *= 2
    bars = Counter(length // width for length in lengths)
    found = Lengths(
        rows=len(lengths),
        dropped=fits.count(False),
        limit=limit,
        longest=longest,
        bar_width=width,
        histogram={bar * width: bars[bar] for bar in range(shortest // width, longest // width + 1)},
    )
    console.print(histogram_table(found, description))
    if found.dropped and too_long == "fail":
        raise TeacherError(
            f"{description}: {found.dropped} of {found.rows} rows are longer than the {limit} tokens that "
            f"tune.max_length or the model allows, the longest has {found.longest}; a row is never cut, because its "
            "label stands last: raise tune.max_length, or leave them out with tune.too_long: drop"
        )
    if found.dropped == found.rows:
        raise TeacherError(f"{description}: no row has at most {limit} tokens; raise tune.max_length")
    return rows.filter(pa.array(fits)), found


def histogram_table(lengths: Lengths, title: str) -> Table:
    """Draw the histogram of lengths."""
    table = Table(title=f"{title}: tokens of a row", title_justify="left", box=None)
    table.add_column("tokens", justify="right")
    table.add_column("rows", justify="right")
    table.add_column("")
    for low, count in lengths.histogram.items():
        bar = "█" * round(30 * count / max(lengths.histogram.values()))
        tokens = f"{low:,}" + (f" to {low + lengths.bar_width - 1:,}" if lengths.bar_width > 1 else "")
        table.add_row(tokens, f"{count:,}", bar or ("▏" if count else ""))
    if lengths.limit is not None:
        table.caption = f"limit {lengths.limit:,}, longest {lengths.longest:,}, too long {lengths.dropped:,}"
    return table
