"""Questions: what a panel is asked, and what the answers to a question say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from manylens.errors import ConfigError
from manylens.records import Judgement, LabelScale, Pair, Perspective
from manylens.teacher.answers import AnswerFormat, parse_answer
from manylens.teacher.backends import Answer, Backend, Request
from manylens.teacher.perspectives import Prompt, prompt_hash
from manylens.teacher.store import JudgementStore, Key


def requests_of(
    pairs: Iterable[Pair],
    perspectives: Sequence[Perspective],
    scale: LabelScale,
    samples: int = 1,
    *,
    answer_format: AnswerFormat = "text",
) -> Iterator[Request]:
    """Yield the questions that a panel is asked: by pair, then by perspective, then by sample.

    Args:
        pairs: The pairs to judge.
        perspectives: The panel.
        scale: The labels to choose from.
        samples: Judgements per pair and perspective.
        answer_format: The form that the answers are asked for; `Backend.answer_format`.

    Yields:
        The requests.

    Raises:
        ConfigError: If two perspectives have the same name.
        PromptError: If a prompt cannot be rendered.
    """
    names = [perspective.name for perspective in perspectives]
    if len(set(names)) != len(names):
        raise ConfigError(f"judge.perspectives: each needs a name of its own, got {names}; rename a file")
    prompts = [
        (perspective.name, Prompt(perspective, scale, answer_format=answer_format)) for perspective in perspectives
    ]
    for pair in pairs:
        for name, prompt in prompts:
            messages = prompt.messages(pair)
            digest = prompt_hash(messages)
            for sample in range(samples):
                yield Request(
                    pair_id=pair.pair_id, perspective=name, sample=sample, messages=messages, prompt_hash=digest
                )


def key_of(request: Request, backend: Backend) -> Key:
    """Return the key under which the store keeps the answer to a request."""
    return Key(
        pair_id=request.pair_id,
        perspective=request.perspective,
        sample=request.sample,
        attempt=request.attempt,
        teacher=backend.name,
        sampling=backend.sampling,
        prompt_hash=request.prompt_hash,
    )


def judgement_of(request: Request, answer: Answer | None, backend: Backend, scale: LabelScale) -> Judgement:
    """Return what a backend's answer to a request says.

    Args:
        request: The question.
        answer: What came back; ``None`` makes a placeholder whose reason is ``"unanswered"``, not to be stored.
        backend: Who answered.
        scale: The labels to look for.

    Returns:
        The judgement, with the answer's raw text.
    """
    key = key_of(request, backend)._asdict()
    if answer is None:
        return Judgement(**key, label=None, reason="unanswered", rationale="", raw="")
    parsed = parse_answer(answer.text, scale, answer.finish_reason)
    return Judgement(
        **key,
        label=parsed.label,
        reason=parsed.reason,
        rationale=parsed.rationale,
        raw=answer.text,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        finish_reason=answer.finish_reason,
    )


def attempts_of(
    request: Request, backend: Backend, scale: LabelScale, store: JudgementStore, retry_unparsed: int = 0
) -> list[Judgement]:
    """Return the stored attempts at a question, up to the first that holds a label.

    The raw answers are read anew, so that a better parser needs no new answers.

    Args:
        request: The question, at attempt 0.
        backend: The teacher; it is not asked anything.
        scale: The labels to look for.
        store: Where the judgements are.
        retry_unparsed: Further attempts to look for.

    Returns:
        The judgements by attempt; none where the question has no answer.
    """
    attempts: list[Judgement] = []
    for attempt in range(1 + retry_unparsed):
        stored = store.get(key_of(replace(request, attempt=attempt) if attempt else request, backend))
        if stored is None:
            break
        parsed = parse_answer(stored.raw, scale, stored.finish_reason)
        attempts.append(replace(stored, label=parsed.label, reason=parsed.reason, rationale=parsed.rationale))
        if parsed.label is not None:
            break
    return attempts
