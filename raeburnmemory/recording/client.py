"""An OpenAI client that records: a copy of the client whose one way to the server is watched.

Every resource of the package `openai` sends by the client's public method `post`, whether somebody called create, parse
or stream, on chat.completions, responses or under beta. So the copy gets a `post` of its own, and is otherwise what it
was: of the same class, with the same connections. Replacing the methods of each resource was turned down: there are
dozens of ways to them, some of which call each other, and new ones with every release.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ._openai import Chat, Endpoint, Responses
from .recorder import Call, Recorder

if TYPE_CHECKING:
    from ..memory_graph import MemoryGraph

__all__ = ["wrap"]

_ENDPOINTS: dict[str, type[Endpoint]] = {"/chat/completions": Chat, "/responses": Responses}
_RAW = "X-Stainless-Raw-Response"  # with this header, the package hands out responses that were not read


def wrap(
    memory: MemoryGraph,
    client: Any,
    *,
    session_id: str | Callable[[], str | None] | None = None,
    agent: Any = None,
    context: int | Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Any:
    """Return a copy of *client*, an `OpenAI` or `AsyncOpenAI`, that records its chat calls in *memory*.

    Recorded are `chat.completions` and `responses`, created, parsed or streamed: what came since the model's last
    message as prompt, each choice as response with `model`, `usage` and `tool_calls`, an `error`, and `cancelled` for
    a stream that nobody read to its end. With `with_raw_response` they are recorded as well, unless they are streams;
    responses that are read by hand (`with_streaming_response`) are not. *client* itself is not changed, and what
    `copy` and `with_options` of the copy return records as well. Wrapping is cheap: do it for every session.

    *context* is a number of tokens, or a dict of arguments of `MemoryGraph.context`: what it gives for the new question
    goes along as a message of the system, after the system's own; it is not recorded. The attribute `recorder` of the
    copy counts, see `Recorder`: whatever goes wrong with recording or with *context*, the call is made.

    Raises:
        InvalidInput: It is no such client, or an argument cannot be understood.
    """
    known = all(callable(getattr(type(client), name, None)) for name in ("post", "copy"))
    if not known or not (hasattr(type(client), "chat") or "chat" in vars(client)):
        raise InvalidInput(f"wrap() takes a client of the package openai, not {type(client).__name__}.")
    if isinstance(context, bool) or not (context is None or isinstance(context, (int, Mapping))):
        raise InvalidInput(f"context is a number of tokens or a dict of arguments of context(), not {context!r}.")
    recorder = Recorder(memory, session_id=session_id, agent=agent, metadata=metadata)
    return _watched(client, _Watch(recorder, {"budget": context} if isinstance(context, int) else context))


def _watched(client: Any, watch: _Watch) -> Any:
    """Return a copy of *client* that is watched, and so are its own copies."""
    wrapped = copy.copy(client)
    _free(wrapped, client)
    # One that is watched already goes on being watched by the other.
    sent = functools.partial(type(client).post, wrapped) if "post" not in client.__dict__ else client.post
    wrapped.post = watch.asynchronous(sent) if inspect.iscoroutinefunction(type(client).post) else watch.direct(sent)

    def again(*args: Any, **kwargs: Any) -> Any:
        return _watched(client.copy(*args, **kwargs), watch)

    wrapped.copy = wrapped.with_options = again
    wrapped.recorder = watch.recorder
    return wrapped


def _free(wrapped: Any, client: Any) -> None:
    """Take from a copy the resources that lead to the client it was made of."""
    for cls in type(client).__mro__:
        for name, value in vars(cls).items():
            if isinstance(value, functools.cached_property):
                wrapped.__dict__.pop(name, None)  # made again when it is asked for
    for name, value in vars(client).items():  # older releases make resources with the client
        kept = name in wrapped.__dict__
        if kept and (
            getattr(value, "_client", None) is client or name in {"with_raw_response", "with_streaming_response"}
        ):
            setattr(wrapped, name, type(value)(wrapped))


class _Watch:
    """Stands between a client and its `post`."""

    def __init__(self, recorder: Recorder, context: Mapping[str, Any] | None) -> None:
        self.recorder, self._context = recorder, context

    def direct(self, post: Callable[..., Any]) -> Callable[..., Any]:
        """Return *post*, watched."""

        @functools.wraps(post)
        def watched(path: str, **given: Any) -> Any:
            endpoint, call = self._begin(path, given)
            if endpoint is None or call is None:
                return post(path, **given)
            given = self._with_context(endpoint, call, given)
            try:
                result = post(path, **given)
            except BaseException as exc:
                call.failed(exc)
                self.recorder.end(call)
                raise
            if given.get("stream") and hasattr(result, "_iterator"):
                _watch_stream(result, endpoint, call, self.recorder)
            elif not given.get("stream"):
                self._understand(endpoint, call, result)
                self.recorder.end(call)
            return result

        return watched

    def asynchronous(self, post: Callable[..., Any]) -> Callable[..., Any]:
        """Return the coroutine function *post*, watched; nothing of it holds up the loop."""

        @functools.wraps(post)
        async def watched(path: str, **given: Any) -> Any:
            endpoint, call = self._begin(path, given)
            if endpoint is None or call is None:
                return await post(path, **given)
            if self._context is not None:
                given = await asyncio.to_thread(self._with_context, endpoint, call, given)
            try:
                result = await post(path, **given)
            except BaseException as exc:
                call.failed(exc)
                await asyncio.to_thread(self.recorder.end, call)
                raise
            if given.get("stream") and hasattr(result, "_iterator"):
                _watch_async_stream(result, endpoint, call, self.recorder)
            elif not given.get("stream"):
                self._understand(endpoint, call, result)
                await asyncio.to_thread(self.recorder.end, call)
            return result

        return watched

    def _begin(self, path: str, given: Mapping[str, Any]) -> tuple[Endpoint | None, Call | None]:
        kind, body = _ENDPOINTS.get(path), given.get("body")
        headers = (given.get("options") or {}).get("headers") or {}
        by_hand = headers.get(_RAW) == "stream" or (_RAW in headers and given.get("stream"))
        if kind is None or not isinstance(body, Mapping) or by_hand:
            return None, None
        try:
            endpoint = kind(body)
            return endpoint, self.recorder.begin(endpoint.asked(), **endpoint.about())
        except Exception as exc:  # noqa: BLE001 - a body that we cannot read is the server's to judge
            self.recorder.told(exc, f"A call of {path} could not be recorded")
            return None, None

    def _with_context(self, endpoint: Endpoint, call: Call, given: dict[str, Any]) -> dict[str, Any]:
        if self._context is None or not call.asked.strip():
            return given
        try:
            text = str(self.recorder.memory.context(call.asked, **self._context))
            return {**given, "body": endpoint.with_context(text)} if text else given
        except Exception as exc:  # noqa: BLE001 - the question is asked without
            self.recorder.told(exc, f"The call {call.id} went without context")
            return given

    def _understand(self, endpoint: Endpoint, call: Call, result: Any) -> None:
        try:
            raw = getattr(result, "http_response", None)
            call.answers = endpoint.answers(result if raw is None else json.loads(raw.content))
        except Exception as exc:  # noqa: BLE001 - that it was asked is worth a record all the same
            self.recorder.told(exc, f"The answer to the call {call.id} could not be read")


class _Stream:
    """What is known of a stream while it is read: its pieces, and whether it was given up."""

    def __init__(self, endpoint: Endpoint, call: Call, recorder: Recorder) -> None:
        self._endpoint, self._call, self._recorder = endpoint, call, recorder
        self.inside = False  # is it waiting for the server, so that closing comes from the stream itself?

    def see(self, piece: Any) -> None:
        """Take in one piece."""
        try:
            self._endpoint.see(piece)
        except Exception as exc:  # noqa: BLE001 - whoever reads it gets it all the same
            self._recorder.told(exc, f"A piece of the answer to the call {self._call.id} could not be read")

    def end(self, error: BaseException | None = None) -> None:
        """Write down what came."""
        if self._call.over:
            return
        self._call.answers = self._endpoint.seen()
        if error is not None and not isinstance(error, GeneratorExit):  # that one is judged by what came
            self._call.failed(error)
        elif not self._endpoint.whole():
            self._call.about["cancelled"] = True
        self._recorder.end(self._call)


def _watch_stream(stream: Any, endpoint: Endpoint, call: Call, recorder: Recorder) -> None:
    told, inner, response = _Stream(endpoint, call, recorder), stream._iterator, stream.response  # noqa: SLF001

    def pieces() -> Iterator[Any]:
        try:
            while True:
                told.inside = True
                try:
                    piece = next(inner)
                except StopIteration:
                    break
                finally:
                    told.inside = False
                told.see(piece)
                yield piece
        except BaseException as exc:
            inner.close()
            told.end(exc)
            raise
        told.end()

    close = response.close

    @functools.wraps(close)
    def closed() -> None:
        close()
        if not told.inside:
            told.end()

    stream._iterator, response.close = pieces(), closed  # noqa: SLF001


def _watch_async_stream(stream: Any, endpoint: Endpoint, call: Call, recorder: Recorder) -> None:
    told, inner, response = _Stream(endpoint, call, recorder), stream._iterator, stream.response  # noqa: SLF001

    async def pieces() -> AsyncIterator[Any]:
        try:
            while True:
                told.inside = True
                try:
                    piece = await anext(inner)
                except StopAsyncIteration:
                    break
                finally:
                    told.inside = False
                told.see(piece)
                yield piece
        except BaseException as exc:
            if isinstance(exc, GeneratorExit):
                told.end(exc)  # nobody may be left to wait for a thread, and the loop closes the stream itself
            else:
                await asyncio.to_thread(told.end, exc)
            raise
        await asyncio.to_thread(told.end)

    close = response.aclose

    @functools.wraps(close)
    async def closed() -> None:
        await close()
        if not told.inside:
            await asyncio.to_thread(told.end)

    stream._iterator, response.aclose = pieces(), closed  # noqa: SLF001
