"""A run folder: where the outputs of the stages lie, and how one knows that they are current.

runs/NAME/
config.yaml        the recipe as it was run
run.json           versions, machine, and time and peak memory of every stage
<stage>/...        outputs
<stage>/done.json  the stage's fingerprint, written last and atomically
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout

from manylens.config import Config
from manylens.errors import StageError
from manylens.files import write_json, write_text
from manylens.recipe import dump_config, load_config

StageState = Literal["done", "stale", "to do"]
_PACKAGES = ("manylens", "torch", "transformers", "sentence-transformers", "trl", "datasets", "numpy", "pyarrow")


def fingerprint(*parts: object) -> str:
    """Return the SHA-256 of JSON-able parts, in canonical form."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content; a file that did not change since it was last asked is not read again."""
    found = path.stat()
    return _content_hash(path.resolve(), found.st_size, found.st_mtime_ns)


@cache
def _content_hash(path: Path, size: int, modified: int) -> str:
    # Size and time are part of the key alone: a study asks for the same backbone once for each of its students.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a block of work took.

    Attributes:
        seconds: Wall time.
        peak_memory_mib: Largest resident memory of this process, sampled ten times a second.
    """

    seconds: float
    peak_memory_mib: float


class _Sampler:
    """Watches this process's memory from a thread."""

    def __init__(self) -> None:
        self._process, self._stop, self.peak = psutil.Process(), threading.Event(), 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._start = time.monotonic()
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self._look()

    def _look(self) -> None:
        self.peak = max(self.peak, self._process.memory_info().rss)

    def stop(self) -> Usage:
        self._stop.set()
        self._thread.join()
        self._look()
        seconds = round(time.monotonic() - self._start, 2)
        return Usage(seconds=seconds, peak_memory_mib=round(self.peak / 2**20, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentPlace:
    """One student of a run.

    Attributes:
        method: The method's name.
        seed: The training seed.
    """

    method: str
    seed: int

    @property
    def name(self) -> str:
        """The student's name within the run."""
        return f"{self.method}-seed{self.seed}"

    @property
    def place(self) -> str:
        """Its model folder, relative to the run folder."""
        return f"distil/{self.name}"


class RunFolder:
    """A run's configuration and the places of its outputs.

    Attributes:
        path: The folder.
        config: The recipe.
    """

    def __init__(self, path: str | Path, config: Config) -> None:
        """Point to a folder, which need not exist yet."""
        self.path, self.config = Path(path), config

    @classmethod
    def of(cls, config: Config, path: str | Path | None = None) -> RunFolder:
        """Point to the run folder of a recipe, ``runs/NAME`` by default; it need not exist yet."""
        return cls(path or Path("runs") / config.name, config)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open the folder of an earlier run.

        Raises:
            StageError: If it is not a run folder.
        """
        recipe = Path(path) / "config.yaml"
        if not recipe.is_file():
            raise StageError(f"{path} is not a run folder: it has no config.yaml; make one with: manylens run RECIPE")
        return cls(path, load_config(recipe))

    def students(self) -> list[StudentPlace]:
        """Return the students of the recipe: the wanted method's first, then the baselines', by seed."""
        student = self.config.student
        methods = (student.method, *student.baselines)
        return [StudentPlace(method=method, seed=seed) for method in methods for seed in student.seeds]

    @property
    def model(self) -> Path:
        """The folder of the wanted method's first student: a plain Hugging Face model."""
        return self.path / self.students()[0].place

    def stage(self, name: str) -> Path:
        """Return the folder of a stage, made where it does not exist."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def state(self, name: str, wanted: str) -> StageState:
        """Return whether a stage's outputs are those of the fingerprint `wanted`."""
        done = self.done(name)
        if done is None:
            return "to do"
        return "done" if done["fingerprint"] == wanted else "stale"

    def done(self, name: str) -> dict[str, Any] | None:
        """Return what ``done.json`` of a stage says, or ``None``."""
        try:
            value: dict[str, Any] = json.loads((self.path / name / "done.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return value

    def unmark(self, names: Iterable[str]) -> None:
        """Take the marks of stages away, so that they run again."""
        for name in names:
            (self.path / name / "done.json").unlink(missing_ok=True)

    @contextmanager
    def running(self, name: str, wanted: str) -> Iterator[Path]:
        """Run a stage: take its mark away, and write it again after the block has ended well.

        Args:
            name: The stage.
            wanted: Its fingerprint.

        Yields:
            The stage's folder.
        """
        folder = self.stage(name)
        self.unmark([name])
        sampler = _Sampler()
        try:
            yield folder
        finally:
            usage = sampler.stop()
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"stage": name, "fingerprint": wanted, "finished": finished, **vars(usage)}
        self._record(name, record)
        write_json(folder / "done.json", record)

    def start(self, wanted: Mapping[str, str]) -> None:
        """Write ``config.yaml``, and into ``run.json`` what is known of the machine and wanted of the stages.

        Args:
            wanted: The fingerprint of each stage.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        record = self.record()
        record |= {"name": self.config.name, "seed": self.config.seed, **_machine(), "wanted": dict(wanted)}
        record.setdefault("stages", {})
        write_json(self.path / "run.json", record)
        write_text(self.path / "config.yaml", dump_config(self.config))

    def require(self, name: str) -> None:
        """Make sure that the last run in this folder came to the end of a stage.

        It reads no input files, so a run folder may have been moved to another machine.

        Raises:
            StageError: If the stage's outputs are missing, or those of an earlier recipe.
        """
        state = self.state(name, self.record().get("wanted", {}).get(name, ""))
        if state != "done":
            raise StageError(
                f"{self.path}: stage {name} is {state}; run its recipe again, it goes on where it was: "
                f"manylens run {self.path / 'config.yaml'} --run {self.path}"
            )

    def record(self) -> dict[str, Any]:
        """Return ``run.json``, empty before the first run."""
        try:
            value: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return value

    def _record(self, name: str, entry: Mapping[str, Any]) -> None:
        record = self.record()
        record["stages"][name] = dict(entry)
        write_json(self.path / "run.json", record)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second process.

        Raises:
            StageError: If another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StageError(f"another process is running in {self.path}; wait for it, or use --run DIR") from None
        try:
            yield
        finally:
            lock.release()


def _machine() -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "versions": versions,
        "machine": {
            "platform": platform.platform(),
            "processors": os.cpu_count(),
            "memory_mib": psutil.virtual_memory().total // 2**20,
            "accelerator": _accelerator(),
        },
    }


def _accelerator() -> str | None:
    """Return the GPU's name, once the checks of a recipe have loaded PyTorch."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
