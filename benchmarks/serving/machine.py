"""The machine that is measured."""

from __future__ import annotations

import platform
import re
from pathlib import Path

_CPU = Path("/proc/cpuinfo")


def processor() -> str:
    """Return the processor's name."""
    known = _CPU.read_text(encoding="utf-8") if _CPU.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", known, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def native_bf16() -> bool:
    """Return whether the processor has instructions for products in bf16."""
    return _CPU.exists() and re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", _CPU.read_text(encoding="utf-8")) is not None
