"""Perspectives: the instructions from which a teacher judges, and the prompts made of them.

A perspective is a Jinja template that extends ``perspective.jinja``. Its prompt is two chat messages:
a system message that every pair shares, so that a backend's prefix cache pays, and a user message
with the pair. A template never sees the gold label.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from jinja2 import PackageLoader, StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from manylens.errors import PromptError, UnknownNameError
from manylens.records import LabelScale, Pair, Perspective
from manylens.teacher.answers import AnswerFormat, format_answer, format_json, label_line

#: Chat messages as every backend and TRL take them: ``[{"role": ..., "content": ...}, ...]``.
Messages = list[dict[str, str]]

#: The packaged perspectives.
PERSPECTIVES: tuple[str, ...] = ("user_intent", "structured_analysis", "business_rules")

_SUFFIX = ".jinja"
_LAYOUT = f"perspective{_SUFFIX}"
#: What a template sees of a pair. The gold label is not among it: the teacher judges blind.
_VISIBLE_FIELDS = ("query", "title", "brand", "attributes", "description", "locale")
_DESCRIPTION = re.compile(r"\A\s*\{#-?\s*(.*?)\s*-?#\}", re.DOTALL)
#: What an expression of a template can raise while it renders.
_RENDER_ERRORS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)


class Example(NamedTuple):
    """A worked example for the prompt (few-shot); a template may also set its own, with a mapping as the pair."""

    pair: Pair | Mapping[str, object]
    rationale: str
    label: str


class Prompt:
    """A perspective made ready to prompt for many pairs: compiled, its system message rendered once."""

    def __init__(
        self,
        perspective: Perspective,
        scale: LabelScale,
        examples: Sequence[Example] = (),
        *,
        answer_format: AnswerFormat = "text",
    ) -> None:
        """Render what all pairs share.

        Args:
            perspective: The instruction.
            scale: The labels to choose from; their definitions are printed.
            examples: Worked examples, printed in the system message.
            answer_format: The form that the answer is asked for; a backend knows its own.

        Raises:
            PromptError: If the template is wrong, or its system message looks at the pair.
        """
        self._perspective, self._scale = perspective, scale
        self._examples = [(_visible(pair), rationale, label) for pair, rationale, label in examples]
        self._template = _compile(perspective, answer_format)
        self._system = self._render("system", {})

    def messages(self, pair: Pair) -> Messages:
        """Return the chat messages that ask for a judgement of `pair`.

        Raises:
            PromptError: If the template cannot be rendered for this pair.
        """
        return [
            {"role": "system", "content": self._system},
            {"role": "user", "content": self._render("user", {"pair": _visible(pair)})},
        ]

    def _render(self, role: str, variables: Mapping[str, object]) -> str:
        try:
            text = self._template.render(role=role, scale=self._scale, examples=self._examples, **variables)
        except _RENDER_ERRORS as error:
            hint = "; the system message sees scale and examples, the user message sees pair too"
            raise PromptError(
                f"perspective {self._perspective.name!r}, {_place(error)}: cannot render the {role} message: {error}"
                + (hint if isinstance(error, UndefinedError) else "")
            ) from error
        return re.sub(r"\n{3,}", "\n\n", text.strip())


def load_perspective(name_or_path: str) -> Perspective:
    """Load a packaged perspective by name, or one's own from a ``.jinja`` file.

    Args:
        name_or_path: A name of `PERSPECTIVES`, ``"neutral"``, or a path that ends in ``.jinja``; the file's
            stem becomes the name, and a leading ``{# ... #}`` the description.

    Returns:
        The perspective, its template compiled once to see that it can be.

    Raises:
        UnknownNameError: If no packaged perspective has this name.
        PromptError: If the file cannot be read, or is not a template of a perspective.
    """
    if not name_or_path.endswith(_SUFFIX):
        return _packaged(name_or_path)
    path = Path(name_or_path)
    try:
        template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: expected a UTF-8 text file with a perspective's template: {error}") from error
    return _perspective(path.stem, template)


def render_prompt(
    perspective: Perspective,
    pair: Pair,
    scale: LabelScale,
    examples: Sequence[Example] = (),
    *,
    answer_format: AnswerFormat = "text",
) -> Messages:
    """Return the chat messages for one pair; `Prompt` does the same for many.

    Raises:
        PromptError: If the template is wrong or cannot be rendered.
    """
    return Prompt(perspective, scale, examples, answer_format=answer_format).messages(pair)


def prompt_hash(messages: Messages) -> str:
    """Return the SHA-256 of chat messages, as hex digits."""
    return hashlib.sha256(json.dumps(messages, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _packaged(name: str) -> Perspective:
    known = (*PERSPECTIVES, "neutral")
    if name not in known:
        raise UnknownNameError("perspective", name, known)
    file = resources.files("manylens.teacher") / "prompts" / f"{name}{_SUFFIX}"
    return _perspective(name, file.read_text(encoding="utf-8"))


def _perspective(name: str, template: str) -> Perspective:
    comment = _DESCRIPTION.match(template)
    description = " ".join(comment[1].split()) if comment else ""
    perspective = Perspective(name=name, description=description, template=template)
    _compile(perspective)
    return perspective


def _compile(perspective: Perspective, answer_format: AnswerFormat = "text") -> Template:
    environment = _environment(answer_format)
    try:
        tree = environment.parse(perspective.template)
        if tree.find(nodes.Extends) is None:
            raise PromptError(
                f'perspective {perspective.name!r}: expected a template that begins with {{% extends "{_LAYOUT}" %}} '
                "and fills its block 'instruction'"
            )
        return environment.from_string(tree)
    except TemplateSyntaxError as error:
        raise PromptError(f"perspective {perspective.name!r}, line {error.lineno}: {error.message}") from error


@functools.cache
def _environment(answer_format: AnswerFormat) -> ImmutableSandboxedEnvironment:
    # Globals, because an imported macro sees them and no other variable: an own block that calls
    # macros.answer_format(scale) prints the right form, too.
    environment = ImmutableSandboxedEnvironment(
        loader=PackageLoader("manylens.teacher", "prompts"),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters["one_line"] = _one_line
    environment.globals.update(
        label_line=label_line,
        format_json=format_json,
        as_json=answer_format == "json",
        example_answer=functools.partial(_example_answer, format_json if answer_format == "json" else format_answer),
    )
    return environment


def _one_line(text: str) -> str:
    """Join the lines of a field, so that no field of a product can pass for a line of the prompt."""
    return " ".join(text.split())


def _example_answer(form: Callable[[str, str], str], rationale: str, label: str, scale: LabelScale) -> str:
    if label not in scale.names:
        raise ValueError(f"an example has the label {label!r}, which is not one of {list(scale.names)}")
    return form(rationale, label)


def _visible(pair: Pair | Mapping[str, object]) -> Mapping[str, object]:
    if isinstance(pair, Pair):
        return {name: getattr(pair, name) for name in _VISIBLE_FIELDS}
    return pair


def _place(error: BaseException) -> str:
    """Return the template and line where rendering failed; Jinja puts template frames into the traceback."""
    place, traceback = "the template", error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file == "<template>":
            place = f"line {traceback.tb_lineno}"
        elif file.endswith(_SUFFIX):
            place = f"{Path(file).name} line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


#: The unified teacher's prompt: the same labels and fields, and no perspective.
NEUTRAL: Perspective = _packaged("neutral")
