"""Asking a teacher for new perspectives, from pairs that its panel gets wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from manylens.config import OpenAITeacher, RecordedTeacher, TeacherConfig, VllmTeacher
from manylens.data import Pairs
from manylens.data.spill import gather
from manylens.errors import ConfigError, TeacherError
from manylens.files import write_text
from manylens.records import Judgement, LabelScale, Pair, Perspective
from manylens.teacher.backends import Answer, Backend, Request
from manylens.teacher.judge import judgements_of
from manylens.teacher.judgements import by_pair
from manylens.teacher.perspectives import NEUTRAL, Messages, Prompt, prompt_hash
from manylens.teacher.proposals import read_proposals, write_perspectives
from manylens.teacher.store import JudgementStore
from manylens.teacher.votes import vote

#: Least room for an answer: several instructions, and what a thinking model thinks before them.
MIN_TOKENS = 4096

#: The file beside the proposed perspectives that keeps the teacher's answer.
KEPT = "proposal.json"

#: Train pairs among which errors of the panel are looked for.
_LOOKED_AT = 4096
_TEMPLATE = "tools/propose.jinja"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A pair that the teacher is shown.

    Attributes:
        pair: The pair, with its gold label where it has one.
        judgements: What the panel said; empty where it was not asked.
        wrong: Whether the majority's label is not the gold label.
        text: Query and product as prompts show them.
    """

    pair: Pair
    judgements: tuple[Judgement, ...]
    wrong: bool
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposed:
    """What came of asking.

    Attributes:
        files: The new perspectives.
        shown: Pairs that the teacher was shown.
        errors: Those on which the panel's majority is wrong.
        refused: Objects of the answer that were left out for want of a name or an instruction.
    """

    files: tuple[Path, ...]
    shown: int
    errors: int
    refused: int


def propose(
    train: Pairs,
    panel: Sequence[Perspective],
    scale: LabelScale,
    backend: Backend,
    proposer: Backend,
    store: JudgementStore,
    folder: Path,
    *,
    count: int,
    shown: int,
    seed: int,
) -> Proposed:
    """Ask a teacher for new perspectives, and write them as files.

    Args:
        train: Pairs of the train split; dev is left to measure what comes of it.
        panel: The perspectives so far.
        scale: The labels.
        backend: The teacher that judged, whose errors are looked up in the store; it is not asked.
        proposer: The same teacher as `proposing_teacher` has it.
        store: Where the panel's judgements are; it may be empty.
        folder: Where the perspectives and the raw answer are written.
        count: How many perspectives to ask for.
        shown: How many pairs to show.
        seed: Chooses the pairs.

    Returns:
        The files, and what was left out.

    Raises:
        TeacherError: If the teacher does not answer, the answer holds no perspective, or a file would be overwritten.
    """
    sample = sample_pairs(train, _LOOKED_AT, seed)
    cases = choose_cases(sample, judgements_of(sample, panel, scale, backend, store), scale, shown)
    text = ask_once(proposal_messages(cases, panel, scale, count), proposer, folder)
    proposals, refused = read_proposals(text)
    if not proposals:
        raise TeacherError(
            "the teacher's answer holds no perspective; expected a JSON array of objects with name, description and "
            f"instruction; read it in {folder / KEPT}, and ask again with another folder for --out"
        )
    files = write_perspectives(proposals, folder, [perspective.name for perspective in panel])
    errors = sum(case.wrong for case in cases)
    return Proposed(files=tuple(files), shown=len(cases), errors=errors, refused=refused)


def proposing_teacher(config: TeacherConfig) -> TeacherConfig:
    """Return the teacher's section for an answer that is a list of perspectives.

    Args:
        config: The recipe's section.

    Returns:
        The same teacher, not held to the form of a judgement, with room for at least `MIN_TOKENS` tokens.

    Raises:
        ConfigError: If the teacher is a file of recorded judgements.
    """
    if isinstance(config, RecordedTeacher):
        raise ConfigError(
            "teacher.backend: recorded judgements cannot propose anything; give a teacher that can be asked, such as "
            "openai, vllm or transformers"
        )
    sampling = config.sampling.model_copy(update={"max_tokens": max(MIN_TOKENS, config.sampling.max_tokens)})
    changed: dict[str, Any] = {"sampling": sampling}
    if isinstance(config, OpenAITeacher):
        changed["structured_output"] = "off"
    elif isinstance(config, VllmTeacher):
        changed["structured_output"] = False
    return config.model_copy(update=changed)


def sample_pairs(pairs: Pairs, count: int, seed: int) -> Pairs:
    """Draw pairs at random, without replacement.

    Args:
        pairs: The pairs to draw from.
        count: How many; all where there are no more.
        seed: Of the draw.

    Returns:
        The drawn pairs, in the order in which they were drawn.
    """
    drawn = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return Pairs(gather(pairs.table, drawn))


def choose_cases(pairs: Iterable[Pair], judgements: Iterable[Judgement], scale: LabelScale, count: int) -> list[Case]:
    """Choose what the teacher is shown: errors of its panel for one half, and other pairs for the rest.

    Args:
        pairs: Pairs of the train split, so that dev can measure what comes of them.
        judgements: What the panel said, in the order of `pairs`; unanswered ones count as unknown.
        scale: The labels.
        count: How many cases to choose.

    Returns:
        The cases; those with errors first. Where there are too few of one kind, the other fills up.
    """
    shown = Prompt(NEUTRAL, scale)
    wrong: list[Case] = []
    others: list[Case] = []
    for pair, judged in by_pair(pairs, judgements):
        if len(wrong) >= count and len(others) >= count:
            break
        answered = tuple(each for each in judged if each.sample == 0 and each.reason != "unanswered")
        ballot = tuple((each.perspective, each.label) for each in answered if each.label is not None)
        elected = vote(ballot, scale, dict.fromkeys((name for name, _ in ballot), 0.5), "majority")
        error = pair.label is not None and elected is not None and elected != pair.label
        kind = wrong if error else others
        if len(kind) < count:
            kind.append(Case(pair=pair, judgements=answered, wrong=error, text=shown.messages(pair)[-1]["content"]))
    half = max(count - len(others), (count + 1) // 2)
    chosen = wrong[:half]
    return chosen + others[: count - len(chosen)]


def proposal_messages(
    cases: Sequence[Case], perspectives: Sequence[Perspective], scale: LabelScale, count: int
) -> Messages:
    """Return the chat messages that ask for new perspectives.

    Args:
        cases: The pairs to learn from.
        perspectives: The panel so far.
        scale: The labels.
        count: How many perspectives to ask for.

    Returns:
        A system message with labels and panel, and a user message with the pairs.
    """
    environment = Environment(
        loader=PackageLoader("manylens.teacher", "prompts"),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["one_line"] = lambda text: " ".join(text.split())
    template = environment.get_template(_TEMPLATE)
    variables = {"cases": cases, "perspectives": perspectives, "scale": scale, "count": count}
    return [{"role": role, "content": template.render(role=role, **variables).strip()} for role in ("system", "user")]


def ask_once(messages: Messages, backend: Backend, folder: Path) -> str:
    """Ask the teacher, and keep its answer in the folder before anything is made of it.

    Args:
        messages: The question.
        backend: The teacher.
        folder: Where `KEPT` is written; an answer to the same question that it holds already is taken instead.

    Returns:
        The raw answer.

    Raises:
        TeacherError: If the folder holds the answer to another question, or the teacher does not answer.
    """
    path = folder / KEPT
    question = {"teacher": backend.name, "sampling": backend.sampling, "prompt_hash": prompt_hash(messages)}
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if {name: kept.get(name) for name in question} == question:
            return str(kept["text"])
        raise TeacherError(f"{path} keeps the answer to another question; give another folder with --out")
    request = Request(pair_id="", perspective="propose", messages=messages, prompt_hash=question["prompt_hash"])
    ((_, answer),) = backend.ask(iter([request]))
    if answer is None:
        raise TeacherError("the teacher did not answer; run the same command again")
    _keep(path, question, messages, answer)
    return answer.text


def _keep(path: Path, question: dict[str, str], messages: Messages, answer: Answer) -> None:
    record = {
        **question,
        "text": answer.text,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "finish_reason": answer.finish_reason,
        "messages": messages,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=2))
