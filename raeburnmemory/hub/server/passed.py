"""Answers that come from the server of a model and are passed on as they come, until whoever asked goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from ...embed.openai import TOO_MUCH
from ...errors import MemoryGraphError
from ...web import Problem
from .openai_shape import error_body, status_of
from .problems import problem_of

if TYPE_CHECKING:
    import httpx

    from ..models.passing import Passing
    from .remembering import Exchange

__all__ = ["Passed"]

Send = Callable[[Any], Awaitable[None]]

_KEPT = ("content-type", "retry-after", "retry-after-ms")  # of what a server says about its answer
_ALSO = ("openai-", "x-ratelimit-")
_OUR_FAULT = {401, 403, 407}  # the key that the hub has, which whoever asks knows nothing of


class Passed(Response):
    """The answer to one request: *choose* says who is asked, and may wait for a model to be ready.

    With an *exchange* it is a chat that is recorded, and gets something from the memory; without, the body goes as it
    came. The connection to the server is closed as soon as whoever asked is gone.
    """

    def __init__(
        self,
        choose: Callable[[], Passing],
        method: str,
        path: str,
        body: bytes | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        super().__init__()
        self._choose, self._method, self._path, self._body = choose, method, path, body
        self._exchange = exchange
        self._begun = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 - as ASGI has it
        """Ask, and pass on what comes."""
        work = asyncio.ensure_future(self._run(send))
        gone = asyncio.ensure_future(_gone(receive))
        error: BaseException | None = None
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
            ended = await asyncio.gather(work, gone, return_exceptions=True)
            error = ended[0] if isinstance(ended[0], BaseException) else None
            if self._exchange is not None:
                await asyncio.to_thread(self._exchange.end, error)
        if error is not None and not isinstance(error, asyncio.CancelledError):
            raise error

    async def _run(self, send: Send) -> None:
        try:
            passing = await asyncio.to_thread(self._choose)
            body = self._body
            if self._exchange is not None:
                body = await asyncio.to_thread(self._exchange.prepared) or body
            await self._ask(passing, body, send)
        except MemoryGraphError as exc:
            problem = problem_of(exc) or Problem(500, "Something is wrong here. The log says what.")
            if self._exchange is not None:
                self._exchange.refused(f"{type(exc).__name__}: {exc}")
            await self._fail(send, status_of(problem), problem.detail, problem.code, problem.headers)

    async def _ask(self, passing: Passing, body: bytes | None, send: Send) -> None:
        headers = {} if body is None else {"Content-Type": "application/json"}
        async with passing.opened(self._method, self._path, body, headers) as response:
            if response.status_code == 200:
                if response.headers.get("content-type", "").startswith("text/event-stream"):
                    await self._stream(response, send)
                else:
                    await self._whole(await passing.whole(response), response, send)
                return
            said = await passing.whole(response)
        text = passing.hidden(said.decode("utf-8", "replace"))
        if self._exchange is not None and TOO_MUCH.search(text) and self._exchange.without_memory():
            await self._ask(passing, self._body, send)
            return
        await self._refusal(response, text, send)

    async def _whole(self, body: bytes, response: httpx.Response, send: Send) -> None:
        if self._exchange is not None:
            self._exchange.heard(body)
            await asyncio.to_thread(self._exchange.end)  # who has the answer may look for it
        await self._start(200, {"content-type": "application/json", **response.headers}, send, len(body))
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, response: httpx.Response, send: Send) -> None:
        await self._start(200, response.headers, send)
        async for piece in response.aiter_bytes():
            if self._exchange is not None:
                self._exchange.hear(piece)
                if self._exchange.done:  # who reads [DONE] may look for what was said
                    await asyncio.to_thread(self._exchange.end)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if self._exchange is not None:
            if not self._exchange.whole and "error" not in self._exchange.call.about:
                self._exchange.refused("The server broke off its answer.")
            await asyncio.to_thread(self._exchange.end)
        await send({"type": "http.response.body", "body": b""})

    async def _refusal(self, response: httpx.Response, text: str, send: Send) -> None:
        """Pass on why a server does not answer, in the form that its clients know."""
        status, message = response.status_code, _message(text)
        if self._exchange is not None:
            self._exchange.refused(f"{status}: {message[:2000]}")
        if status in _OUR_FAULT or not 400 <= status < 600:
            said = f"The server that the hub asks answered with status {status}: {message[:500]}"
            await self._fail(send, 502, said, "upstream")
            return
        if self._exchange is not None:
            await asyncio.to_thread(self._exchange.end)
        body = text.encode() if _is_error(text) else error_body(status, message[:2000])
        await self._start(status, {**response.headers, "content-type": "application/json"}, send, len(body))
        await send({"type": "http.response.body", "body": body})

    async def _fail(
        self, send: Send, status: int, message: str, code: str | None, headers: Mapping[str, str] | None = None
    ) -> None:
        if self._exchange is not None:
            await asyncio.to_thread(self._exchange.end)
        body = error_body(status, message, code)
        if self._begun:  # the form in which OpenAI's clients look for an error in a stream
            await send({"type": "http.response.body", "body": b"data: " + body + b"\n\n"})
            return
        await self._start(status, {"content-type": "application/json", **(headers or {})}, send, len(body))
        await send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, headers: Mapping[str, str], send: Send, length: int | None = None) -> None:
        kept = {
            name.lower(): value
            for name, value in headers.items()
            if name.lower() in _KEPT or name.lower().startswith(_ALSO)
        }
        kept["cache-control"] = "no-store"
        if length is not None:
            kept["content-length"] = str(length)
        if self._exchange is not None:
            kept["x-raeburn-interaction"] = self._exchange.call.id
            kept["x-raeburn-memory"] = str(len(self._exchange.used))
        self._begun = True
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in kept.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _message(text: str) -> str:
    """Return what an error says."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return " ".join(text.split()) or "nothing"
    for name in ("error", "message", "detail"):
        if isinstance(found, Mapping) and found.get(name):
            found = found[name]
    return found if isinstance(found, str) else text


def _is_error(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    error = found.get("error") if isinstance(found, Mapping) else None
    return isinstance(error, Mapping) and isinstance(error.get("message"), str)
