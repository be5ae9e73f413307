"""Asking for code that awaits: the work is done in a thread; what is to be awaited is awaited in the caller's loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ...errors import InvalidInput
from ..models.interface import AsyncChatStream, ChatStream, Messages, Reply, Said, TokenCount
from ..models.open_client import awaited
from .core import ask

if TYPE_CHECKING:
    from ...memory_graph import MemoryGraph
    from .answer import Answer, AnswerStream

__all__ = ["AsyncAnswerStream", "aask"]

T = TypeVar("T")


async def aask(memory: MemoryGraph, question: str, client: Any, **options: Any) -> Any:
    """Do what `ask` does; *client* may also be an `AsyncModelClient` or an `openai.AsyncOpenAI`.

    With *stream* an `AsyncAnswerStream` is returned. *on_token* is called in the caller's loop. When the task is
    cancelled, the model is stopped, and what it had said by then is recorded as `cancelled`.
    """
    loop = asyncio.get_running_loop()
    streamed = bool(options.pop("stream", False))
    on_token: Callable[[str], Any] | None = options.pop("on_token", None)
    listening = awaited(client, model=options.get("model"), tokenizer=options.get("tokenizer"))
    if listening is not None:
        client = _InLoop(listening, loop)
    begun = await _in_thread(lambda: ask(memory, question, client, stream=True, **options), _left)
    stream = AsyncAnswerStream(begun)
    if streamed and on_token is not None:
        raise InvalidInput("on_token is not called for a stream: iterate over it.")
    if streamed:
        return stream
    async with stream:
        async for piece in stream:
            if on_token is not None:
                on_token(piece)
        return await stream.answer()


def _left(stream: AnswerStream) -> None:
    stream.close()


async def _in_thread(work: Callable[[], T], undo: Callable[[T], Any] | None = None) -> T:
    """Do *work* in a thread, to its end even if the task is cancelled; what nobody waits for any more is undone."""
    going = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(going)
    except asyncio.CancelledError:
        # A thread cannot be stopped: the next piece of an answer may still come.
        with contextlib.suppress(Exception):
            result = await going
            if undo is not None:
                await asyncio.to_thread(undo, result)
        raise


class AsyncAnswerStream(AsyncIterator[str]):
    """`AnswerStream` for code that awaits."""

    def __init__(self, stream: AnswerStream) -> None:
        self._stream = stream
        self.query, self.sources = stream.query, stream.sources

    async def __anext__(self) -> str:
        piece = await _in_thread(lambda: next(self._stream, None))
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def answer(self) -> Answer:
        """Return the whole answer; what was not read of the stream yet is read now."""
        return await _in_thread(lambda: self._stream.answer)

    async def aclose(self) -> None:
        """Stop the model, if it still speaks."""
        await _in_thread(self._stream.close)

    async def __aenter__(self) -> AsyncAnswerStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Awaited(Protocol):
    """What `ChatClient` has, to be awaited."""

    @property
    def name(self) -> str: ...
    async def chat(self, messages: Messages, **params: Any) -> Reply: ...
    def stream_chat(self, messages: Messages, **params: Any) -> AsyncChatStream: ...
    async def count_tokens(self, text: str) -> TokenCount: ...
    async def count_messages(self, messages: Messages) -> TokenCount: ...
    async def context_length(self) -> int | None: ...


class _InLoop:
    """A client that is to be awaited, for a thread: each call is awaited in the loop that it belongs to."""

    def __init__(self, client: _Awaited, loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._loop = client, loop

    @property
    def name(self) -> str:
        return str(self._client.name)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        # Whoever waits here is a thread of _in_thread, whose task goes on in the loop meanwhile.
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def chat(self, messages: Messages, **params: Any) -> Reply:
        return self._wait(self._client.chat(messages, **params))

    def stream_chat(self, messages: Messages, **params: Any) -> ChatStream:
        said = Said()
        return ChatStream(self._pieces(messages, params, said), said)

    def _pieces(self, messages: Messages, params: dict[str, Any], said: Said) -> Generator[str, None, None]:
        stream = self._client.stream_chat(messages, **params)
        try:
            while (piece := self._wait(_next(stream))) is not None:
                said.parts.append(piece)
                yield piece
            for name in ("finish_reason", "prompt_tokens", "completion_tokens", "model"):
                setattr(said, name, getattr(stream.reply, name))
        finally:
            self._wait(stream.aclose())

    def count_tokens(self, text: str) -> TokenCount:
        return self._wait(self._client.count_tokens(text))

    def count_messages(self, messages: Messages) -> TokenCount:
        return self._wait(self._client.count_messages(messages))

    def context_length(self) -> int | None:
        return self._wait(self._client.context_length())

    def close(self) -> None:
        """Leave it open: whoever made it closes it."""


async def _next(stream: AsyncChatStream) -> str | None:
    try:
        return await stream.__anext__()
    except StopAsyncIteration:
        return None
