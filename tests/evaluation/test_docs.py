import re
from pathlib import Path

import pytest

from .build import random_table

PAGE = Path(__file__).parents[2] / "docs/evaluation.md"


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    dev, test, bert = (random_table(6, 5, seed, skill) for seed, skill in ((1, 1.0), (2, 1.0), (3, 0.5)))
    exec(example, {"dev": dev, "test": test, "lrkd_tables": [test], "bert_tables": [bert]})
    assert "lrkd against bert: 6 queries, 30 pairs, 1 training seed" in capsys.readouterr().out
