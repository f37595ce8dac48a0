from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from manylens.run_folder import RunFolder
from tiny import TinyShop

from .test_runs import assert_one_line

Cli = Callable[..., Result]


@pytest.fixture
def copy(finished: RunFolder, tmp_path: Path) -> Path:
    """A copy of the run that was not exported."""
    return Path(shutil.copytree(finished.path, tmp_path / "run"))


@pytest.fixture
def exported(exported_run: RunFolder, tmp_path: Path) -> Path:
    """A copy of the run that was."""
    return Path(shutil.copytree(exported_run.path, tmp_path / "exported"))


def test_export_a_run_whose_recipe_asked_for_none(cli: Cli, copy: Path) -> None:
    done = cli("export", copy, "--set", "export.variants=[onnx_fp32]", "--set", "export.calibration_pairs=8")
    assert done.exit_code == 0, done.output
    assert "on 16 dev pairs" in done.stdout and "onnx_fp32" in done.stdout and "PyTorch" in done.stdout
    assert done.stdout.endswith(f"export: {copy / 'export'}\n")
    assert done.stderr.startswith("export ─► ") and "current" not in done.stderr
    variants = json.loads((copy / "export" / "classes" / "manylens.json").read_text())["variants"]
    assert variants == ["onnx/model.onnx"]

    again = cli("export", copy)
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert again.stderr == "export: current, skipped\n"
    status = cli("status", copy)
    assert status.stdout.count("done") == 7 and "export/" in status.stdout


def test_run_with_the_section_ends_with_the_parity(cli: Cli, shop: TinyShop, exported: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**shop.recipe(), "export": {"variants": ["onnx_fp32"]}}))
    done = cli("run", recipe, "--run", exported, "--until", "export")
    assert done.exit_code == 0, done.output
    assert "LRKD (mlp)" in done.stdout and "lrkd-seed13 on 16 dev pairs" in done.stdout
    assert done.stderr.count("current, skipped") == 7


def test_help(cli: Cli) -> None:
    told = " ".join(cli("export", "--help").stdout.split())
    assert "RUN" in told and "--set" in told and "KEY=VALUE" in told
    assert "each compared with PyTorch before it is handed out" in told


def test_export_tells_what_is_wrong(
    cli: Cli, finished: RunFolder, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_one_line(cli("export", tmp_path / "absent"), "is not a run folder", "manylens run RECIPE")
    assert_one_line(cli("export", copy, "--set", "student.extractor=gat"), "settings of its own section alone")
    only_int8 = cli("export", copy, "--set", "export.variants=[onnx_int8]")
    assert_one_line(only_int8, "variants must have onnx_fp32 among them")
    with finished.locked():
        assert_one_line(cli("export", finished.path), "another process is running in")
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else name)
        missing = cli("export", copy, "--set", "export.variants=[onnx_fp32, openvino_int8]")
    assert_one_line(missing, "openvino is not installed; run: pip install 'manylens[openvino]'")
    (copy / "evaluate" / "done.json").unlink()
    assert_one_line(cli("export", copy), "stage evaluate is to do; run its recipe again")
    assert not (copy / "export").exists()


def test_a_variant_that_is_too_far_is_named_with_its_figure_and_the_limit(cli: Cli, exported: Path) -> None:
    failed = cli("export", exported, "--set", "export.fp32.logit_max=1e-30", "--set", "export.fp32.logit_mean=null")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "onnx_fp32: logit_max is " in failed.stderr and "at most 1e-30 is allowed" in failed.stderr
    assert f"All figures are in {exported / 'export' / 'parity.json'}" in failed.stderr
    assert not (exported / "export" / "classes").exists()
