"""Recording functions of any kind, and blocks: what went in is the prompt, what came out the response."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InvalidInput
from ..nodes import as_json
from .recorder import Answer, Call, Recorder

if TYPE_CHECKING:
    from types import TracebackType

    from ..memory_graph import MemoryGraph

__all__ = ["Recording", "Turn", "recording"]

F = TypeVar("F", bound=Callable[..., Any])


def recording(memory: MemoryGraph, function: Any = None, /, **options: Any) -> Any:
    """Return what `MemoryGraph.record` returns: *function*, recorded, or what goes around one or a block."""
    made = Recording(memory, **options)
    return made if function is None else made(function)


@dataclass
class Turn:
    """What a block says of its call.

    `prompt` is what was asked; without it nothing is recorded, which is told. `response` is what was answered: a text,
    JSON values, or None if there was no answer. `metadata` is what else is known.
    """

    prompt: str | None = None
    session_id: str | None = None
    agent: Any = None
    response: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)


class Recording:
    """A decorator and a context manager that records; see `MemoryGraph.record`. `recorder` counts."""

    def __init__(
        self,
        memory: MemoryGraph,
        *,
        prompt: str | None = None,
        argument: str | None = None,
        session_id: Any = None,
        agent: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.recorder = Recorder(memory, agent=agent, metadata=metadata)
        self._prompt, self._argument, self._session_id = prompt, argument, session_id
        self._open: tuple[Turn, Call] | None = None

    # --- around a function --------------------------------------------------------------------------------------

    def __call__(self, function: F) -> F:
        """Return *function*, recorded: sync or async, returning or yielding."""
        if not callable(function):
            raise InvalidInput(f"record() goes around a function, not {function!r}.")
        signature = inspect.signature(function)
        if self._argument is not None and self._argument not in signature.parameters:
            raise InvalidInput(f"{function!r} has no argument {self._argument!r} to be recorded as the prompt.")
        begin = functools.partial(self._begin, signature)
        made: Any
        if inspect.isasyncgenfunction(function):
            made = _async_generator(function, begin, self.recorder)
        elif inspect.isgeneratorfunction(function):
            made = _generator(function, begin, self.recorder)
        elif inspect.iscoroutinefunction(function):
            made = _coroutine(function, begin, self.recorder)
        else:
            made = _plain(function, begin, self.recorder)
        made.recorder = self.recorder
        return made  # type: ignore[no-any-return]

    def _begin(self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:  # the function will say so itself
            return None
        bound.apply_defaults()
        given = bound.arguments
        try:
            session = self._session_id(given) if callable(self._session_id) else self._session_id
            return self.recorder.begin(self._asked(given), session)
        except Exception as exc:  # noqa: BLE001 - it is the program's own, and no reason not to call the function
            self.recorder.told(exc, "The call could not be recorded")
            return None

    def _asked(self, given: Mapping[str, Any]) -> str:
        if self._prompt is not None:
            return self._prompt
        if self._argument is not None:
            return _text(given[self._argument])
        found = next((value for value in given.values() if isinstance(value, str)), None)
        if found is None:
            raise InvalidInput("No argument is a text to be recorded as the prompt. Name one: record(argument='…').")
        return found

    # --- around a block -----------------------------------------------------------------------------------------

    def __enter__(self) -> Turn:
        if callable(self._session_id):
            raise InvalidInput("session_id can be a function of the arguments of a function; a block has none.")
        if self._open is not None:
            raise InvalidInput("This record() is around another block already. Call record() for each block.")
        turn = Turn(self._prompt, self._session_id)
        self._open = turn, self.recorder.begin("", self._session_id)
        return turn

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._open is not None
        (turn, call), self._open = self._open, None
        if error is not None:
            call.failed(error)
        if not isinstance(turn.prompt, str):
            if error is None:
                missing = InvalidInput("The block set no prompt. Set turn.prompt, or record(prompt='…').")
                self.recorder.told(missing, "The block could not be recorded")
            return
        call.asked, call.session = turn.prompt, turn.session_id
        call.agent = call.agent if turn.agent is None else turn.agent
        call.about.update(turn.metadata)
        _answer(call, turn.response)
        self.recorder.end(call)

    async def __aenter__(self) -> Turn:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)


Begin = Callable[[tuple[Any, ...], dict[str, Any]], "Call | None"]


def _plain(function: Callable[..., Any], begin: Begin, recorder: Recorder) -> Callable[..., Any]:
    @functools.wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        call = begin(args, kwargs)
        if call is None:
            return function(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:
            call.failed(exc)
            recorder.end(call)
            raise
        _answer(call, result)
        recorder.end(call)
        return result

    return recorded


def _coroutine(function: Callable[..., Any], begin: Begin, recorder: Recorder) -> Callable[..., Any]:
    @functools.wraps(function)
    async def recorded(*args: Any, **kwargs: Any) -> Any:
        call = begin(args, kwargs)
        if call is None:
            return await function(*args, **kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as exc:
            call.failed(exc)
            await asyncio.to_thread(recorder.end, call)
            raise
        _answer(call, result)
        await asyncio.to_thread(recorder.end, call)
        return result

    return recorded


def _generator(function: Callable[..., Any], begin: Begin, recorder: Recorder) -> Callable[..., Any]:
    @functools.wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        call, inner = begin(args, kwargs), function(*args, **kwargs)
        if call is None:
            return (yield from inner)
        pieces: list[Any] = []
        try:
            return (yield from _seen(inner, pieces.append))
        except BaseException as exc:
            call.failed(exc)
            raise
        finally:
            _joined(call, pieces)
            recorder.end(call)

    return recorded


def _seen(inner: Generator[Any, Any, Any], see: Callable[[Any], None]) -> Generator[Any, Any, Any]:
    """Do what `yield from` does (PEP 380), and look at each value."""
    try:
        value = next(inner)
        while True:
            see(value)
            try:
                sent = yield value
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as exc:  # noqa: BLE001 - the generator is to see it, whatever it is
                value = inner.throw(exc)
            else:
                value = inner.send(sent)
    except StopIteration as stop:
        return stop.value


def _async_generator(function: Callable[..., Any], begin: Begin, recorder: Recorder) -> Callable[..., Any]:
    @functools.wraps(function)
    async def recorded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        call, inner = begin(args, kwargs), function(*args, **kwargs)
        pieces: list[Any] = []
        try:
            value = await anext(inner)
            while True:
                pieces.append(value)
                try:
                    sent = yield value
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as exc:  # noqa: BLE001 - the generator is to see it, whatever it is
                    value = await inner.athrow(exc)
                else:
                    value = await inner.asend(sent)
        except StopAsyncIteration:
            pass
        except BaseException as exc:
            if call is not None:
                call.failed(exc)
            raise
        finally:
            if call is not None:
                _joined(call, pieces)
                await asyncio.to_thread(recorder.end, call)

    return recorded


def _joined(call: Call, pieces: list[Any]) -> None:
    if pieces:
        _answer(call, "".join(pieces) if all(isinstance(piece, str) for piece in pieces) else pieces)


def _answer(call: Call, result: Any) -> None:
    if result is not None:
        call.answers.append(Answer(_text(result)))


def _text(value: Any) -> str:
    """Return a value as text: a string as it is, JSON values as JSON, other things as `str` has them."""
    if isinstance(value, str):
        return value
    if isinstance(value, (Mapping, list, tuple, int, float, bool)) or value is None:
        return json.dumps(as_json(value), ensure_ascii=False)
    return str(value)
