"""Who judges: a section for each backend."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from manylens.config.base import Options, Section


class SamplingConfig(Section):
    """How a model's answers are drawn.

    Attributes:
        temperature: 0 takes the likeliest token each time, so that every sample would be the same.
        top_p: Mass of the likeliest tokens that are drawn from.
        max_tokens: Most tokens of an answer, the thinking included.
        seed: The first seed; each sample and each further attempt has one of its own.
    """

    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(default=512, ge=1)
    seed: int = Field(default=13, ge=0)


class PriceConfig(Section):
    """US dollars for a million tokens; an unknown price is unknown, not zero."""

    input: float | None = Field(default=None, ge=0.0)
    output: float | None = Field(default=None, ge=0.0)


class RecordedTeacher(Section):
    """A teacher whose judgements stand in a file.

    Attributes:
        path: The file; ``None`` means ``judgements.jsonl`` beside the data.
    """

    backend: Literal["recorded"] = "recorded"
    path: str | None = None

    @property
    def answer_format(self) -> Literal["text"]:
        """The form that answers take, which the prompts ask for."""
        return "text"


class _ModelOptions(Section):
    """What every model that generates understands.

    Attributes:
        sampling: How answers are drawn.
        chat_template_kwargs: Variables of the model's chat template, such as ``{"enable_thinking": false}``.
    """

    sampling: SamplingConfig = SamplingConfig()
    chat_template_kwargs: Options = {}


class OpenAITeacher(_ModelOptions):
    """Any server that speaks OpenAI's chat completions: OpenAI, vLLM, SGLang, Ollama, llama.cpp and others.

    Attributes:
        model: The model's name at the server; it is the teacher's identity, wherever the server is.
        base_url: Where the API is, up to and including ``/v1``.
        api_key_env: Name of the environment variable that holds the key; the key itself never enters a recipe.
        price: For ``manylens plan`` and budgets.
        tokenizer: A tokenizer by id or path, to count prompt tokens beforehand; ``None`` estimates them.
        structured_output: Constrain answers to a JSON object with rationale and label: ``response_format``
            is OpenAI's way, ``structured_outputs`` vLLM's own.
        extra_body: Further keys of the request's body, passed word for word.
        timeout: Seconds for one request.
        max_concurrency: Most requests in flight; fewer while the server says that it is overloaded.
        max_attempts: Tries of a request that meets a passing fault (429, 5xx, a broken connection).
    """

    operational = frozenset(
        {"base_url", "api_key_env", "price", "tokenizer", "timeout", "max_concurrency", "max_attempts"}
    )

    backend: Literal["openai"]
    model: str = Field(min_length=1)
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str = "OPENAI_API_KEY"
    price: PriceConfig = PriceConfig()
    tokenizer: str | None = None
    structured_output: Literal["off", "response_format", "structured_outputs"] = "off"
    extra_body: Options = {}
    timeout: float = Field(default=600.0, gt=0.0)
    max_concurrency: int = Field(default=64, ge=1)
    max_attempts: int = Field(default=8, ge=1)

    @property
    def answer_format(self) -> Literal["text", "json"]:
        """The form that answers take, which the prompts ask for."""
        return "text" if self.structured_output == "off" else "json"


class TransformersOptions(_ModelOptions):
    """Generation in this process with transformers.

    Attributes:
        dtype: Of the weights; ``auto`` takes the model's own.
        device: Such as ``cuda:0``; ``None`` takes the best there is.
        batch_size: Prompts in one generation.
    """

    operational = frozenset({"device", "batch_size"})

    backend: Literal["transformers"] = "transformers"
    dtype: str = "auto"
    device: str | None = None
    batch_size: int = Field(default=16, ge=1)

    @property
    def answer_format(self) -> Literal["text"]:
        """The form that answers take, which the prompts ask for."""
        return "text"


class VllmOptions(_ModelOptions):
    """Generation in this process with vLLM.

    Attributes:
        engine: Passed word for word to `vllm.LLM`, such as ``{"tensor_parallel_size": 2}``.
        structured_output: Constrain answers to a JSON object with rationale and label.
        batch_size: Prompts handed over at a time; vLLM schedules within them.
    """

    operational = frozenset({"batch_size"})

    backend: Literal["vllm"]
    engine: Options = {}
    structured_output: bool = False
    batch_size: int = Field(default=1024, ge=1)

    @property
    def answer_format(self) -> Literal["text", "json"]:
        """The form that answers take, which the prompts ask for."""
        return "json" if self.structured_output else "text"


class _LocalModel(Section):
    """A model that is loaded here.

    Attributes:
        model: A Hugging Face model by id or path.
        adapter: A LoRA adapter's folder.
        price: Of the machine, for a million tokens.
    """

    model: str = Field(min_length=1)
    adapter: str | None = None
    price: PriceConfig = PriceConfig()


class TransformersTeacher(TransformersOptions, _LocalModel):
    """A local model, run by transformers; small models run on a CPU."""

    operational = TransformersOptions.operational | {"price"}

    backend: Literal["transformers"]


class VllmTeacher(VllmOptions, _LocalModel):
    """A local model, run by vLLM on GPUs."""

    operational = VllmOptions.operational | {"price"}


TeacherConfig = Annotated[
    RecordedTeacher | OpenAITeacher | VllmTeacher | TransformersTeacher, Field(discriminator="backend")
]
