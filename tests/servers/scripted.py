"""A server whose every reply the test decides."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from servers.loopback import LoopbackServer

Reply = Mapping[str, Any] | web.Response
#: From the number of a request, from 1, and its body to what it gets: a completion, or any response.
Script = Callable[[int, dict[str, Any]], Reply | Awaitable[Reply]]


def completion(content: str | None, *, finish_reason: str = "stop", **message: object) -> dict[str, Any]:
    """Return a chat completion of one choice."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **message},
        "finish_reason": finish_reason,
    }
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "tiny", "choices": [choice], "usage": usage}


def judged(number: int, body: dict[str, Any]) -> Reply:
    """Answer whatever is asked."""
    return completion("It is what the query asks for.\n\nLabel: exact")


def failed(status: int, message: str = "no", **headers: str) -> web.Response:
    """Return an error in OpenAI's form; an underscore in a header's name stands for a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"error": {"message": message, "type": "error"}}, status=status, headers=named)


class ScriptedServer(LoopbackServer):
    """Keeps what came, and replies as its script says.

    Attributes:
        script: From a request to its reply.
        bodies: The bodies of the requests.
        headers: Their headers.
        in_flight: Requests that have come and have no reply yet.
        most_in_flight: The most that there were at a time.
    """

    def __init__(self, script: Script = judged) -> None:
        """Take the script."""
        self.script, self.in_flight = script, 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.most_in_flight = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Reply to one request."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self.bodies.append(await request.json())
            self.headers.append(dict(request.headers))
            reply = self.script(len(self.bodies), self.bodies[-1])
            if inspect.isawaitable(reply):
                reply = await reply
        finally:
            self.in_flight -= 1
        return reply if isinstance(reply, web.Response) else web.json_response(dict(reply))


async def after(seconds: float, reply: Reply) -> Reply:
    """Take one's time over a reply."""
    await asyncio.sleep(seconds)
    return reply
