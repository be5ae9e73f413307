"""One way to talk to a model, whatever it was handed in as: a URL, a file, a client of ours or of somebody else's."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...embed.openai import split
from ...errors import InvalidInput
from ...records import shown
from ...tokens import counter, estimate
from ._wire import Teller
from .errors import ClientTimeout
from .interface import AsyncChatStream, ChatClient, ChatStream, Messages, Reply, Said, TokenCount, checked_messages

if TYPE_CHECKING:
    from ...tokens import Count

__all__ = ["awaited", "open_client"]

_PER_MESSAGE = 8  # tokens that a template puts around a message: rather too many


def open_client(
    what: Any, *, api_key: str | None = None, model: str | None = None, tokenizer: Any = None
) -> ChatClient:
    """Return a client for *what*.

    It may be

    - `"openai:URL"` or `"openai:URL#MODEL"`: any server that speaks OpenAI's protocol, with *api_key*;
    - the path of a GGUF file, which is run in this process (extra `llama`);
    - a `ModelClient`, or any other `ChatClient`, which is returned as it is;
    - an `openai.OpenAI`, which is asked for *model*, or else for the only one that it has;
    - a chat model of LangChain, or a runnable that takes messages and gives one.

    The last two know no tokenizer that could be asked without a network: *tokenizer*, as in
    `raeburnmemory.tokens.counter`, counts for them, or else tokens are estimated.

    Raises:
        InvalidInput: It is none of these.
        MissingDependency: What it needs is not installed.
    """
    if isinstance(what, ChatClient):
        return what
    if isinstance(what, str):
        return _named(what, api_key, model)
    count = None if tokenizer is None else counter(tokenizer)
    known = sys.modules.get("langchain_core.runnables")  # who has made one has loaded it
    if known is not None and isinstance(what, known.Runnable):
        return _LangChainClient(what, count)
    if hasattr(what, "chat") and hasattr(what, "models") and hasattr(what, "base_url"):
        if type(what).__name__.startswith("Async"):
            raise InvalidInput(f"{type(what).__name__} is to be awaited. Pass it to aask(), or pass an OpenAI here.")
        return _OpenAIClient(what, model, count)
    if hasattr(what, "aclose"):
        raise InvalidInput(f"{shown(what)} is to be awaited. Pass it to aask(), or pass a ModelClient here.")
    raise InvalidInput(
        f"{shown(what)} is no model. Pass 'openai:http://127.0.0.1:8080/v1', a ModelClient, an openai.OpenAI or a chat "
        f"model of LangChain."
    )


def awaited(what: Any, *, model: str | None = None, tokenizer: Any = None) -> Any:
    """Return the client of something whose calls are to be awaited; None for anything else."""
    from .client import AsyncModelClient

    if isinstance(what, AsyncModelClient):
        return what
    if type(what).__name__.startswith("Async") and hasattr(what, "chat") and hasattr(what, "base_url"):
        return _AsyncOpenAIClient(what, model, None if tokenizer is None else counter(tokenizer))
    return None


def _named(what: str, api_key: str | None, model: str | None) -> ChatClient:
    kind, colon, rest = what.strip().partition(":")
    if colon and kind == "openai":
        from .client import ModelClient

        url, named = split(rest)
        return ModelClient(url, model or named, api_key=api_key)
    if what.strip().lower().endswith(".gguf"):
        from .llama_cpp import LlamaCppClient

        return LlamaCppClient(what.strip())
    raise InvalidInput(
        f"{shown(what)} names no model. Write 'openai:http://127.0.0.1:8080/v1', or the path of a GGUF file."
    )


class _Counting:
    """Counts tokens for clients that cannot be asked."""

    def __init__(self, count: Count | None) -> None:
        self._count = count

    def _tokens(self, text: str) -> TokenCount:
        if self._count is None:
            return TokenCount(estimate(text), estimated=True)
        return TokenCount(self._count(text))

    def _whole(self, messages: Messages) -> TokenCount:
        given = checked_messages(messages)
        whole = sum(self._tokens(str(one.get("content") or "")) for one in given)
        return TokenCount(whole + _PER_MESSAGE * (len(given) + 1), estimated=True)  # the template is not known


class _Direct(_Counting):
    """What is not to be awaited."""

    def count_tokens(self, text: str) -> TokenCount:
        return self._tokens(text)

    def count_messages(self, messages: Messages) -> TokenCount:
        return self._whole(messages)

    def close(self) -> None:
        """Leave it open: whoever made it closes it."""


class _OpenAIBase(_Counting):
    """A client of the package openai, with whatever it was given: its own transport, its retries, its recorder."""

    def __init__(self, client: Any, model: str | None, count: Count | None) -> None:
        super().__init__(count)
        self._client, self._model = client, model

    @property
    def name(self) -> str:
        return f"{type(self._client).__name__}" + ("" if self._model is None else f"#{self._model}")

    def _params(self, params: dict[str, Any], found: list[str]) -> dict[str, Any]:
        if self._model is None and "model" not in params:
            if len(found) != 1:
                raise InvalidInput(f"The server has {len(found)} models: {', '.join(found[:5])}. Name one with model=.")
            self._model = found[0]
        return {"model": self._model, "stream_options": {"include_usage": True}, **params}

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise our errors instead of the package's."""
        import openai

        teller = Teller(self.name, self._model, [getattr(self._client, "api_key", None)])
        try:
            yield
        except openai.APITimeoutError as exc:
            raise ClientTimeout(f"{self.name} did not answer in time.", remedy="Pass it a larger timeout.") from exc
        except openai.APIStatusError as exc:
            raise teller.refusal(exc.status_code, exc.response.content, keyed=True) from exc
        except openai.APIConnectionError as exc:
            raise teller.unreachable(exc.__cause__ or exc, str(self._client.base_url)) from exc
        except openai.APIError as exc:
            raise teller.error(f"answered with an error: {exc}") from exc


class _OpenAIClient(_OpenAIBase, _Direct):
    """An `openai.OpenAI`."""

    def chat(self, messages: Messages, **params: Any) -> Reply:
        with self.stream_chat(messages, **params) as stream:
            for _ in stream:
                pass
            return stream.reply

    def stream_chat(self, messages: Messages, **params: Any) -> ChatStream:
        said = Said()
        return ChatStream(self._pieces(checked_messages(messages), params, said), said)

    def _pieces(self, messages: list[dict[str, Any]], params: dict[str, Any], said: Said) -> Generator[str, None, None]:
        with self._translated():
            params = self._params(params, [] if self._model else [model.id for model in self._client.models.list()])
            with self._client.chat.completions.create(messages=messages, stream=True, **params) as stream:
                for event in stream:
                    if text := _streamed(event, said):
                        yield text

    def context_length(self) -> int | None:
        return None


def _streamed(event: Any, said: Said) -> str:
    """Return the text of an event of the package openai, and note the rest."""
    said.model = event.model or said.model
    if event.usage is not None:
        said.prompt_tokens, said.completion_tokens = event.usage.prompt_tokens, event.usage.completion_tokens
    text = ""
    for choice in event.choices[:1]:
        said.finish_reason = choice.finish_reason or said.finish_reason
        text = (choice.delta.content if choice.delta is not None else None) or ""
    if text:
        said.parts.append(text)
    return text


class _AsyncOpenAIClient(_OpenAIBase):
    """An `openai.AsyncOpenAI`; its calls are to be awaited."""

    async def chat(self, messages: Messages, **params: Any) -> Reply:
        async with self.stream_chat(messages, **params) as stream:
            async for _ in stream:
                pass
            return stream.reply

    def stream_chat(self, messages: Messages, **params: Any) -> AsyncChatStream:
        said = Said()
        return AsyncChatStream(self._pieces(checked_messages(messages), params, said), said)

    async def _pieces(
        self, messages: list[dict[str, Any]], params: dict[str, Any], said: Said
    ) -> AsyncGenerator[str, None]:
        with self._translated():
            found = [] if self._model else [model.id async for model in self._client.models.list()]
            params = self._params(params, found)
            stream = await self._client.chat.completions.create(messages=messages, stream=True, **params)
            async with stream:
                async for event in stream:
                    if text := _streamed(event, said):
                        yield text

    async def count_tokens(self, text: str) -> TokenCount:
        return self._tokens(text)

    async def count_messages(self, messages: Messages) -> TokenCount:
        return self._whole(messages)

    async def context_length(self) -> int | None:
        return None


class _LangChainClient(_Direct):
    """A chat model of LangChain, or a runnable around one. How it speaks is set where it was made."""

    own_settings = True

    def __init__(self, runnable: Any, count: Count | None) -> None:
        super().__init__(count)
        self._runnable = runnable

    @property
    def name(self) -> str:
        named = getattr(self._runnable, "model_name", None) or getattr(self._runnable, "model", None)
        return named if isinstance(named, str) and named else type(self._runnable).__name__

    def chat(self, messages: Messages, **params: Any) -> Reply:
        message = self._runnable.invoke(_for_langchain(messages), **params)
        said = Said()
        said.parts.append(_heard(message, said))
        return said.reply()

    def stream_chat(self, messages: Messages, **params: Any) -> ChatStream:
        said = Said()
        return ChatStream(self._pieces(_for_langchain(messages), params, said), said)

    def _pieces(self, messages: list[Any], params: dict[str, Any], said: Said) -> Generator[str, None, None]:
        pieces: Iterator[Any] = self._runnable.stream(messages, **params)
        try:
            for piece in pieces:
                if text := _heard(piece, said):
                    said.parts.append(text)
                    yield text
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def context_length(self) -> int | None:
        profile = getattr(self._runnable, "profile", None)
        most = profile.get("max_input_tokens") if isinstance(profile, Mapping) else None
        return most if isinstance(most, int) and most > 0 else None


def _for_langchain(messages: Messages) -> list[tuple[str, Any]]:
    return [(one["role"], one.get("content") or "") for one in checked_messages(messages)]


def _heard(message: Any, said: Said) -> str:
    """Return the text of a message, or a piece of one, and note what it tells about itself."""
    if isinstance(message, str):
        return message
    usage = getattr(message, "usage_metadata", None) or {}
    for name, ours in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
        if usage.get(name):
            setattr(said, ours, (getattr(said, ours) or 0) + usage[name])
    about = getattr(message, "response_metadata", None) or {}
    said.finish_reason = about.get("finish_reason") or about.get("stop_reason") or said.finish_reason
    said.model = about.get("model_name") or about.get("model") or said.model
    content = getattr(message, "content", None)
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        return "".join(part for part in parts if isinstance(part, str))
    raise InvalidInput(f"The runnable answers with {shown(message)}, which is no message of a chat.")
