"""What TRL and PEFT are given: the recipe's options, what they start from, and what manylens sets itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from manylens.config import TuneConfig, VllmOptions
from manylens.errors import ConfigError, MissingExtraError
from manylens.recipe import check_options
from manylens.teacher.tune.hardware import hardware_options

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, PreTrainedConfig

#: The two ways to tune, in their order.
Phase = Literal["sft", "dpo"]

#: Where the options come from that the recipe passes on.
CONFIG_CLASSES: dict[Phase, str] = {"sft": "trl:SFTConfig", "dpo": "trl:DPOConfig"}

#: What both phases start from; `tune.sft` and `tune.dpo` override any of it.
TRAINING_DEFAULTS: dict[str, Any] = {
    "save_strategy": "steps",
    "save_steps": 0.1,  # of all steps: a killed phase loses at most a tenth
    "report_to": "none",
    "disable_tqdm": True,
}
#: What manylens sets itself. A checkpoint is only left to delete when two newer ones are whole, and no row is cut.
RESERVED_KEYS = (
    "output_dir",
    "seed",
    "data_seed",
    "max_length",
    "truncation_mode",
    "chat_template_path",
    "eval_strategy",
    "save_total_limit",
    "resume_from_checkpoint",
)
#: LoRA on every linear layer but the head (Hu et al., arXiv 2106.09685; r 16 as reported for the paper's teacher).
LORA_DEFAULTS: dict[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"}


def check_tuning(config: TuneConfig, model: str) -> None:
    """Check what tuning asks for before anything is trained; of the model, only its configuration is loaded.

    Args:
        config: The section of the recipe.
        model: The model to tune, by id or path.

    Raises:
        ConfigError: If an option is unknown or refused, the model is not to be had or too short, the adapter
            cannot be used on this machine, or answers would be generated in another form than they are trained.
        MissingExtraError: If the extra is not installed.
    """
    defaults = {**TRAINING_DEFAULTS, **hardware_options()}
    for phase, options in phases_of(config):
        check_options(options, CONFIG_CLASSES[phase], f"tune.{phase}", defaults=defaults, reserved=RESERVED_KEYS)
    if config.adapter == "none":
        if config.lora:
            raise ConfigError("tune.lora has no effect with tune.adapter none; remove one of them")
    else:
        lora_config(config.lora)
    if config.adapter == "qlora":
        _check_quantization()
    if isinstance(config.generate, VllmOptions) and config.generate.structured_output:
        raise ConfigError(
            "tune.generate.structured_output must be false: the teacher is tuned to think and then respond in text"
        )
    positions = positions_of(load_model_config(model))
    if config.max_length is not None and positions is not None and config.max_length > positions:
        raise ConfigError(
            f"tune.max_length must be at most the {positions} positions of {model!r}, got {config.max_length}"
        )


def phases_of(config: TuneConfig) -> list[tuple[Phase, dict[str, Any]]]:
    """Return the phases that are asked for, in order, with their options."""
    phases: list[tuple[Phase, dict[str, Any] | None]] = [("sft", config.sft), ("dpo", config.dpo)]
    return [(phase, options) for phase, options in phases if options is not None]


def lora_config(options: dict[str, Any]) -> LoraConfig:
    """Build PEFT's configuration.

    Raises:
        ConfigError: If it refuses an option.
        MissingExtraError: If PEFT is not installed.
    """
    try:
        from peft import LoraConfig
    except ModuleNotFoundError:
        raise MissingExtraError("peft", "teacher") from None
    try:
        return LoraConfig(**{**LORA_DEFAULTS, **options, "task_type": "CAUSAL_LM"})
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"tune.lora: expected the fields of peft.LoraConfig, got {options}: {error}") from None


def quantization_config() -> BitsAndBytesConfig:
    """Return QLoRA's quantisation: 4-bit NormalFloat, twice quantised, computed in bf16 (arXiv 2305.14314)."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def load_model_config(model: str) -> PreTrainedConfig:
    """Load a model's configuration, and nothing else of it.

    Raises:
        ConfigError: If it is not to be had.
    """
    from transformers import AutoConfig

    try:
        found: PreTrainedConfig = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ConfigError(f"tune.model {model!r} is not to be had: {error}") from error
    return found


def positions_of(config: PreTrainedConfig) -> int | None:
    """Return the longest sequence that a model takes, or ``None`` where its configuration does not say."""
    positions: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return positions


def _check_quantization() -> None:
    import torch
    from transformers.utils.import_utils import is_bitsandbytes_available

    if not torch.cuda.is_available() or not is_bitsandbytes_available():
        raise ConfigError(
            "tune.adapter qlora needs a GPU and bitsandbytes (pip install bitsandbytes); choose lora otherwise"
        )
