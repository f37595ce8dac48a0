"""The answer that a teacher is asked for, written and read in one place: a rationale, then a label.

    The listing says "fragrance free", which is what the query asks for ...

    Label: exact

The label stands alone on the last line; or the answer is a JSON object with the same two parts. Either
may be preceded by thinking in ``<think>`` and ``</think>``. Reading never guesses: an answer that does not
name exactly one label of the scale has no label, and a reason says why.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from manylens.records import LabelScale
from manylens.text import well_formed

#: How an answer is written: prose and a label line, or one JSON object of `ANSWER_SCHEMA`.
AnswerFormat = Literal["text", "json"]

#: The JSON schema of an answer in the format ``json``. The rationale stands first, because a constrained
#: model writes the keys in this order and has to think before it answers.
ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"rationale": {"type": "string"}, "label": {"type": "string"}},
    "required": ["rationale", "label"],
    "additionalProperties": False,
}

#: Why an answer has no label. In the order in which they are found:
#:
#: - ``refused``: the model refused, or a content filter stopped it
#: - ``truncated``: the answer was cut at the most tokens, so what it would have said is unknown
#: - ``empty``: there is no text
#: - ``no_label``: the answer does not end with a label line, and has no JSON object with a label
#: - ``unknown_label``: what stands there is not on the scale
#: - ``several_labels``: the answer also declares a different label
#: - ``no_rationale``: nothing but a label was said
Reason = Literal["refused", "truncated", "empty", "no_label", "unknown_label", "several_labels", "no_rationale"]

#: What models put around a label without meaning anything by it.
_DECORATION = " \t\r\n*_`~#<>()[]{}\"'\u201c\u201d\u2018\u2019\u00ab\u00bb.,;!\u3002"
#: The colon may be full-width, as in Chinese and Japanese text.
_LABEL_LINE = re.compile(r"^(?:[^\S\n]|[*_`#>-])*label(?:[^\S\n]|[*_`])*[:\uff1a](.*)$", re.IGNORECASE | re.MULTILINE)
#: A Markdown code fence around the whole text.
_FENCE = re.compile(r"\A\s*(?:```|~~~)\w*[^\S\n]*(?:\n|\Z)|(?:\A|\n)[^\S\n]*(?:```|~~~)\w*\s*\Z")
#: Objects become lists of keys and values, so that a repeated key is seen; line breaks within texts are let pass.
_DECODER = json.JSONDecoder(object_pairs_hook=list, strict=False)
_OBJECT = re.compile(r'\{\s*["}]')
_THINK_TAG = re.compile(r"</?think>")


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedAnswer:
    """What was read from an answer.

    Attributes:
        rationale: What was said before the label, outside of any thinking; the thinking where nothing was. All of the
            answer where nothing in it declares a label.
        label: A label's name on the scale, or ``None``.
        reason: Why `label` is ``None``; ``None`` where there is a label.
    """

    rationale: str
    label: str | None
    reason: Reason | None


class _Declaration(NamedTuple):
    """A place in the answer that declares a label: a JSON object, or a label line, which has no rationale in it."""

    start: int
    end: int
    label: str | None
    rationale: str | None = None


def label_line(label: str) -> str:
    """Return the last line of an answer, such as ``"Label: exact"``."""
    return f"Label: {label}"


def format_answer(rationale: str, label: str) -> str:
    """Return the answer that `parse_answer` reads back."""
    return f"{rationale.strip()}\n\n{label_line(label)}"


def format_json(rationale: str, label: str) -> str:
    """Return the same as a JSON object of `ANSWER_SCHEMA`."""
    return json.dumps({"rationale": rationale.strip(), "label": label}, ensure_ascii=False)


def format_thought(rationale: str, label: str) -> str:
    """Return the same as a think-then-respond completion, which the unified teacher is trained on."""
    return f"<think>\n{rationale.strip()}\n</think>\n\n{label_line(label)}"


def parse_answer(text: str, scale: LabelScale, finish_reason: str | None = None) -> ParsedAnswer:
    """Read a rationale and a label from a teacher's raw answer.

    Harmless decoration is looked through: case, spaces, Markdown, quotes, code fences, full-width characters, and
    whatever stands around a JSON object. Label lines within the thinking are thoughts, not answers.

    Args:
        text: The raw answer.
        scale: The labels to look for; case, spaces and aliases are its business.
        finish_reason: Why the answer ended, as `records.Judgement` has it.

    Returns:
        The rationale and the label, or the reason why there is none.
    """
    thought, body = _split_thinking(text)
    said = _without_fences(body) or thought
    if finish_reason in ("content_filter", "refusal"):
        return ParsedAnswer(rationale=said, label=None, reason="refused")
    if finish_reason == "length":
        return ParsedAnswer(rationale=said, label=None, reason="truncated")
    if not said:
        return ParsedAnswer(rationale="", label=None, reason="empty")
    declarations = _declarations(body, scale)
    if not declarations:
        return ParsedAnswer(rationale=said, label=None, reason="no_label")
    *earlier, last = declarations
    if last.rationale is None and _without_fences(body[last.end :]).strip(_DECORATION):
        return ParsedAnswer(rationale=said, label=None, reason="no_label")
    within = (each.rationale for each in reversed(declarations) if each.label == last.label and each.rationale)
    rationale = next(within, "").strip() or _without_fences(body[: last.start]) or thought
    reason: Reason | None = None
    if last.label is None:
        reason = "unknown_label"
    elif any(other.label not in (None, last.label) for other in earlier):
        reason = "several_labels"
    elif not rationale:
        reason = "no_rationale"
    return ParsedAnswer(rationale=rationale, label=None if reason else last.label, reason=reason)


def _split_thinking(text: str) -> tuple[str, str]:
    """Return the thinking and what follows it; thinking that was never closed has nothing after it.

    Templates that open the thinking in the prompt leave an answer with a closing tag only.
    """
    thought, _, body = text.rpartition("</think>")
    if "<think>" in body:
        thought, body = text, ""
    return _THINK_TAG.sub("", thought).strip(), body


def _without_fences(text: str) -> str:
    return _FENCE.sub("", text).strip()


def _declarations(body: str, scale: LabelScale) -> list[_Declaration]:
    """Return every place that declares a label, in order; its label is ``None`` where the scale does not know it."""
    found, prose = [], body
    for start, end, fields in _json_objects(body):
        values: dict[str, list[Any]] = {"label": [], "rationale": [""]}
        for key, value in fields:
            values.setdefault(key.casefold(), []).append(value)
        rationale = values["rationale"][-1]
        text = well_formed(rationale) if isinstance(rationale, str) else ""
        # An object that says a key twice declares each of its labels.
        found += [_Declaration(start, end, _label(value, scale), text) for value in values["label"]]
        prose = prose[:start] + " " * (end - start) + prose[end:]
    found += [_Declaration(*line.span(), _label(line[1], scale)) for line in _LABEL_LINE.finditer(prose)]
    return sorted(found, key=lambda declaration: declaration.start)


def _json_objects(text: str) -> Iterator[tuple[int, int, list[tuple[str, Any]]]]:
    """Yield the outermost JSON objects within a text: where they start and end, and their keys and values."""
    end = 0
    while match := _OBJECT.search(text, end):
        try:
            fields, end = _DECODER.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            return  # What stands within a broken object was perhaps not said as the answer.
        yield match.start(), end, fields


def _label(value: object, scale: LabelScale) -> str | None:
    """Return the label that `value` spells, decoration aside."""
    if not isinstance(value, str):
        return None
    # The scale's own spelling first: a label may have decoration in its name.
    return scale.parse(value) or scale.parse(unicodedata.normalize("NFKC", value).strip(_DECORATION))
