"""Talking to a model behind HTTP: llamafile, llama.cpp's server, Ollama, vLLM, OpenAI."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from ...tokens import estimate
from ._settings import MODELS, PROPS, TOKENIZERS, Fixed, Lease, Refused, Settings, lacks
from ._wire import MOST, Call, Deltas, Endpoint, context_of, models_of, reply_of, rows_of, tokens_of
from .errors import ClientError, ClientTimeout
from .interface import AsyncChatStream, ChatStream, Messages, Reply, Said, TokenCount, checked_messages

if TYPE_CHECKING:
    from types import TracebackType

    import httpx
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["AsyncModelClient", "Endpoint", "ModelClient", "held"]


def _closed(*clients: httpx.Client) -> None:
    for client in clients:
        client.close()


class ModelClient(Settings):
    """Talks to the model behind *base_url*, which is what comes before `/chat/completions`; safe to share by threads.

    *model* is what the server calls it; servers that have only one do without. *api_key* is sent as a bearer token;
    without it, the variable `OPENAI_API_KEY` is, but only over https or to this machine. *timeout* is how many seconds
    the model may say nothing, for each piece of an answer. *kind*, `"chat"` or `"embedding"`, refuses the wrong calls
    before they are sent. *lease*, instead of *base_url*, is called for each request: the context manager that it
    returns gives an `Endpoint`, and is left when the answer has come, so that a server can be started when it is
    needed and is known to be in use.

    A connection that fails and an answer of 429 or 503 are tried *retries* times more, with growing pauses, and as
    long as nothing of an answer was handed out. Redirects are not followed; proxies are not used towards this machine.

    Raises:
        InvalidInput: An argument makes no sense, or the key would go where others can read it.
        MissingDependency: httpx is not installed.
    """

    def __init__(self, base_url: str | None = None, model: str | None = None, **options: Any) -> None:
        super().__init__(base_url, model, **options)
        self._client = self._httpx.Client(**self._options)
        # Each stream has a connection of its own, so that it is known which one to cut.
        self._streams = self._httpx.Client(**self._options, limits=self._httpx.Limits(max_keepalive_connections=0))
        # The hub makes a client for each question, and nobody closes it.
        self._end = weakref.finalize(self, _closed, self._client, self._streams)

    def chat(self, messages: Messages, **params: Any) -> Reply:
        """Return the answer to *messages*, a text or dicts of `role` and `content`.

        *params* go along as they are: `max_tokens`, `temperature`, `seed`, `response_format` and whatever else the
        server takes.

        Raises:
            ClientError: The server refuses, or answers with something else.
            ContextExceeded: The messages are longer than the model takes.
            NotRunning: It cannot be reached.
            WrongKind: It is an embedding model.
        """
        return reply_of(self._fetch(self._chat(messages, params, stream=False)), self._teller())

    def stream_chat(self, messages: Messages, **params: Any) -> ChatStream:
        """Return the answer to *messages* piece by piece; see `chat`. Leaving the stream early stops the model."""
        said = Said()
        return ChatStream(self._stream(self._chat(messages, params, stream=True), said), said)

    def complete(self, prompt: str, **params: Any) -> Reply:
        """Return how the model goes on after *prompt*, to which no template is applied; see `chat`."""
        return reply_of(self._fetch(self._completion(prompt, params)), self._teller())

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a row for each text, as the model makes them, in requests of 64.

        Raises:
            ClientError: There is not one vector for each text, all of one length and of finite numbers.
            WrongKind: It is a chat model, or one that makes a vector for each token.
        """
        rows = [rows_of(self._fetch(call), count, self._teller()) for call, count in self._embedding(texts)]
        return self._together(rows)

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of *text*, without those that a model puts around it.

        Raises:
            ClientError: The server has no tokenizer to ask.
        """
        return self._tokenize(text, template=False)

    def _tokenize(self, text: str, *, template: bool) -> list[int]:
        for path in TOKENIZERS if self._tokenizer is None else [self._tokenizer]:
            try:
                if path:
                    found = tokens_of(self._fetch(self._tokens(text, path, template=template)), self._teller())
                    self._tokenizer = path
                    return found
            except ClientError as exc:
                if self._tokenizer is not None or not lacks(exc):
                    raise
        self._tokenizer = ""
        raise self._no_tokenizer()

    def count_tokens(self, text: str) -> TokenCount:
        """Return how many tokens *text* has: counted by the server where it can, else estimated, as it then says."""
        try:
            return TokenCount(len(self.tokenize(text)))
        except ClientError:
            if self._tokenizer != "":
                raise
            return TokenCount(estimate(text), estimated=True)

    def count_messages(self, messages: Messages) -> TokenCount:
        """Return how many tokens the prompt has that *messages* become with the model's template."""
        given = checked_messages(messages)
        try:
            prompt = self._prompt_in(self._fetch(self._templated(given)))
            return TokenCount(len(self._tokenize(prompt, template=True)))
        except ClientError as exc:
            if not lacks(exc):
                raise
        return self._estimated(given, [self.count_tokens(str(one.get("content") or "")) for one in given])

    def context_length(self) -> int | None:
        """Return how many tokens prompt and answer may have together, as the server says it; None if it does not."""
        for call in (PROPS, MODELS):
            try:
                found = context_of(self._fetch(call), self.model)
            except ClientTimeout:
                raise
            except ClientError:  # there is no such place, or it is closed
                continue
            if found is not None:
                return found
        return None

    def models(self) -> list[str]:
        """Return the names of the models that the server has."""
        return models_of(self._fetch(MODELS), self._teller())

    def close(self) -> None:
        """Close the connections."""
        self._end()

    def __enter__(self) -> ModelClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- one request --------------------------------------------------------------------------------------------

    def _fetch(self, call: Call) -> Any:
        for attempt in range(self._retries + 1):
            try:
                with self._lease() as endpoint, self._client.stream(**self._request(call, endpoint)) as response:
                    body = self._read(response)
                    if response.status_code != 200:
                        raise self._refused(call, endpoint, response, body)
                    return self._parsed(body)
            except (self._httpx.TransportError, Refused) as exc:
                pause = self._pause(attempt, exc)
            time.sleep(pause)
        raise AssertionError  # the last try returns or raises

    def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > MOST:
                raise self._too_long()
        return bytes(body)

    def _stream(self, call: Call, said: Said) -> Generator[str, None, None]:
        def connected(event: str, info: Mapping[str, Any]) -> None:
            if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
                said.connection = info["return_value"].get_extra_info("socket")
                if said.stopped:
                    said.stop()

        for attempt in range(self._retries + 2):  # one more, for what a strict server refuses
            try:
                with (
                    self._lease() as endpoint,
                    self._streams.stream(**self._request(call, endpoint), extensions={"trace": connected}) as response,
                ):
                    if response.status_code != 200:
                        raise self._refused(call, endpoint, response, self._read(response))
                    deltas = Deltas(said, self._teller())
                    for piece in response.iter_bytes():
                        yield from deltas.feed(piece)
                    yield from deltas.end()
                    if deltas.whole:
                        return
                    raise self._httpx.RemoteProtocolError("the stream ended before the answer did")
            except (self._httpx.TransportError, Refused) as exc:
                if said.stopped:
                    return
                if said.parts:
                    raise self._broken(exc, said) from None
                if (plainer := self._plainer(call, exc)) is not None:
                    call = plainer
                    continue
                pause = self._pause(attempt, exc)
            time.sleep(pause)


class AsyncModelClient(Settings):
    """`ModelClient` for code that awaits: the same options and calls; a task that is cancelled stops the model."""

    def __init__(self, base_url: str | None = None, model: str | None = None, **options: Any) -> None:
        super().__init__(base_url, model, **options)
        self._client = self._httpx.AsyncClient(**self._options)

    async def chat(self, messages: Messages, **params: Any) -> Reply:
        """Return the answer to *messages*; see `ModelClient.chat`."""
        return reply_of(await self._fetch(self._chat(messages, params, stream=False)), self._teller())

    def stream_chat(self, messages: Messages, **params: Any) -> AsyncChatStream:
        """Return the answer to *messages* piece by piece; see `chat`. Leaving the stream early stops the model."""
        said = Said()
        return AsyncChatStream(self._stream(self._chat(messages, params, stream=True), said), said)

    async def complete(self, prompt: str, **params: Any) -> Reply:
        """Return how the model goes on after *prompt*, to which no template is applied; see `chat`."""
        return reply_of(await self._fetch(self._completion(prompt, params)), self._teller())

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a row for each text, as the model makes them, in requests of 64.

        Raises:
            ClientError: There is not one vector for each text, all of one length and of finite numbers.
            WrongKind: It is a chat model, or one that makes a vector for each token.
        """
        rows = [rows_of(await self._fetch(call), count, self._teller()) for call, count in self._embedding(texts)]
        return self._together(rows)

    async def tokenize(self, text: str) -> list[int]:
        """Return the tokens of *text*, without those that a model puts around it.

        Raises:
            ClientError: The server has no tokenizer to ask.
        """
        return await self._tokenize(text, template=False)

    async def _tokenize(self, text: str, *, template: bool) -> list[int]:
        for path in TOKENIZERS if self._tokenizer is None else [self._tokenizer]:
            try:
                if path:
                    found = tokens_of(await self._fetch(self._tokens(text, path, template=template)), self._teller())
                    self._tokenizer = path
                    return found
            except ClientError as exc:
                if self._tokenizer is not None or not lacks(exc):
                    raise
        self._tokenizer = ""
        raise self._no_tokenizer()

    async def count_tokens(self, text: str) -> TokenCount:
        """Return how many tokens *text* has: counted by the server where it can, else estimated, as it then says."""
        try:
            return TokenCount(len(await self.tokenize(text)))
        except ClientError:
            if self._tokenizer != "":
                raise
            return TokenCount(estimate(text), estimated=True)

    async def count_messages(self, messages: Messages) -> TokenCount:
        """Return how many tokens the prompt has that *messages* become with the model's template."""
        given = checked_messages(messages)
        try:
            prompt = self._prompt_in(await self._fetch(self._templated(given)))
            return TokenCount(len(await self._tokenize(prompt, template=True)))
        except ClientError as exc:
            if not lacks(exc):
                raise
        return self._estimated(given, [await self.count_tokens(str(one.get("content") or "")) for one in given])

    async def context_length(self) -> int | None:
        """Return how many tokens prompt and answer may have together, as the server says it; None if it does not."""
        for call in (PROPS, MODELS):
            try:
                found = context_of(await self._fetch(call), self.model)
            except ClientTimeout:
                raise
            except ClientError:  # there is no such place, or it is closed
                continue
            if found is not None:
                return found
        return None

    async def models(self) -> list[str]:
        """Return the names of the models that the server has."""
        return models_of(await self._fetch(MODELS), self._teller())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> AsyncModelClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- one request --------------------------------------------------------------------------------------------

    async def _fetch(self, call: Call) -> Any:
        for attempt in range(self._retries + 1):
            try:
                async with (
                    held(self._lease) as endpoint,
                    self._client.stream(**self._request(call, endpoint)) as response,
                ):
                    body = await self._read(response)
                    if response.status_code != 200:
                        raise self._refused(call, endpoint, response, body)
                    return self._parsed(body)
            except (self._httpx.TransportError, Refused) as exc:
                pause = self._pause(attempt, exc)
            await asyncio.sleep(pause)
        raise AssertionError  # the last try returns or raises

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MOST:
                raise self._too_long()
        return bytes(body)

    async def _stream(self, call: Call, said: Said) -> AsyncGenerator[str, None]:
        for attempt in range(self._retries + 2):  # one more, for what a strict server refuses
            try:
                async with (
                    held(self._lease) as endpoint,
                    self._client.stream(**self._request(call, endpoint)) as response,
                ):
                    if response.status_code != 200:
                        raise self._refused(call, endpoint, response, await self._read(response))
                    deltas = Deltas(said, self._teller())
                    async for piece in response.aiter_bytes():
                        for delta in deltas.feed(piece):
                            yield delta
                    for delta in deltas.end():
                        yield delta
                    if deltas.whole:
                        return
                    raise self._httpx.RemoteProtocolError("the stream ended before the answer did")
            except (self._httpx.TransportError, Refused) as exc:
                if said.parts:
                    raise self._broken(exc, said) from None
                if (plainer := self._plainer(call, exc)) is not None:
                    call = plainer
                    continue
                pause = self._pause(attempt, exc)
            await asyncio.sleep(pause)


@asynccontextmanager
async def held(lease: Lease) -> AsyncIterator[Endpoint]:
    """Enter a lease, which may wait for a model to start, without holding up the loop."""
    if isinstance(lease, Fixed):
        yield lease.endpoint
        return
    held = ExitStack()
    entering = asyncio.ensure_future(asyncio.to_thread(lambda: held.enter_context(lease())))

    def left(done: asyncio.Future[Endpoint]) -> None:
        if not done.cancelled():
            done.exception()  # nobody waits for it any more
        held.close()

    try:
        endpoint = await asyncio.shield(entering)
    except asyncio.CancelledError:
        entering.add_done_callback(left)
        raise
    try:
        yield endpoint
    finally:
        held.close()
