"""A local model, run by vLLM on one GPU or several: many prompts at once, their shared beginning computed once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from manylens.config import VllmTeacher
from manylens.errors import MissingExtraError, TeacherError
from manylens.teacher.answers import ANSWER_SCHEMA, AnswerFormat
from manylens.teacher.backends.local import model_identity
from manylens.teacher.backends.protocol import Answer, Request, canonical_json, request_seed
from manylens.teacher.tokens import chunks

#: The engine's options that change what is answered; the others only change how fast.
_SHAPES_ANSWERS = ("dtype", "hf_overrides", "kv_cache_dtype", "quantization", "reasoning_parser", "revision")
#: What vLLM takes as ``max_lora_rank``.
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class VllmBackend:
    """A teacher that vLLM runs in this process; the engine is started when it is first asked.

    Needs vLLM 0.11 or newer.
    """

    def __init__(self, config: VllmTeacher) -> None:
        """Take the settings; nothing is loaded yet."""
        self._config = config
        self.answer_format: AnswerFormat = config.answer_format
        self.sampling = canonical_json(
            {
                **config.sampling.model_dump(),
                "chat_template_kwargs": config.chat_template_kwargs,
                "engine": {name: config.engine[name] for name in _SHAPES_ANSWERS if name in config.engine},
                "structured_output": config.structured_output,
            }
        )

    @cached_property
    def name(self) -> str:
        """The teacher's identity: the model's id, or its folder's name and content; likewise the adapter's."""
        return f"vllm:{model_identity(self._config.model, self._config.adapter)}"

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer | None]]:
        """Answer requests, `batch_size` at a time; vLLM schedules within them.

        Args:
            requests: The questions.

        Yields:
            Each request with its answer, when the batch is done; ``None`` where vLLM gave up on one.

        Raises:
            MissingExtraError: If vLLM is not installed.
            TeacherError: If the engine does not start, or refuses a batch, as it does a prompt that is too long.
        """
        for batch in chunks(requests, self._config.batch_size):
            yield from zip(batch, self._answers(batch), strict=True)

    def _answers(self, batch: Sequence[Request]) -> list[Answer | None]:
        engine = self._engine  # First: it says so where vLLM is not installed.
        try:
            outputs = engine.chat(
                [request.messages for request in batch],
                [self._parameters(request) for request in batch],
                use_tqdm=False,
                lora_request=self._lora(),
                chat_template_kwargs=self._config.chat_template_kwargs,
            )
        except ValueError as error:
            raise TeacherError(
                f"vLLM refuses one of {len(batch)} prompts, pairs {batch[0].pair_id!r} to {batch[-1].pair_id!r}: "
                f"{error}; shorten the product's text, or raise teacher.engine.max_model_len"
            ) from error
        return [_answer(output) for output in outputs]

    def _parameters(self, request: Request) -> Any:  # noqa: ANN401 - vLLM is not installed everywhere
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        sampling, structured = self._config.sampling, self._config.structured_output
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=request_seed(sampling.seed, request),
            structured_outputs=StructuredOutputsParams(json=ANSWER_SCHEMA) if structured else None,
        )

    def _lora(self) -> Any:  # noqa: ANN401
        if self._config.adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, self._config.adapter)

    @cached_property
    def _engine(self) -> Any:  # noqa: ANN401
        try:
            from vllm import LLM
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "vllm", "vllm") from None
        config = self._config
        # Our prompts begin with what all pairs share, so vLLM computes it once where it keeps prefixes.
        options = {"enable_prefix_caching": True, **_lora_options(config.adapter), **config.engine}
        try:
            return LLM(**{**options, "model": config.model})
        except (OSError, RuntimeError, ValueError) as error:
            raise TeacherError(f"vLLM cannot start {config.model!r} with {options}: {error}") from error


def _lora_options(adapter: str | None) -> dict[str, Any]:
    """Return the engine's options for an adapter; a local one says its own rank."""
    if adapter is None:
        return {}
    file = Path(adapter, "adapter_config.json")
    rank = json.loads(file.read_text(encoding="utf-8"))["r"] if file.is_file() else _LORA_RANKS[0]
    return {"enable_lora": True, "max_lora_rank": next((most for most in _LORA_RANKS if most >= rank), rank)}


def _answer(output: Any) -> Answer | None:  # noqa: ANN401
    completion = output.outputs[0]
    if completion.finish_reason not in ("stop", "length"):
        return None
    return Answer(
        text=completion.text,
        prompt_tokens=len(output.prompt_token_ids),
        completion_tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason,
    )
