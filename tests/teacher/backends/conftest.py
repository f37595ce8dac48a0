from __future__ import annotations

from pathlib import Path

import pytest

from tiny_teacher import make_teacher


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher whose answers differ between prompts: it does not just repeat the token that it read last."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = make_teacher(tmp_path_factory.mktemp("teacher") / "tiny")
    model = AutoModelForCausalLM.from_pretrained(folder, tie_word_embeddings=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.2, generator=generator)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= 30
            layer.mlp.down_proj.weight *= 30
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def adapter(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of `teacher`, as PEFT saves it, that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter") / "lora"
    torch.manual_seed(1)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(teacher), lora).save_pretrained(folder)
    return folder
