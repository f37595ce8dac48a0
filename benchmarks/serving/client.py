"""The benchmark's side of a system in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from manylens.errors import StageError

_ROOT = Path(__file__).parents[2]
#: The longest that a command may take, in seconds; making a model is the longest.
PATIENCE = 1800.0
_LIBRARIES = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}


class WorkerError(StageError):
    """A system that cannot go on; the message is the reason that the table gives."""


class Client:
    """A worker's process; it is stopped while nothing is asked of it, so that it cannot disturb the others."""

    def __init__(self, python: str, module: str, log: Path) -> None:
        """Start the process.

        Args:
            python: The interpreter.
            module: The worker's module.
            log: Where what it prints goes.
        """
        self._log = log
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.serving.workers", module],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **_LIBRARIES},
            )
        self._process.send_signal(signal.SIGSTOP)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """Return the worker's answer to a command.

        Raises:
            WorkerError: If it says that it failed, ends, or does not answer within `PATIENCE`.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        timer = threading.Timer(PATIENCE, self._process.kill)
        timer.start()
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            self._process.send_signal(signal.SIGSTOP)
            late = not timer.is_alive()
            timer.cancel()
        if late:
            raise WorkerError(f"{command}: no answer within {PATIENCE:.0f} s")
        if not line:
            raise WorkerError(f"{command}: the process ended; {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{command}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # What it never read is still in there.
                    pipe.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
