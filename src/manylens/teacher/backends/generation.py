"""Generation with transformers: one loaded model and its batches. Importing this module imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from manylens.config import TransformersTeacher
from manylens.errors import MissingExtraError, TeacherError
from manylens.teacher.backends.protocol import Answer, Request, request_seed
from manylens.teacher.tokens import ChatTokenizer

#: A request and the token ids of its prompt.
Prompt = tuple[Request, list[int]]

#: What a wrong id, folder, dtype or device raises; torch asserts that it was built for a device.
_LOADING_ERRORS = (OSError, ValueError, RuntimeError, AttributeError, AssertionError, SafetensorError)


class Generator:
    """A model that was loaded to answer."""

    def __init__(self, config: TransformersTeacher) -> None:
        """Load the model, its tokenizer and its adapter.

        Args:
            config: The recipe's section.

        Raises:
            MissingExtraError: If an adapter is wanted and peft is not installed.
            TeacherError: If something cannot be loaded.
        """
        self._config = config
        self._chat = ChatTokenizer(config.model, config.chat_template_kwargs)
        self._model = _load(config)
        self._positions: int | None = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        own = self._model.generation_config.eos_token_id
        own = own if isinstance(own, list) else [own]
        tokenizer = self._chat.tokenizer
        self._ends = sorted({token for token in (*own, tokenizer.eos_token_id) if token is not None})
        self._pad: int = next(token for token in (tokenizer.pad_token_id, *self._ends, 0) if token is not None)
        # The recipe alone says how answers are drawn: no repetition penalty or top_k that came with the model.
        self._model.generation_config = GenerationConfig(
            max_new_tokens=config.sampling.max_tokens, eos_token_id=self._ends or None, pad_token_id=self._pad
        )

    def encode(self, requests: Sequence[Request]) -> list[list[int]]:
        """Return the token ids of each request's prompt.

        Raises:
            TeacherError: If a prompt and the longest answer are more than the model has positions for.
        """
        prompts = self._chat.encode([request.messages for request in requests])
        room = self._config.sampling.max_tokens
        for request, ids in zip(requests, prompts, strict=True):
            if self._positions is not None and len(ids) + room > self._positions:
                raise TeacherError(
                    f"pair {request.pair_id!r}, perspective {request.perspective!r}: the prompt has {len(ids)} tokens "
                    f"and teacher.sampling.max_tokens is {room}, but the model has {self._positions} positions; "
                    "shorten the product's text or lower max_tokens"
                )
        return prompts

    @torch.inference_mode()
    def answer(self, batch: Sequence[Prompt]) -> list[Answer]:
        """Generate the answers of a batch.

        Args:
            batch: The prompts, as `encode` returned them.

        Returns:
            One answer per prompt, in order.

        Raises:
            TeacherError: If the GPU's memory runs out.
        """
        device, width = self._model.device, max(len(ids) for _, ids in batch)
        # On the left, so that every answer begins where its prompt ends.
        inputs = torch.tensor([[self._pad] * (width - len(ids)) + ids for _, ids in batch], device=device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for _, ids in batch], device=device)
        sampling, processors = self._config.sampling, LogitsProcessorList()
        if sampling.temperature > 0:
            seeds = [request_seed(sampling.seed, request) for request, _ in batch]
            processors.append(RowSampler(seeds, sampling.temperature, sampling.top_p, device))
        try:
            tokens = self._model.generate(input_ids=inputs, attention_mask=mask, logits_processor=processors)
        except torch.OutOfMemoryError as error:
            raise TeacherError(
                f"out of memory on {device} with {len(batch)} prompts of up to {width} tokens; lower "
                "teacher.batch_size and run again, every answer before this batch is kept"
            ) from error
        rows = tokens[:, width:].tolist()
        return [self._answer(ids, row) for (_, ids), row in zip(batch, rows, strict=True)]

    def _answer(self, prompt: list[int], row: list[int]) -> Answer:
        ended = next((place for place, token in enumerate(row) if token in self._ends), None)
        tokens = row if ended is None else row[: ended + 1]
        # Thinking stays in: its tags are added tokens, but no special ones.
        text = self._chat.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Answer(
            text=str(text),
            prompt_tokens=len(prompt),
            completion_tokens=len(tokens),
            finish_reason="length" if ended is None else "stop",
        )


class RowSampler(LogitsProcessor):
    """Sampling in which each row has a random generator of its own, for greedy decoding to finish.

    The argmax of logits with Gumbel noise is a draw from their softmax (Gumbel, 1954; Maddison et al., 2014,
    arXiv 1411.0030), after temperature and top_p. So an answer does not depend on which others are in its
    batch, as it does where one generator serves them all.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float, device: torch.device) -> None:
        """Seed a generator for each row.

        Args:
            seeds: A seed per row.
            temperature: Divides the logits; above 0.
            top_p: Mass of the likeliest tokens that are drawn from.
            device: Where the logits are.
        """
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
        if top_p < 1:
            self._warpers.append(TopPLogitsWarper(top_p))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return the logits, of shape (rows, vocabulary), warped and with noise."""
        warped = self._warpers(input_ids, scores)
        noise = torch.empty_like(warped)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return warped - noise.log()  # type: ignore[return-value]


def _load(config: TransformersTeacher) -> Any:  # noqa: ANN401 - a PreTrainedModel, or a PeftModel around one
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    device = config.device or best
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(config.model, dtype=config.dtype)
        if config.adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, config.adapter)
        return model.to(device).eval()
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "peft", "teacher") from None
    except _LOADING_ERRORS as error:
        adapter = f" with adapter {config.adapter!r}" if config.adapter is not None else ""
        raise TeacherError(
            f"teacher.model {config.model!r}{adapter} cannot be loaded as {config.dtype} on {device}: {error}"
        ) from error
