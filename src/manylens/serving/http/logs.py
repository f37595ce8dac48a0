"""Logs of one JSON object a line, without a word of what users sent."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json


@dataclass(kw_only=True, slots=True)
class Trace:
    """What is known of a request by the time it is answered; endpoints fill it in.

    Attributes:
        id: The request's id, the client's own where it sent one.
        trace_id: That of OpenTelemetry, where requests are traced.
        model: The model that scored.
        pairs: Pairs that were scored.
        tokens: Their tokens, padding aside.
        queue: Seconds in the queue.
        tokenisation: Seconds of tokenising.
        inference: Seconds of inference.
        marks: By `perf_counter`, when scoring began, its pairs were tokenised, its first batch started, its last ended.
    """

    id: str
    trace_id: str = ""
    model: str = ""
    pairs: int = 0
    tokens: int = 0
    queue: float = 0.0
    tokenisation: float = 0.0
    inference: float = 0.0
    marks: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    @property
    def ids(self) -> dict[str, str]:
        """The request's id, and that of its trace where there is one, as fields of a line."""
        return {"id": self.id} | ({"trace_id": self.trace_id} if self.trace_id else {})


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return to_json(line, fallback=str).decode()


def event(log: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log something with fields of its own."""
    log.log(level, message, extra={"fields": fields})


def log_config(level: str) -> dict[str, Any]:
    """Return the settings of `logging` for a server: everything to stderr, as JSON.

    Args:
        level: The least level that is logged.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": f"{__name__}.{JsonFormatter.__name__}"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            name: {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
            for name in ("uvicorn", "manylens.serving")
        },
    }
