from __future__ import annotations

import json
from pathlib import Path

import pytest

from manylens import files
from manylens.files import write_json


def test_a_crash_while_writing_json_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"old": "ü"})
    assert path.read_text(encoding="utf-8") == '{\n  "old": "ü"\n}'
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})

    def crash(source: object, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"new": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"old": "ü"}


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    for value in ({"a": 1}, {"label": "irrelevant"}):
        write_json(tmp_path / "x.json", value)
        assert json.loads((tmp_path / "x.json").read_text()) == value
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]
