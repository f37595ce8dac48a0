from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray

from manylens.errors import MissingExtraError, StudentError
from manylens.serving.engines import Engine, OnnxEngine, OpenVinoEngine, build_engine, torch_engine
from manylens.serving.engines.protocol import physical_cores
from manylens.serving.layout import CLASSES, VARIANTS
from manylens.student import Student
from student.build import make_encoder, make_model, make_pairs

ENGINES = ("onnx_fp32", "onnx_int8", "openvino_bf16", "openvino_int8", "torch")
#: How far probabilities are from those of the student.
FAITHFUL = {"onnx_fp32": 1e-5, "onnx_int8": 0.05, "openvino_bf16": 0.01, "openvino_int8": 0.05, "torch": 1e-6}


@pytest.fixture(scope="module")
def engine_of(exported: Path, student_folder: Path) -> Callable[..., Engine]:
    def build(variant: str, threads: int | None = 2) -> Engine:
        if variant == "torch":
            return torch_engine(student_folder, device="cpu")
        return build_engine(variant, exported / CLASSES, threads=threads)

    return build


@pytest.fixture(scope="module")
def student(student_folder: Path) -> Student:
    return Student.load(student_folder, device="cpu")


def batches(student: Student) -> list[dict[str, NDArray[np.int64]]]:
    """Return batches of several shapes."""
    columns = student.encoder.encode(make_pairs(12))
    rows = [{key: values[index] for key, values in columns.items()} for index in range(12)]
    padded = [student.encoder.pad(rows[start : start + size]) for start, size in enumerate((1, 3, 2, 4, 4, 1))]
    return [{key: array.numpy() for key, array in batch.items()} for batch in padded]


def expected(student: Student, batch: dict[str, NDArray[np.int64]]) -> torch.Tensor:
    with torch.inference_mode():
        return student.model(**{key: torch.from_numpy(array) for key, array in batch.items()})


@pytest.mark.parametrize("variant", ENGINES)
def test_an_engine_computes_what_the_student_does(
    engine_of: Callable[..., Engine], student: Student, variant: str
) -> None:
    engine = engine_of(variant)
    assert set(engine.inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    assert engine.outputs == ("logits", "probabilities", "latents")
    for alone in (False, True):
        for batch in batches(student):
            results, reference = engine.run(batch, alone=alone), expected(student, batch)
            assert set(results) == set(engine.outputs)
            atol = FAITHFUL[variant]
            np.testing.assert_allclose(results["probabilities"], reference.logits.softmax(-1), atol=atol)
            np.testing.assert_allclose(results["latents"], reference.latents, atol=20 * atol)
            assert {array.dtype for array in results.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("variant", ENGINES)
def test_threads_share_an_engine(engine_of: Callable[..., Engine], student: Student, variant: str) -> None:
    engine = engine_of(variant)
    work = batches(student) * 8
    apart = [engine.run(batch)["probabilities"] for batch in work]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: engine.run(batch)["probabilities"].copy(), work))
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("variant", ENGINES[:4])
def test_threads_are_streams(engine_of: Callable[..., Engine], variant: str) -> None:
    assert [engine_of(variant, threads).streams for threads in (1, 3, None)] == [1, 3, physical_cores()]


def test_torch_takes_its_threads(student_folder: Path) -> None:
    before = torch.get_num_threads()
    try:
        engine = torch_engine(student_folder, device="cpu", threads=before + 1)
        assert (engine.streams, torch.get_num_threads()) == (1, before + 1)
    finally:
        torch.set_num_threads(before)


def test_a_student_without_an_extractor_has_no_latents(tmp_path: Path) -> None:
    make_model(extractor=None).save_pretrained(tmp_path)
    make_encoder().save(tmp_path)
    engine = torch_engine(tmp_path, device="cpu")
    assert engine.outputs == ("logits", "probabilities")
    batch = {name: np.ones((1, 4), dtype=np.int64) for name in engine.inputs}
    assert set(engine.run(batch)) == {"logits", "probabilities"}


@pytest.mark.parametrize(
    ("variant", "module", "message"),
    [
        ("onnx_fp32", "onnxruntime", r"onnxruntime is not installed; run: pip install 'manylens\[serve\]'"),
        ("openvino_bf16", "openvino", r"openvino is not installed; run: pip install 'manylens\[openvino\]'"),
        ("torch", "manylens.serving.engines.torch", r"is not installed; run: pip install 'manylens\[train\]'"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, variant: str, module: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=message):
        engine_of(variant)


@pytest.mark.parametrize("engine", [OnnxEngine, OpenVinoEngine])
def test_a_damaged_file_is_named(engine: Callable[..., Engine], tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    for write in (lambda: None, lambda: file.write_bytes(b"nothing of the sort")):
        write()
        with pytest.raises(StudentError, match=rf"{file} cannot be loaded: [\s\S]*; export the student again"):
            engine(file)


def test_openvino_is_asked_for_a_precision_that_the_cpu_has(exported: Path) -> None:
    known = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    file = exported / CLASSES / VARIANTS["openvino_bf16"]
    assert OpenVinoEngine(file, precision="bf16", threads=1).precision == ("bf16" if "BF16" in known else "f32")
    assert OpenVinoEngine(file, precision="u2", threads=1).precision == OpenVinoEngine(file, threads=1).precision


def test_ctrl_c_is_an_interrupt_after_engines_have_come_and_gone(exported: Path) -> None:
    code = f"""
import os, time
from pathlib import Path
from manylens.serving.engines import build_engine
first, second = (build_engine(name, Path({str(exported / CLASSES)!r})) for name in ("openvino_int8", "openvino_bf16"))
del first
del second
try:
    os.kill(os.getpid(), 2)
    time.sleep(1)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "interrupted"), done.stderr
