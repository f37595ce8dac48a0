"""Many questions to one server at a time: sending, trying again, and knowing when to stop."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from manylens._version import __version__
from manylens.config import OpenAITeacher
from manylens.errors import ManylensError, TeacherError
from manylens.teacher.backends.chat import BrokenCompletion, read_completion, request_body
from manylens.teacher.backends.failures import PassingFault, Refused, check_response
from manylens.teacher.backends.limiter import Limiter
from manylens.teacher.backends.protocol import Answer, Request
from manylens.teacher.perspectives import prompt_hash

#: Most answers that are handed over at a time, so that the next requests are not kept waiting by a burst.
_AT_A_TIME = 4
#: The wait before the n-th further try is drawn from 0 to 0.5 * 2 ** (n - 1) seconds, at most 60: exponential
#: backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
_BACKOFF = wait_random_exponential(multiplier=0.5, max=60)
_HELLO = [{"role": "user", "content": "Say hello."}]
#: Asked to find out whether a failure is the teacher's, or the fault of what it was asked.
_PROBE = Request(pair_id="", perspective="", messages=_HELLO, prompt_hash=prompt_hash(_HELLO))


class Client:
    """A server, and the questions that it is being asked; lives in one event loop.

    Attributes:
        error: Why no further question is taken; ``None`` as long as all is well.
        retried: Faults after which a request was sent again, by kind.
        unanswered: Requests that got no answer, by the kind of their last fault.
        last_fault: What the last of those met.
    """

    def __init__(self, config: OpenAITeacher, key: str | None) -> None:
        """Prepare to ask; `exchange` connects.

        Args:
            config: The recipe's section.
            key: The API key, or ``None``.
        """
        self.error: ManylensError | None = None
        self.retried: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.last_fault = ""
        self._config, self._key = config, key
        self._url = f"{config.base_url.rstrip('/')}/chat/completions"
        self._session: aiohttp.ClientSession | None = None
        self._limiter = Limiter(config.max_concurrency)
        self._tasks: set[asyncio.Task[tuple[Request, Answer | None]]] = set()
        self._done: asyncio.Queue[asyncio.Task[tuple[Request, Answer | None]]] = asyncio.Queue()
        self._answered, self._probing, self._stopped = 0, asyncio.Lock(), asyncio.Event()
        self._retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=lambda state: self.error is not None or state.attempt_number >= config.max_attempts,
            wait=_BACKOFF,
            retry=retry_if_exception_type(PassingFault),
            before_sleep=self._count,
            reraise=True,
        )

    async def exchange(self, requests: Sequence[Request]) -> list[tuple[Request, Answer | None]]:
        """Take questions, and wait until at least one of those that were taken is done with.

        Args:
            requests: Further questions; the answers may be those to earlier ones.

        Returns:
            Questions and their answers; ``None`` where there will be none.
        """
        for request in requests:
            task = asyncio.create_task(self._ask(request))
            self._tasks.add(task)
            task.add_done_callback(self._done.put_nowait)
        done = [await self._done.get()]
        while len(done) < _AT_A_TIME and not self._done.empty():
            done.append(self._done.get_nowait())
        self._tasks.difference_update(done)
        return [task.result() for task in done]

    async def close(self) -> None:
        """Break off what is still in flight, and disconnect."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def stop(self, error: ManylensError) -> None:
        """Take no further question and try nothing again; what is in flight may come to its end."""
        self.error = self.error or error
        self._stopped.set()

    async def _ask(self, request: Request) -> tuple[Request, Answer | None]:
        answered = self._answered
        try:
            answer = await self._try(partial(self._limiter.run, partial(self._send, request)))
        except ManylensError as error:
            self.stop(self._wrong(error))
        except (PassingFault, Refused) as fault:
            self.unanswered[fault.kind] += 1
            self.last_fault = self._without_key(str(fault))
            # A refusal is suspicious until something was answered, a fault unless something was meanwhile.
            await self._suspect(0 if isinstance(fault, Refused) else answered)
        else:
            self._answered += 1
            return request, answer
        return request, None

    async def _try(self, send: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            return await send()
        except PassingFault as fault:
            first: PassingFault | None = fault

        async def again() -> Answer:
            nonlocal first
            if first is not None:
                fault, first = first, None
                raise fault
            return await send()

        # Only now, because tenacity's machinery takes as long as sending does.
        answer: Answer = await self._retrying.copy()(again)
        return answer

    async def _suspect(self, answered: int) -> None:
        """Stop if nothing was answered beyond `answered`, nor is the simplest of questions."""
        async with self._probing:
            if self.error is not None or self._answered > answered:
                return
            try:
                await self._limiter.run(partial(self._send, _PROBE))
                self._answered += 1
            except (PassingFault, Refused, ManylensError) as fault:
                self.stop(self._wrong(fault))

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)

    async def _send(self, request: Request) -> Answer:
        if self.error is not None:
            raise self.error
        if self._session is None:
            self._session = self._connect()
        body = json.dumps(request_body(self._config, request)).encode("ascii")
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                content = await response.read()
        except TimeoutError as error:
            raise PassingFault("time-out", f"no answer within {self._config.timeout:g} s", overload=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise PassingFault("connection", str(error) or type(error).__name__) from error
        check_response(response.status, response.headers, content)
        try:
            return read_completion(json.loads(content))
        except ValueError as error:
            problem = error if isinstance(error, BrokenCompletion) else f"expected JSON, got {content[:200]!r}"
            raise PassingFault("broken answer", str(problem)) from error

    def _connect(self) -> aiohttp.ClientSession:
        headers = {"Content-Type": "application/json", "User-Agent": f"manylens/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        url = urlsplit(self._url)
        # Looked up once: aiohttp's trust_env reads the environment anew for each request.
        proxy = None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # The limiter limits.
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._config.timeout),
            proxy=proxy,
        )

    def _count(self, state: RetryCallState) -> None:
        fault = state.outcome.exception() if state.outcome else None
        if isinstance(fault, PassingFault):
            self.retried[fault.kind] += 1

    def _wrong(self, error: Exception) -> TeacherError:
        return TeacherError(
            f"{self._config.base_url} does not answer for teacher.model {self._config.model!r}: "
            f"{self._without_key(str(error))}; mend teacher or the server and run again, every answer so far is kept"
        )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text
