"""Virtual environments of peers whose pins clash with ours, kept in the cache folder."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

from manylens.errors import StageError
from manylens.files import cache_folder, write_text

PEERS = Path(__file__).parent / "peers"
_READY, _FAILED = "ready", "failed"


def environments() -> list[str]:
    """Return the names of all environments."""
    return sorted(path.stem for path in PEERS.glob("*.txt"))


def folder_of(name: str) -> Path:
    """Return an environment's folder, which goes by its pins."""
    pins = hashlib.sha256((PEERS / f"{name}.txt").read_bytes()).hexdigest()
    return cache_folder() / "bench-venvs" / f"{name}-{pins[:12]}"


def prepare(name: str) -> bool:
    """Make an environment, unless it is there.

    The pins are all that is installed: what a package asks for beyond them is left out on purpose.

    Args:
        name: A file of `peers`.

    Returns:
        Whether it is there; the reason why not is kept for `interpreter`.
    """
    folder = folder_of(name)
    if (folder / _READY).exists():
        return True
    venv.create(folder, clear=True)
    pip = [sys.executable, "-m", "pip", "--python", str(_python(folder))]
    install = [*pip, "install", "--no-deps", "--requirement", str(PEERS / f"{name}.txt")]
    done = subprocess.run(install, text=True, stderr=subprocess.PIPE, check=False)
    if done.returncode == 0:
        write_text(folder / _READY, "")
        return True
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or ["ERROR: pip failed"]
    write_text(folder / _FAILED, errors[-1].removeprefix("ERROR:").strip())
    return False


def interpreter(name: str) -> str:
    """Return the Python of an environment, or of this process for an empty name.

    Raises:
        StageError: If the environment is not there, or could not be made.
    """
    if not name:
        return sys.executable
    folder = folder_of(name)
    if (folder / _FAILED).exists():
        raise StageError(f"not installed: {(folder / _FAILED).read_text(encoding='utf-8')}")
    if not (folder / _READY).exists():
        raise StageError("not installed; run: python -m benchmarks.serving --prepare")
    return str(_python(folder))


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
