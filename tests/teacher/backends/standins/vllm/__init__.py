"""A stand-in for vLLM, which needs a GPU: the part of its documented API that is used, and true generation.

The signatures are those of vLLM 0.11 (`vllm.LLM`, `LLM.chat`, `vllm.SamplingParams`, `vllm.outputs`), so that
an argument which vLLM does not know fails here too. Prompts are generated one by one with transformers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams

#: The engines that were started, for a test to look at.
started: list[LLM] = []


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None


@dataclass
class RequestOutput:
    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True


class LLM:
    def __init__(
        self,
        model: str,
        *,
        dtype: str = "auto",
        quantization: str | None = None,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
        enable_prefix_caching: bool | None = None,
        enable_lora: bool = False,
        max_lora_rank: int = 16,
    ) -> None:
        if dtype not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"Unknown dtype: {dtype!r}")
        if max_lora_rank not in (1, 8, 16, 32, 64, 128, 256, 320, 512):
            raise ValueError(f"max_lora_rank {max_lora_rank} is not supported")
        self.prefix_caching, self.tensor_parallel_size = enable_prefix_caching, tensor_parallel_size
        self.lora_rank = max_lora_rank if enable_lora else None
        self.tokenizer, self.model = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
        self.max_model_len = max_model_len or self.model.config.max_position_embeddings
        self.batches: list[int] = []
        started.append(self)

    def chat(
        self,
        messages: list[list[dict[str, str]]],
        sampling_params: SamplingParams | list[SamplingParams] | None = None,
        use_tqdm: bool = True,
        lora_request: LoRARequest | None = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        if not isinstance(sampling_params, list) or len(sampling_params) != len(messages):
            raise ValueError("The lengths of prompts and sampling_params must be the same.")
        self.batches.append(len(messages))
        model = self.model if lora_request is None else self._with(lora_request)
        outputs = []
        for number, (conversation, parameters) in enumerate(zip(messages, sampling_params, strict=True)):
            prompt = self.tokenizer.apply_chat_template(
                conversation,
                add_generation_prompt=add_generation_prompt,
                return_dict=False,
                **(chat_template_kwargs or {}),
            )
            if len(prompt) > self.max_model_len:
                raise ValueError(f"The decoder prompt (length {len(prompt)}) is longer than the maximum model length")
            outputs.append(RequestOutput(str(number), prompt, [self._complete(model, prompt, parameters)]))
        return outputs

    def _with(self, lora: LoRARequest) -> PreTrainedModel:
        from peft import PeftModel

        if self.lora_rank is None:
            raise ValueError("Got lora_request but LoRA is not enabled!")
        if json.loads(Path(lora.lora_path, "adapter_config.json").read_text())["r"] > self.lora_rank:
            raise ValueError("LoRA rank is greater than max_lora_rank")
        model = AutoModelForCausalLM.from_pretrained(self.model.name_or_path)
        return PeftModel.from_pretrained(model, lora.lora_path).merge_and_unload()

    def _complete(self, model: PreTrainedModel, prompt: list[int], parameters: SamplingParams) -> CompletionOutput:
        if parameters.temperature > 0:
            torch.manual_seed(parameters.seed or 0)
            drawn = {"do_sample": True, "temperature": parameters.temperature, "top_p": parameters.top_p, "top_k": 0}
        else:
            drawn = {"do_sample": False}
        whole = model.generate(input_ids=torch.tensor([prompt]), max_new_tokens=parameters.max_tokens, **drawn)
        tokens = whole[0, len(prompt) :].tolist()
        text = self.tokenizer.decode(tokens, skip_special_tokens=parameters.skip_special_tokens)
        if parameters.structured_outputs is not None:
            keys = parameters.structured_outputs.json["properties"]
            text = json.dumps(dict(zip(keys, (text, "exact"), strict=True)))
        reason = "stop" if tokens[-1] == self.tokenizer.eos_token_id else "length"
        return CompletionOutput(0, text, tokens, reason)
