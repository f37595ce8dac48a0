"""A server in a process of its own, which is stopped while nothing is asked of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from benchmarks.load.connection import HOST

from manylens.errors import StageError

_ROOT = Path(__file__).parents[2]
#: Seconds until a server must answer, those between two questions, and those that it has to end.
PATIENCE, _PAUSE, _GRACE = 120.0, 0.1, 10.0
#: Nothing is fetched, and nobody is told.
_LIBRARIES = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "true"}


class ServerError(StageError):
    """A server that cannot go on; the message is the reason that the table gives."""


def free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A server's process and what it started."""

    def __init__(
        self, command: Sequence[str], port: int, log: Path, environ: Mapping[str, str], folder: Path = _ROOT
    ) -> None:
        """Start it.

        Args:
            command: The command line.
            port: Where it will listen.
            log: Where what it prints goes.
            environ: Variables beyond our own.
            folder: Where it is started.
        """
        self.port, self._log = port, log
        with log.open("w", encoding="utf-8") as printed:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # A group of its own, which is signalled as a whole.
                env={**os.environ, **_LIBRARIES, **environ},
            )

    @property
    def memory(self) -> int:
        """Resident bytes.

        Raises:
            ServerError: If it is gone.
        """
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            raise ServerError(f"the process ended; {self._last_words()}") from None

    def wait_until_ready(self, patience: float = PATIENCE) -> None:
        """Wait until it answers ``/health``.

        Raises:
            ServerError: If it ends first, or takes longer than `patience` seconds.
        """
        late = time.monotonic() + patience
        while time.monotonic() < late:
            if self._process.poll() is not None:
                raise ServerError(f"did not start: {self._last_words()}")
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://{HOST}:{self.port}/health", timeout=_GRACE) as answer,
            ):
                if answer.status == 200:
                    return
            time.sleep(_PAUSE)
        raise ServerError(f"did not start within {patience:.0f} s: {self._last_words()}")

    def stop(self) -> None:
        """Stop it until it is asked for."""
        self._signal(signal.SIGSTOP)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run within the block.

        Raises:
            ServerError: If it ended meanwhile.
        """
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)
        if self._process.poll() is not None:
            raise ServerError(f"the process ended; {self._last_words()}")

    def close(self) -> None:
        """End it, with what it started."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
