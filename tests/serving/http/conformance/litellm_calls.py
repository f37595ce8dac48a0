"""Run by the Python of LiteLLM's own environment: makes calls and says what came of each.

Reads ``{"code": str | null, "calls": [keyword arguments]}`` from stdin; writes to the file that it is given a list of
``{"results", "error", "status", "message"}``, one for each call and then one for the code, whose ``ranking`` it takes.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse every host but this machine, and end: LiteLLM would swallow an exception."""
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", b"127.0.0.1"):
        sys.stderr.write(f"asked for {arguments[0]!r}\n")
        os._exit(70)


def outcome(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call returns or raises."""
    try:
        return {"results": call(), "error": None}
    except Exception as error:
        status = getattr(error, "status_code", None)
        return {"results": None, "error": type(error).__name__, "status": status, "message": str(error)}


def main() -> None:
    """Import LiteLLM and make the calls."""
    sys.addaudithook(watch)
    import litellm

    asked = json.load(sys.stdin)

    def ranking_of(code: str) -> list[Any]:
        names: dict[str, Any] = {}
        exec(code, names)
        return names["ranking"]  # type: ignore[no-any-return]

    outcomes = [outcome(lambda call=call: list(litellm.rerank(**call).results)) for call in asked["calls"]]
    outcomes.append(outcome(lambda: ranking_of(asked["code"])))
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(outcomes, file)


if __name__ == "__main__":
    main()
