"""A BERT so small that what is left of a request is the server."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from manylens.student.pretrained import resolve_pretrained


def make_backbone(folder: Path) -> Path:
    """Save one layer of random weights with MiniLM's tokenizer, unless it is there, and return the folder."""
    if not folder.exists():
        tokenizer = AutoTokenizer.from_pretrained(resolve_pretrained("minilm"))
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
        )
        tokenizer.save_pretrained(str(folder))
        BertModel(config).save_pretrained(str(folder))
    return folder
