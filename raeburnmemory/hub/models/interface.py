"""What talking to a model is, whichever way it is reached: plain data, streams, and the contract of a client."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ...errors import InvalidInput
from ...records import shown

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "AsyncChatStream",
    "ChatClient",
    "ChatStream",
    "Reply",
    "Said",
    "TokenCount",
    "checked_messages",
    "joined",
]

Messages = str | Sequence[Mapping[str, Any]]
"""A question, or the messages of a chat: dicts with `role` and `content`."""


@dataclass(frozen=True)
class Reply:
    """What a model said. `str(reply)` is the text.

    `finish_reason` is why it stopped, as the server calls it: `"stop"` by itself, `"length"` because it had to. The
    numbers of tokens are those that the server counted, None where it does not tell.
    """

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str | None = None

    def __str__(self) -> str:
        return self.text


class TokenCount(int):
    """A number of tokens; `estimated` says that no tokenizer of the model counted them."""

    estimated: bool

    def __new__(cls, count: int, *, estimated: bool = False) -> TokenCount:  # noqa: D102 - the class says it
        made = super().__new__(cls, count)
        made.estimated = estimated
        return made

    def __repr__(self) -> str:
        return f"about {int(self)}" if self.estimated else str(int(self))


@dataclass
class Said:
    """What a stream has brought so far; whoever reads the stream fills it."""

    parts: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str | None = None
    stopped: bool = False
    connection: Any = None  # what the pieces come over, where it can be cut

    def stop(self) -> None:
        """Let the stream end at once, whatever thread waits for its next piece."""
        self.stopped = True
        if self.connection is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                # Not by the method of an SSLSocket, which takes down what the thread that waits is using.
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)

    def reply(self) -> Reply:
        """Return it as a reply."""
        text = joined("".join(self.parts))
        return Reply(text, self.finish_reason, self.prompt_tokens, self.completion_tokens, self.model)


def joined(text: str) -> str:
    """Return *text* with whole characters: servers that count in UTF-16 tear an emoji apart, in two pieces of a stream.

    What is half a character all the same is replaced: nothing could store it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class ChatStream(Iterator[str]):
    """What a model says, piece by piece as it comes; asked at the first piece.

    Leaving it before its end, with `close`, a `with` block or a loop that breaks off, closes the connection, which
    stops the model. `reply` is what came so far.
    """

    def __init__(self, pieces: Generator[str, None, None], said: Said) -> None:
        # The generator knows nothing of this object: forgotten, both are gone at once, and the connection with them.
        self._pieces, self._said = pieces, said

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def reply(self) -> Reply:
        """What came so far."""
        return self._said.reply()

    def stop(self) -> None:
        """Stop the model from another thread than the one that reads: the stream ends, where it can with no next piece.

        A connection is cut. A model in this process, and a client of somebody else, end with their next piece.
        """
        self._said.stop()

    def close(self) -> None:
        """Stop the model, if it still speaks."""
        self._pieces.close()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncChatStream(AsyncIterator[str]):
    """`ChatStream` for code that awaits; the task that is cancelled while it waits for a piece stops the model."""

    def __init__(self, pieces: AsyncGenerator[str, None], said: Said) -> None:
        self._pieces, self._said = pieces, said

    async def __anext__(self) -> str:
        return await self._pieces.__anext__()

    @property
    def reply(self) -> Reply:
        """What came so far."""
        return self._said.reply()

    async def aclose(self) -> None:
        """Stop the model, if it still speaks."""
        await self._pieces.aclose()

    async def __aenter__(self) -> AsyncChatStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


@runtime_checkable
class ChatClient(Protocol):
    """Whatever a question can be put to: a server, a model in this process, a client of another package."""

    @property
    def name(self) -> str:
        """What the model is called, or where it is; without secrets."""

    def chat(self, messages: Messages, **params: Any) -> Reply:
        """Return the answer to *messages*; *params* are those of OpenAI's chat completions."""

    def stream_chat(self, messages: Messages, **params: Any) -> ChatStream:
        """Return the answer to *messages* piece by piece."""

    def count_tokens(self, text: str) -> TokenCount:
        """Return how many tokens *text* has."""

    def count_messages(self, messages: Messages) -> TokenCount:
        """Return how many tokens the prompt has that *messages* become."""

    def context_length(self) -> int | None:
        """Return how many tokens prompt and answer may have together; None if nobody tells."""

    def close(self) -> None:
        """Give back what it holds."""


def checked_messages(messages: Any) -> list[dict[str, Any]]:
    """Return *messages* as dicts; a text is what a user says.

    Raises:
        InvalidInput: They are no messages.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence) or not messages:
        raise InvalidInput(
            f"The messages are {shown(messages)}. Pass a text, or a list of dicts with role and content."
        )
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InvalidInput(f"A message is {shown(message)}. It is a dict with role and content.")
    return [dict(message) for message in messages]
