"""A Qwen3 of two small layers with random weights, and its tokenizer, built in code: a teacher for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from manylens.records import ESCI, Pair
from manylens.teacher.answers import format_thought
from manylens.teacher.perspectives import NEUTRAL, PERSPECTIVES, load_perspective, render_prompt

#: Qwen3's way of writing messages, without its tools; ``enable_thinking`` false closes the thinking at once.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_EXAMPLE = Pair(pair_id="a", query_id="a", product_id="a", query="red mug 1", title="red mug for the home")


def teacher_texts() -> list[str]:
    """Return the packaged prompts and an answer of each label, for a tokenizer to learn its words from."""
    templates = [NEUTRAL, *map(load_perspective, PERSPECTIVES)]
    prompts = [message["content"] for each in templates for message in render_prompt(each, _EXAMPLE, ESCI)]
    return prompts + [format_thought("The title says red mug.", label) for label in ESCI.names]


def make_teacher(
    folder: Path,
    *,
    texts: Iterable[str] | None = None,
    vocabulary: int = 1500,
    hidden: int = 64,
    layers: int = 2,
    positions: int = 2048,
    seed: int = 0,
) -> Path:
    """Save the model and its tokenizer, as `from_pretrained`, ``transformers serve`` and vLLM take them.

    Args:
        folder: Where to; made where it does not exist.
        texts: What the byte-level BPE tokenizer is trained on; the packaged prompts by default.
        vocabulary: Most tokens of the tokenizer.
        hidden: Hidden size; four heads, two of them for keys and values.
        layers: Layers.
        positions: Longest sequence.
        seed: Of the random weights.

    Returns:
        The folder.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator(teacher_texts() if texts is None else texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=positions,
    )
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
