from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from manylens.errors import UnknownNameError
from manylens.student import EXTRACTORS, GUIDE_LOSSES, METHODS, LatentReasoningForSequenceClassification
from manylens.student.extractors import build_extractor

from .build import make_model

PAGE = (Path(__file__).parents[2] / "docs/student.md").read_text(encoding="utf-8")
LOADING, ELSEWHERE, OWN = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_loading_examples_run(student_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"folder": str(student_folder)}
    exec(LOADING, names)
    exec(ELSEWHERE, names)
    assert "'irrelevant': " in capsys.readouterr().out
    assert tuple(names["logits"].shape) == (1, 4)


@pytest.mark.parametrize("name", [*METHODS, *GUIDE_LOSSES])
def test_every_method_and_guide_loss_is_described(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_own_extractor_is_trained_saved_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, "max", EXTRACTORS["mlp"])  # so that the entry vanishes after the test
    exec(OWN, {"__name__": "own"})
    assert EXTRACTORS["max"].__name__ == "MaxExtractor"
    model = make_model(extractor="max")
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[2, 5, 3, 6, 3]])
    loaded = LatentReasoningForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    monkeypatch.delitem(EXTRACTORS, "max")
    with pytest.raises(UnknownNameError, match="unknown extractor 'max'"):
        LatentReasoningForSequenceClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["mlp", "poly", "gat"])
def test_the_table_of_parameters_is_true(name: str) -> None:
    extractor = build_extractor(name, 768, 1, 1024)
    total = sum(parameter.numel() for parameter in extractor.parameters())
    projection = sum(parameter.numel() for parameter in extractor.to_latents.parameters())
    assert f"| `{name}` | {total - projection:,} | {projection:,} | {total:,} |" in PAGE


def test_every_extractor_graph_and_option_is_on_the_page() -> None:
    assert [f"**`{name}`**" in PAGE for name in EXTRACTORS] == [True, True, True]
    options = ("pooling", "width", "codes", "layers", "heads", "edges", "full", "query_product", "window")
    assert [option for option in options if f"`{option}" not in PAGE] == []
