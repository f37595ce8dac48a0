"""A proxy that injects faults at set rates, and counts them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
from aiohttp import web

from servers.loopback import LoopbackServer

#: One request in ten meets a fault.
TEN_PER_CENT: Mapping[str, float] = {
    "429": 0.015,
    "500": 0.03,
    "reset": 0.02,
    "truncated": 0.02,
    "html": 0.01,
    "slow": 0.005,
}


class FaultProxy(LoopbackServer):
    """Stands before a server.

    Attributes:
        received: Requests that came.
        injected: Faults that were injected, by kind.
    """

    def __init__(self, upstream: str, rates: Mapping[str, float], *, slow: float, seed: int = 0) -> None:
        """Take the rates.

        Args:
            upstream: The server's base URL.
            rates: From a fault to its share of the requests.
            slow: Seconds that a slow answer takes; longer than the client waits.
            seed: Of the choice of faults.
        """
        self._upstream, self._slow = upstream, slow
        self._faults, self._weights = [*rates, "none"], [*rates.values(), 1.0 - sum(rates.values())]
        self._random = random.Random(seed)
        self.received = 0
        self.injected: Counter[str] = Counter()

    async def started(self) -> None:
        """Connect."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def stopped(self) -> None:
        """Disconnect."""
        await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Let a request through, or have a fault happen to it."""
        self.received += 1
        (fault,) = self._random.choices(self._faults, self._weights)
        self.injected.update([fault] if fault != "none" else [])
        if fault == "429":
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers=self._retry_after())
        if fault == "500":
            return web.json_response({"error": {"message": "out of memory"}}, status=500)
        if fault == "html":
            return web.Response(
                text="<html><body>Welcome to the hotel's network</body></html>", content_type="text/html"
            )
        if fault == "slow":
            await asyncio.sleep(self._slow)
        body = await request.read()
        async with self._session.post(f"{self._upstream}/chat/completions", data=body, headers=_JSON) as response:
            content, status = await response.read(), response.status
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
        if fault == "truncated":
            content = content[: len(content) // 2]
        return web.Response(body=content, status=status, content_type="application/json")

    def _retry_after(self) -> dict[str, str]:
        """Ask for a short pause in each of the ways that there are; a date has whole seconds."""
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
        return {"Retry-After": self._random.choice(["0", "0.05", "0.1", "0.2", date])}


_JSON = {"Content-Type": "application/json"}
