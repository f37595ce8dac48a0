from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertConfig, ElectraConfig, PreTrainedConfig

from manylens.serving.engines import packed
from manylens.serving.engines.torch import TorchEngine
from student.build import make_encoder, make_model, make_pairs

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99}


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, mask and types of pairs of 5, 1 and 9 tokens."""
    mask = torch.arange(9) < torch.tensor([[5], [1], [9]])
    ids = torch.randint(1, 99, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    return ids, mask.long(), (torch.arange(9) > 3).expand_as(mask).long()


@pytest.mark.parametrize("config", [BertConfig(**SIZES), ElectraConfig(embedding_size=16, **SIZES)])
@torch.inference_mode()
def test_packed_states_are_the_padded_ones(config: PreTrainedConfig) -> None:
    assert config.model_type in packed.BACKBONES
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    other = copy.deepcopy(model)
    other.set_attn_implementation(packed.ATTENTION)
    ids, mask, types = batch()
    wanted = model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
    found = packed.packed_states(other, ids, mask, types)
    torch.testing.assert_close(found[mask.bool()], wanted[mask.bool()], atol=1e-5, rtol=0)
    assert not found[~mask.bool()].any()


def test_attention_stays_within_each_pair() -> None:
    """Of a pair of one token, attention returns its value; of two equal keys, the mean of theirs."""
    query, key = torch.randn(1, 1, 3, 4), torch.ones(1, 1, 3, 4)
    value = torch.tensor([1.0, 2.0, 4.0]).view(1, 1, 3, 1).expand(1, 1, 3, 4)
    bounds = torch.tensor([0, 1, 3], dtype=torch.int32)
    found, weights = packed.attention(torch.nn.Identity(), query, key, value, None, bounds=bounds, longest=2)
    assert weights is None and found.shape == (1, 3, 1, 4)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([1.0, 3.0, 3.0]))


@pytest.mark.parametrize("extractor", ["gat", "mlp", "poly", None])
def test_an_engine_says_the_same_packed(tmp_path: Path, extractor: str | None) -> None:
    """A CPU stands in for the GPU: all but the kernel is what a GPU runs."""
    make_model(extractor=extractor).save_pretrained(tmp_path)
    make_encoder().save(tmp_path)
    padded, whole = (TorchEngine(tmp_path, device="cpu", packed=way) for way in (None, True))
    columns = make_encoder().encode(make_pairs(7))
    rows = [{key: values[index] for key, values in columns.items()} for index in range(7)]
    arrays = {key: array.numpy() for key, array in make_encoder().pad(rows).items()}
    assert len({len(row["input_ids"]) for row in rows}) > 1, "there has to be padding"
    found = whole.run(arrays)
    for name, wanted in padded.run(arrays).items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-5)


def test_only_a_gpu_with_flash_attention_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, split = make_model(), make_model(split_layers=1)
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert packed.can_pack(whole, gpu)
    assert not packed.can_pack(whole, cpu) and not packed.can_pack(split, gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not packed.can_pack(whole, gpu)
