from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModel, LlamaConfig, LlamaForCausalLM

from manylens.config import EmbedConfig, TuneConfig
from manylens.errors import ConfigError
from manylens.records import ESCI, Pair
from manylens.student.embed import RationaleEncoder
from manylens.student.embedding import EmbedReport, check_embedding, embed_rationales
from manylens.student.targets import Targets, mean_squared_norm
from manylens.teacher.rows import RATIONALE_SCHEMA

from .build import SEP, VOCABULARY, make_pair, make_tokenizer

PANEL = ("intent", "rules")


def make_world(count: int = 12) -> tuple[list[Pair], pa.Table]:
    """Return pairs, the last third of dev, with a right judgement of each perspective but for one wrong one."""
    things, colours = ("shoe", "hat", "sofa", "cup"), ("red", "blue", "green")
    pairs = [
        make_pair(
            f"{colours[number % 3]} {things[number % 4]}",
            f"{colours[number // 4]} lamp",
            pair_id=f"p{number}",
            label=ESCI.names[number % 4],
            split="dev" if 3 * number >= 2 * count else "train",
        )
        for number in range(count)
    ]
    rows = [
        (pair.pair_id, name, 0, label, f"{name[0]} {pair.query} {label[0]}", label == pair.label, False)
        for pair in pairs
        for name in PANEL
        for label in ["irrelevant" if (pair.pair_id, name) == ("p1", "rules") else pair.label]
    ]
    table = pa.Table.from_pylist(
        [dict(zip(RATIONALE_SCHEMA.names, row, strict=True)) for row in rows], schema=RATIONALE_SCHEMA
    )
    return pairs, table


PAIRS, TABLE = make_world()


def embed(folder: Path, encoder: str, table: pa.Table = TABLE, **options: object) -> tuple[Targets, EmbedReport]:
    config = EmbedConfig(encoder=encoder, **options)
    return embed_rationales(
        table, PAIRS, ESCI, config, encoder=encoder, cache_key="0123", panel=PANEL, seed=1, folder=folder
    )


def test_the_report_says_what_the_targets_are(backbone: str, tmp_path: Path) -> None:
    targets, report = embed(tmp_path, backbone)
    train = np.arange(12) < 8
    assert (report.rationales, report.kept_rationales, report.pairs, report.dim) == (24, 23, 12, 32)
    assert report.guided_pairs == {"train": 8, "dev": 4}
    assert (report.encoder, report.source, report.target, report.transform) == (backbone, "rationale", "mean", "centre")
    assert (report.hallucinated, report.verdict_tuning) == (None, None)
    assert report.mean_squared_norm == mean_squared_norm(targets.vectors, targets.mask, train)
    np.testing.assert_allclose(targets.vectors[train, 0].mean(axis=0), 0.0, atol=1e-6)
    json.dumps(asdict(report))


def test_the_filter_keeps_texts_but_not_votes_away(backbone: str, tmp_path: Path) -> None:
    consistent, _ = embed(tmp_path, backbone)
    everything, report = embed(tmp_path, backbone, use="all")
    assert report.kept_rationales == 24
    assert (consistent.texts[1], everything.texts[1]) == ("i blue hat s", "i blue hat s\nr blue hat i")
    np.testing.assert_array_equal(consistent.votes, everything.votes)
    assert consistent.votes[1].tolist() == [0.0, 0.5, 0.0, 0.5]


def test_perspectives_go_in_the_panels_order_and_others_behind(backbone: str, tmp_path: Path) -> None:
    names = ["rationalize" if name == "intent" else name for name in TABLE["perspective"].to_pylist()]
    index = TABLE.schema.get_field_index("perspective")
    table = TABLE.set_column(index, TABLE.schema.field(index), pa.array(names))
    targets, _ = embed(tmp_path, backbone, table, target="per_perspective")
    assert targets.names == ("rules", "rationalize")


def test_hallucinated_rationales_change_targets_and_votes(backbone: str, tmp_path: Path) -> None:
    before, _ = embed(tmp_path, backbone)
    after, report = embed(tmp_path, backbone, hallucinate={"rate": 0.5})
    assert report.hallucinated is not None
    assert (report.hallucinated.pairs, report.hallucinated.left) == (6, 0)
    moved = (after.votes != before.votes).any(axis=1)
    assert moved.sum() == 6
    assert [old != new for old, new in zip(before.texts, after.texts, strict=True)] == moved.tolist()
    np.testing.assert_array_equal(after.mask, before.mask)


def test_a_tuned_encoder_learns_from_training_rationales_alone_and_embeds_all(backbone: str, tmp_path: Path) -> None:
    plain, _ = embed(tmp_path, backbone)
    options = {"verdict_tuning": {"epochs": 2, "learning_rate": 1e-3, "batch_size": 4}}
    tuned, report = embed(tmp_path, backbone, **options)
    assert report.verdict_tuning is not None
    # Eight training pairs by two perspectives, the inconsistent one too: it argues for a label as well.
    assert report.verdict_tuning.rationales == 16
    assert not np.allclose(tuned.vectors, plain.vectors)
    place = tmp_path / "encoder-0123"
    texts = ["i red shoe e", "r red shoe e"]
    vectors = RationaleEncoder(str(place), tmp_path / "other.sqlite").embed(texts)
    raw, _ = embed(tmp_path, backbone, transform="none", **options)
    np.testing.assert_allclose(raw.vectors[0, 0], vectors.mean(axis=0), atol=1e-6)
    assert {file.name for file in tmp_path.glob("*.sqlite")} == {"vectors-0123.sqlite", "other.sqlite"}
    assert (place / "vectors.sqlite").exists()


def test_a_language_models_folder_is_pooled_over_its_last_hidden_states(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    torch.manual_seed(0)
    sizes = {"vocab_size": len(VOCABULARY), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(folder)
    tokenizer = make_tokenizer(token_types=False)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(folder)
    texts = ["red shoe", "blue hat sofa cup lamp"]
    vectors = RationaleEncoder(str(folder), tmp_path / "cache.sqlite").embed(texts)
    model = AutoModel.from_pretrained(folder)
    for text, vector in zip(texts, vectors, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        assert ids[0, -1] == SEP
        with torch.no_grad():
            mean = model(ids).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(vector, mean / mean.norm(), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "tune", "told"),
    [
        ({}, None, r"the recipe tunes no teacher: add a section `tune`, or name a sentence encoder"),
        ({}, TuneConfig(teachers="per_perspective"), r"needs one teacher, got tune\.teachers 'per_perspective'"),
        ({"verdict_tuning": {}}, TuneConfig(), r"embed\.verdict_tuning is for sentence encoders"),
    ],
)
def test_what_the_tuned_teacher_cannot_do_is_found_beforehand(
    options: dict[str, object], tune: TuneConfig | None, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        check_embedding(EmbedConfig(encoder="tuned_teacher", **options), tune)


def test_what_can_be_done_passes() -> None:
    check_embedding(EmbedConfig(encoder="tuned_teacher"), TuneConfig())
    check_embedding(EmbedConfig(verdict_tuning={}), None)
