from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, PreTrainedModel, TrainingArguments

from manylens.records import ESCI
from manylens.student import train
from manylens.student.rows import write_rows
from manylens.student.train import train_student
from manylens.student.vocabulary import CompactEmbedding, compact, expand, used_ids

from .build import BACKBONES, PAD, SEP, VOCABULARY, make_config, make_encoder, make_pair, make_pairs, make_targets

PAIRS, DEV = make_pairs(40), make_pairs(16, seed=1)
UNUSED = VOCABULARY["z"]


def fresh(kind: str = "bert") -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModel.from_config(deepcopy(BACKBONES[kind])).eval()


def arguments(tmp_path: Path, **options: object) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **options)


def test_used_ids_are_those_of_all_rows_and_the_special_ones(tmp_path: Path) -> None:
    rows = [
        write_rows([make_pair(*texts, label="exact")], make_encoder(), ESCI, tmp_path / f"{texts[0]}.arrow")
        for texts in (("red hat", "blue hat"), ("cup", "cup"))
    ]
    words = ("[PAD]", "[CLS]", "[SEP]", "red", "blue", "hat", "cup")
    assert used_ids(rows, [PAD, SEP]).tolist() == sorted(VOCABULARY[word] for word in words)


def test_ids_of_every_tokenised_column_are_used(tmp_path: Path) -> None:
    rows = write_rows([make_pair("hat", "hat", label="exact")], make_encoder(), ESCI, tmp_path / "rows.arrow")
    rows = rows.add_column("augmented_input_ids", [[VOCABULARY["sofa"]]])
    assert VOCABULARY["sofa"] in used_ids([rows], [])


@pytest.mark.parametrize("kind", list(BACKBONES))
def test_a_compact_backbone_computes_the_same_and_comes_back_whole(kind: str, tmp_path: Path) -> None:
    model = fresh(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.tensor([[2, 5, 7, 3, 6, 3, PAD, PAD], [2, 9, 3, 5, 7, 6, 5, 3]])
    mask = (ids != PAD).long()
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=mask).last_hidden_state
        compact(model, torch.unique(ids).numpy(), arguments(tmp_path))
        assert model.get_input_embeddings().weight.shape[0] == 7
        torch.testing.assert_close(
            model(input_ids=ids, attention_mask=mask).last_hidden_state, whole, rtol=0.0, atol=0.0
        )
        model.get_input_embeddings().weight[1] += 1.0  # row 2, [CLS]
    expand(model)
    expand(model)
    after = model.state_dict()
    (changed,) = (name for name in before if not torch.equal(before[name], after[name]))
    difference = after[changed] - before[changed]
    assert torch.nonzero(difference.abs().sum(dim=1)).flatten().tolist() == [2]
    assert before.keys() == after.keys()


def test_a_row_that_was_left_out_is_never_guessed(tmp_path: Path) -> None:
    model = fresh()
    compact(model, torch.tensor([2, 3, 5]).numpy(), arguments(tmp_path))
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[2, UNUSED, 3]]))


@pytest.mark.parametrize("options", [{"weight_decay": 0.01}, {"optim": "adafactor"}])
def test_where_an_unused_row_would_move_the_table_stays_whole(options: dict[str, object], tmp_path: Path) -> None:
    model = fresh()
    compact(model, torch.tensor([2, 3, 5]).numpy(), arguments(tmp_path, **options))
    assert not isinstance(model.get_input_embeddings(), CompactEmbedding)


@pytest.mark.parametrize("max_grad_norm", [0.0, 0.05])
def test_a_training_ends_with_the_weights_of_the_whole_table(
    max_grad_norm: float, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(backbone, training={"max_grad_norm": max_grad_norm})
    folders = [tmp_path / "compact", tmp_path / "whole"]
    for folder in folders:
        train_student(PAIRS, DEV, ESCI, config, method="lrkd", seed=1, folder=folder, targets=make_targets(PAIRS))
        monkeypatch.setattr(train, "compact", lambda *_: None)
    one, other = (load_file(folder / "model.safetensors") for folder in folders)
    assert one.keys() == other.keys()
    for name in one:
        # The sum of a norm may round differently; without clipping there is none.
        torch.testing.assert_close(one[name], other[name], rtol=0.0, atol=1e-6 if max_grad_norm else 0.0)
    name = "backbone.embeddings.word_embeddings.weight"
    start = AutoModel.from_pretrained(backbone).get_input_embeddings().weight
    assert torch.equal(one[name][UNUSED], start[UNUSED]) and not torch.equal(one[name][SEP], start[SEP])
