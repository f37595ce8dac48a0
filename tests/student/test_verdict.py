from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback

from manylens.config import VerdictTuning
from manylens.errors import StudentError
from manylens.records import ESCI
from manylens.student import verdict
from manylens.student.embed import RationaleEncoder
from manylens.student.verdict import VerdictReport, tune_encoder

#: The verdict is one word, told among words that say nothing of it.
VERDICTS = dict(zip(ESCI.names, ("red", "blue", "green", "10"), strict=True))
RATIONALES = [
    (f"{thing} {word} {other}", label)
    for label, word in VERDICTS.items()
    for thing in ("shoe", "hat", "sofa", "cup", "lamp")
    for other in ("acme", "size", "hat", "cup")
]
CONFIG = VerdictTuning(epochs=4, learning_rate=3e-3, batch_size=8)


def tune(backbone: str, folder: Path, rationales: list[tuple[str, str]] = RATIONALES, seed: int = 1) -> VerdictReport:
    return tune_encoder(rationales, ESCI, backbone, CONFIG, batch_size=16, seed=seed, folder=folder)


def contents(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def tuned(backbone: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, VerdictReport]:
    folder = tmp_path_factory.mktemp("verdict") / "encoder"
    return folder, tune(backbone, folder)


def separation(vectors: np.ndarray) -> float:
    """Return how much closer rationales of one verdict are to each other than to those of others, in cosine."""
    labels = np.array([label for _, label in RATIONALES])
    same = labels[:, None] == labels
    cosines = vectors @ vectors.T
    return float(cosines[same].mean() - cosines[~same].mean())


def test_the_tuned_encoder_puts_the_rationales_of_a_verdict_together(
    backbone: str, tuned: tuple[Path, VerdictReport], tmp_path: Path
) -> None:
    folder, report = tuned
    assert (report.rationales, report.majority, report.steps) == (80, 0.25, 40)
    assert report.accuracy > 0.9
    texts = [text for text, _ in RATIONALES]
    before = RationaleEncoder(backbone, tmp_path / "before.sqlite").embed(texts)
    after = RationaleEncoder(str(folder), tmp_path / "after.sqlite").embed(texts)
    assert separation(after) > separation(before) + 0.2


def test_it_is_an_ordinary_sentence_transformers_folder(tuned: tuple[Path, VerdictReport], tmp_path: Path) -> None:
    folder, _ = tuned
    texts = [text for text, _ in RATIONALES[:5]]
    plain = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(RationaleEncoder(str(folder), tmp_path / "c.sqlite").embed(texts), plain, atol=1e-5)
    assert not (folder / "checkpoints").exists()


def test_a_finished_encoder_is_not_trained_again(backbone: str, tuned: tuple[Path, VerdictReport]) -> None:
    folder, report = tuned
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert tune(backbone, folder, [*RATIONALES[::-1], RATIONALES[0]]) == report  # A repeated one says nothing new.
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def test_other_rationales_train_anew_and_take_nothing_up(
    backbone: str, tuned: tuple[Path, VerdictReport], tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    tune(backbone, folder, RATIONALES[:8])
    (folder / "vectors.sqlite").write_text("of the old weights", encoding="utf-8")
    assert tune(backbone, folder) == tuned[1]
    assert not (folder / "vectors.sqlite").exists()
    assert contents(folder) == contents(tuned[0])


class _Stop(TrainerCallback):
    """Dies in the third epoch, as a kill would."""

    def on_step_end(self, args: object, state: object, control: object, **kwargs: object) -> None:
        if state.global_step == 25:
            raise KeyboardInterrupt


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(
    backbone: str, tuned: tuple[Path, VerdictReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "encoder"
    build = verdict._trainer

    def dying(*arguments: object) -> object:
        trainer = build(*arguments)
        trainer.add_callback(_Stop())
        return trainer

    with monkeypatch.context() as patched:
        patched.setattr(verdict, "_trainer", dying)
        with pytest.raises(KeyboardInterrupt):
            tune(backbone, folder)
    (checkpoint,) = (folder / "checkpoints").glob("checkpoint-*")
    assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == 20
    assert not (folder / "verdict.json").exists()
    assert tune(backbone, folder) == tuned[1]
    assert contents(folder) == contents(tuned[0])


def test_without_rationales_there_is_nothing_to_tune_on(backbone: str, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"embed\.verdict_tuning needs rationales of training pairs, got none"):
        tune(backbone, tmp_path, [])
