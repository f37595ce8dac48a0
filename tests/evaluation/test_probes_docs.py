import re
from pathlib import Path

import numpy as np
import pytest

from manylens.student import Student
from student.build import DIM, make_encoder, make_model, make_pairs

PAGE = Path(__file__).parents[2] / "docs/probes.md"


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    random = np.random.default_rng(0)
    names: dict[str, object] = {
        "student": Student(make_model(extractor="mlp"), make_encoder()),
        "baseline": Student(make_model(extractor=None), make_encoder()),
        "pairs": make_pairs(40),
        "rationales": [" ".join(random.choice(["durable", "wrong", "suits"], 2)) for _ in range(40)],
        "target_vectors": random.normal(size=(30, DIM)),
        "target_labels": random.integers(0, 4, 30),
        "target_queries": [f"t{index}" for index in range(30)],
        "gold": random.integers(0, 4, 40),
    }
    exec(example.replace("rounds=30", "rounds=2"), names)
    printed = capsys.readouterr().out
    assert "durable" in printed and "PairedDifference(difference=" in printed and "lrkd 50 " in printed
