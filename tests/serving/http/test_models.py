from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from manylens.errors import StudentError
from manylens.serving import Scorer
from manylens.serving.http.errors import RequestError
from manylens.serving.http.metrics import Metrics
from manylens.serving.http.models import Models
from manylens.serving.http.settings import parse_models
from serving.http.conftest import make_settings
from serving.http.engine import SlowEngine, slow_scorer
from student.build import make_pair


def test_a_request_ends_on_the_model_that_it_began_with(exported: Path) -> None:
    engines = [SlowEngine(), SlowEngine()]
    engines[1].value = 0.5
    unused = iter(engines)

    def load(path: Path) -> Scorer:
        engine = next(unused)
        engine.release()
        return slow_scorer(exported, engine)

    models = Models(make_settings(exported), Metrics(), load)

    async def run() -> None:
        engines[0]._began.get()
        old = models.default
        before = asyncio.create_task(old.batcher.probabilities([make_pair()]))
        await engines[0].began()
        assert await models.reload() == {"tiny": True}
        new = models.default
        assert new is not old
        engines[1].release()
        assert (await new.batcher.probabilities([make_pair()])).table[0, 0] == 0.5
        assert not before.done()
        engines[0].release()
        assert (await before).table[0, 0] == 0.25
        while models._retired:
            await asyncio.sleep(0.001)
        with pytest.raises(RuntimeError, match="after shutdown"):
            await old.batcher.probabilities([make_pair()])
        await models.close()

    asyncio.run(run())


@pytest.mark.parametrize("failure", [StudentError("it is damaged"), MemoryError(), RuntimeError("odd")], ids=repr)
def test_a_reload_that_fails_keeps_what_works(
    exported: Path, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    results: list[Exception | None] = [None, failure]

    def load(path: Path) -> Scorer:
        result = results.pop(0)
        if result is not None:
            raise result
        return Scorer.load(path, variant="onnx_fp32", threads=1)

    models = Models(make_settings(exported), Metrics(), load)
    old = models.default

    async def run() -> None:
        assert await models.reload() == {"tiny": False}
        assert models.default is old
        assert (await old.batcher.probabilities([make_pair()])).table.shape == (1, 4)
        await models.close()

    asyncio.run(run())
    record = caplog.records[-1]
    assert record.levelno == logging.ERROR
    assert record.fields["reason"] == (str(failure) if isinstance(failure, StudentError) else repr(failure))  # type: ignore[attr-defined]


def test_a_folder_under_two_names_is_loaded_once(exported: Path) -> None:
    loaded: list[Path] = []

    def load(path: Path) -> Scorer:
        loaded.append(path)
        return Scorer.load(path, variant="onnx_fp32", threads=1)

    models = Models(make_settings(models={"a": exported, "b": exported, "c": exported / "classes"}), Metrics(), load)
    assert loaded == [exported.resolve(), exported.resolve() / "classes"]
    assert [(model.name, model.aliases) for model in models] == [("a", ("b",)), ("c", ())]
    assert models.get("b") is models.get(None) is models.get("") is models.default
    with pytest.raises(RequestError) as refused:
        models.get("d")
    assert (refused.value.status, refused.value.message) == (404, "there is no such model; known: a, b, c")
    asyncio.run(models.close())


def test_models_are_named_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_models(["shop=runs/demo", "runs/other"]) == {"shop": Path("runs/demo"), "other": Path("runs/other")}
    assert parse_models(["."]) == {tmp_path.name: Path(".")}
