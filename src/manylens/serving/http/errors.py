"""What a request may be refused for, and the one shape in which the server says so.

Every answer that is no success is ``{"error": message, "error_type": type}``, as text-embeddings-inference has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

#: The types of error by status; what is not here is ``Internal``.
ERROR_TYPES: Mapping[int, str] = {
    401: "Unauthorized",
    404: "NotFound",
    405: "NotFound",
    408: "Timeout",
    413: "Validation",
    415: "Validation",
    422: "Validation",
    424: "Backend",
    429: "Overloaded",
    503: "Unhealthy",
    504: "Timeout",
}
#: The fields that tell the shapes of a body apart.
SHAPES = ("documents", "texts", "inputs", "products")
#: Most problems of a body that one message lists.
_PROBLEMS = 3
#: How pydantic calls the alternative of a string in a list of products.
_PRODUCT = "ProductFields"


class RequestError(Exception):
    """A request that is refused.

    Attributes:
        status: The status of the answer.
        message: What was expected, what came, and the fix.
        headers: Headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Word the error."""
        self.status, self.message, self.headers = status, message, dict(headers or {})
        super().__init__(message)

    def response(self) -> Response:
        """Return the answer."""
        body = {"error": self.message, "error_type": ERROR_TYPES.get(self.status, "Internal")}
        return Response(to_json(body), self.status, self.headers, "application/json")


def invalid(problems: Sequence[Mapping[str, Any]]) -> RequestError:
    """Return the error of a body that does not fit its contract.

    Args:
        problems: What pydantic found.
    """
    words = dict.fromkeys(filter(None, map(_problem, problems)))
    shown = [*words][:_PROBLEMS]
    if len(words) > _PROBLEMS:
        shown.append(f"and {len(words) - _PROBLEMS} more")
    return RequestError(422, "; ".join(shown))


def _problem(problem: Mapping[str, Any]) -> str:
    """Word one of pydantic's problems; where it lists every alternative that did not fit, say it once."""
    place, message = [part for part in problem["loc"] if part != "body"], str(problem["msg"])
    # Of a body with two shapes the first part names the shape, and the second the field.
    if len(place) > 1 and place[0] in SHAPES and isinstance(place[1], str):
        place = place[1:]
    if place[:1] == ["inputs"]:
        return "inputs: expected a query and a text, or a list of such pairs, all of them strings"
    if place[-1:] == ["str"]:
        return ""
    if place[-1:] == [_PRODUCT]:
        message = "expected a string, or an object with a title"
    return f"{'.'.join(str(part) for part in place if part != _PRODUCT) or 'body'}: {message}"


async def on_refused(request: Request, error: Exception) -> Response:
    """Answer a request that our own code refuses."""
    assert isinstance(error, RequestError)
    return error.response()


async def on_invalid(request: Request, error: Exception) -> Response:
    """Answer a body that does not fit its contract."""
    assert isinstance(error, RequestValidationError)
    return invalid(error.errors()).response()


async def on_http(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    return RequestError(error.status_code, str(error.detail), error.headers).response()
