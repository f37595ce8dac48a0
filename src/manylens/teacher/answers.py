"""The answer that a teacher is asked for, written and read in one place: a rationale, then a label.

    The listing says "fragrance free", which is what the query asks for ...

    Label: exact

The label stands alone on the last line. Reading never guesses: an answer that does not name exactly
one label of the scale has no label, and a reason says why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from manylens.records import LabelScale

#: Why an answer has no label: there is no text; the last line is no label line; the scale does not know the
#: label; another line names a different label; nothing but a label was said.
Reason = Literal["empty", "no_label", "unknown_label", "several_labels", "no_rationale"]

_LABEL_LINE = re.compile(r"^[^\S\n]*label[^\S\n]*:(.*)$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedAnswer:
    """What was read from an answer.

    Attributes:
        rationale: The text before the label line; the whole text where the last line is none.
        label: A label's name on the scale, or ``None``.
        reason: Why `label` is ``None``; ``None`` where there is a label.
    """

    rationale: str
    label: str | None
    reason: Reason | None


def label_line(label: str) -> str:
    """Return the last line of an answer, such as ``"Label: exact"``."""
    return f"Label: {label}"


def format_answer(rationale: str, label: str) -> str:
    """Return the answer that `parse_answer` reads back."""
    return f"{rationale.strip()}\n\n{label_line(label)}"


def format_thought(rationale: str, label: str) -> str:
    """Return the same as a think-then-respond completion, which the unified teacher is trained on."""
    return f"<think>\n{rationale.strip()}\n</think>\n\n{label_line(label)}"


def parse_answer(text: str, scale: LabelScale) -> ParsedAnswer:
    """Read a rationale and a label from a teacher's raw answer.

    Args:
        text: The raw answer.
        scale: The labels to look for; case, spaces and aliases are its business.

    Returns:
        The rationale and the label, or the reason why there is none.
    """
    text = text.strip()
    if not text:
        return ParsedAnswer(rationale="", label=None, reason="empty")
    lines = list(_LABEL_LINE.finditer(text))
    if not lines or lines[-1].end() != len(text):
        return ParsedAnswer(rationale=text, label=None, reason="no_label")
    rationale = text[: lines[-1].start()].strip()
    *earlier, label = (scale.parse(line[1]) for line in lines)
    reason: Reason | None = None
    if label is None:
        reason = "unknown_label"
    elif any(other not in (None, label) for other in earlier):
        reason = "several_labels"
    elif not rationale:
        reason = "no_rationale"
    return ParsedAnswer(rationale=rationale, label=None if reason else label, reason=reason)
