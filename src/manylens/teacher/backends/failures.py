"""What can go wrong with a request over HTTP, and whose fault it is.

- `PassingFault`: the server's, for now: 408, 409, 425, 429, 5xx, a time-out, a broken connection, a body that
  is no completion. The request is sent again.
- `Refused`: perhaps the request's own: any other 4xx, such as a prompt that is too long. Other requests go on.
- `TeacherError`: the recipe's: a wrong key, model or address, or an account without money. The run stops.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from manylens.errors import TeacherError

_PASSING = frozenset({408, 409, 425, 429})
#: No request to this model at this address with this key will ever be answered.
_HOPELESS = frozenset({401, 402, 404, 405})
#: OpenAI's codes of a 429 that no waiting mends.
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached")
_LONGEST_MESSAGE = 300
#: A server that asks for more is taken to mean this, in seconds.
_LONGEST_PAUSE = 3600.0


class PassingFault(Exception):
    """A fault that may be over when the request is sent again.

    Attributes:
        kind: What happened, in a word or two; faults are counted by it.
        overload: Whether the server may have had too much to do.
        retry_after: Seconds for which the server wants to be left alone.
    """

    def __init__(self, kind: str, detail: str = "", *, overload: bool = False, retry_after: float = 0.0) -> None:
        """Word the fault."""
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.overload, self.retry_after = kind, overload, retry_after


class Refused(Exception):
    """The server will not answer this request.

    Attributes:
        kind: The HTTP status.
    """

    def __init__(self, kind: str, detail: str) -> None:
        """Word the refusal."""
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


def check_response(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Return if a response may hold an answer.

    Args:
        status: The HTTP status.
        headers: The response's headers.
        body: Its body; a failed one says why.

    Raises:
        PassingFault: If another try may do.
        Refused: If this request will not be answered.
        TeacherError: If no request will be; it names the status and the server's message.
    """
    if 200 <= status < 300:
        return
    kind, message = f"HTTP {status}", server_message(body)
    if status in _HOPELESS or status < 400 or (status == 429 and any(code.encode() in body for code in _NO_MONEY)):
        raise TeacherError(f"{kind}: {message}")
    if status in _PASSING or status >= 500:
        overload = status == 429 or status >= 500
        raise PassingFault(kind, message, overload=overload, retry_after=retry_after(headers.get("Retry-After")))
    raise Refused(kind, message)


def retry_after(value: str | None) -> float:
    """Return the seconds that a ``Retry-After`` header asks for (RFC 9110, section 10.2.3).

    Args:
        value: Seconds, also with a fraction, or an HTTP date; anything else asks for nothing.

    Returns:
        Seconds from now, at most an hour.
    """
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_PAUSE)


def server_message(body: bytes) -> str:
    """Return what a failed response says, on one line: the message of its JSON error, else the start of its text."""
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(key):
            value = value[key]
    message = " ".join(str(text if value is None or isinstance(value, dict) else value).split())
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[:_LONGEST_MESSAGE]} ..."
    return message or "no message"
