"""`ask` as a runnable of LangChain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..._optional import extra
from ...errors import InvalidInput
from ...records import shown
from .awaited import aask
from .core import ask

with extra("langchain", module="langchain_core"):
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
    from langchain_core.runnables import Runnable, RunnableConfig

if TYPE_CHECKING:
    from ...memory_graph import MemoryGraph
    from .answer import Answer

__all__ = ["RaeburnAsk"]

_ROLES = {"human": "user", "ai": "assistant"}


class RaeburnAsk(Runnable[Any, AIMessage]):
    """Answers questions from *memory* with *client*; *options* are those of `ask`.

    What goes in is a question, the messages of a chat (the last is the question, those before are its history), or a
    dict with `question` or `messages` and options of `ask` for this question, such as `session_id`. What comes out is
    an `AIMessage`: `response_metadata` has the answer as `Answer.to_dict` makes it, with its citations. Streamed, it is
    the text piece by piece, and at the end an empty piece with that.
    """

    def __init__(self, memory: MemoryGraph, client: Any, **options: Any) -> None:
        self.memory, self.client, self.options = memory, client, options

    def invoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> AIMessage:  # noqa: A002
        """Return the answer to what goes in."""

        def answered(given: Any) -> AIMessage:
            question, more = self._asked(given, options)
            return _message(ask(self.memory, question, self.client, **more), AIMessage, whole=True)

        return self._call_with_config(answered, input, config, run_type="chain")

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> AIMessage:  # noqa: A002
        """Return the answer to what goes in."""

        async def answered(given: Any) -> AIMessage:
            question, more = self._asked(given, options)
            return _message(await aask(self.memory, question, self.client, **more), AIMessage, whole=True)

        return await self._acall_with_config(answered, input, config, run_type="chain")

    def stream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Iterator[AIMessage]:  # noqa: A002
        """Yield the answer to what goes in, piece by piece."""

        def pieces(given: Iterator[Any]) -> Iterator[AIMessage]:
            question, more = self._asked(_only(given), options)
            with ask(self.memory, question, self.client, stream=True, **more) as stream:
                for piece in stream:
                    yield AIMessageChunk(content=piece)
                yield _message(stream.answer, AIMessageChunk, whole=False)

        return self._transform_stream_with_config(iter([input]), pieces, config, run_type="chain")

    async def astream(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **options: Any,
    ) -> AsyncIterator[AIMessage]:
        """Yield the answer to what goes in, piece by piece."""

        async def one() -> AsyncIterator[Any]:
            yield input

        async def pieces(given: AsyncIterator[Any]) -> AsyncIterator[AIMessage]:
            question, more = self._asked([each async for each in given][-1], options)
            async with await aask(self.memory, question, self.client, stream=True, **more) as stream:
                async for piece in stream:
                    yield AIMessageChunk(content=piece)
                yield _message(await stream.answer(), AIMessageChunk, whole=False)

        async for piece in self._atransform_stream_with_config(one(), pieces, config, run_type="chain"):
            yield piece

    def _asked(self, given: Any, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        more = {**self.options, **options}
        if isinstance(given, Mapping):
            own = dict(given)
            given = own.pop("question") if "question" in own else own.pop("messages", None)
            more |= own
        if isinstance(given, BaseMessage):
            given = [given]
        if isinstance(given, list) and given and all(isinstance(one, BaseMessage) for one in given):
            *before, last = given
            if before:
                more["history"] = [(_ROLES[one.type], _text(one)) for one in before if one.type in _ROLES]
            given = _text(last)
        if not isinstance(given, str):
            raise InvalidInput(f"{shown(given)} is no question. Pass a text, messages, or a dict with 'question'.")
        return given, more


def _only(given: Iterator[Any]) -> Any:
    (one,) = given
    return one


def _text(message: BaseMessage) -> str:
    return str(message.text) if isinstance(message.text, str) else str(message.content)


def _message(answer: Answer, kind: type[AIMessage], *, whole: bool) -> AIMessage:
    tokens = {name: answer.tokens.get(name) for name in ("prompt", "completion")}
    usage = None
    if all(isinstance(count, int) for count in tokens.values()):
        sent, said = int(tokens["prompt"] or 0), int(tokens["completion"] or 0)
        usage = {"input_tokens": sent, "output_tokens": said, "total_tokens": sent + said}
    return kind(content=answer.text if whole else "", response_metadata=answer.to_dict(), usage_metadata=usage)
