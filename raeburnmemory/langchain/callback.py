"""A recorder: every call of a model in a LangChain program becomes an interaction of a memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._optional import extra
from ..nodes import as_json
from ._opening import opened
from .chat_history import text_of

with extra("langchain", module="langchain_core"):
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.messages import BaseMessage

if TYPE_CHECKING:
    import os
    from uuid import UUID

    from langchain_core.outputs import LLMResult

    from ..memory_graph import MemoryGraph

__all__ = ["RaeburnCallbackHandler"]

_log = logging.getLogger("raeburnmemory")


@dataclass
class _Call:
    """A call that has begun: what was asked, what is known of it, and the tokens that came so far."""

    prompts: list[str]
    about: dict[str, Any]
    session: str | None
    model: str | None
    tokens: list[str] = field(default_factory=list)


class RaeburnCallbackHandler(BaseCallbackHandler):
    """Records every call of a chat model or LLM: what was asked, what was answered, by which model, at what cost.

    *memory* is a `MemoryGraph`, or the path of one, which `close` then closes. The session is *session_id*, or else
    what a run's metadata says under `session_id` or `thread_id`. What was asked is what came since the model's last
    message: all of a first call, later the new messages only. The prompt's id is the run's; both nodes have its
    `run_id`, the response `model` and, where they are told, `usage` in tokens. A call that fails is a prompt with an
    `error`, and what came before it failed as response.

    A call is written when it ends, in one transaction. If that fails, it is logged and the program goes on, unless
    *raise_error*. Calls may run side by side.
    """

    def __init__(
        self,
        memory: MemoryGraph | str | os.PathLike[str],
        *,
        session_id: str | None = None,
        agent: Any = None,
        namespace: str | None = None,
        raise_error: bool = False,
    ) -> None:
        self.memory, self._owned = opened(memory, namespace=namespace)
        self.session_id = session_id
        self.agent = agent
        self.raise_error = raise_error
        self._calls: dict[UUID, _Call] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the memory if it was opened here, from a path; one that was given stays open."""
        if self._owned:
            self.memory.close()

    # --- what LangChain tells ---------------------------------------------------------------------------------

    def on_llm_start(  # noqa: D102 - as in LangChain, here and below
        self, serialized: dict[str, Any] | None, prompts: list[str], *, run_id: UUID, **kwargs: Any
    ) -> None:
        self._begin(run_id, list(prompts), serialized, kwargs)

    def on_chat_model_start(  # noqa: D102
        self, serialized: dict[str, Any] | None, messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        self._begin(run_id, [_asked(some) for some in messages], serialized, kwargs)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        del kwargs
        with self._lock:
            call = self._calls.get(run_id)
            if call is not None and isinstance(token, str):
                call.tokens.append(token)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        del kwargs
        self._guarded(self._ended, run_id, response)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        del kwargs
        self._guarded(self._failed, run_id, error)

    # --- what is made of it -----------------------------------------------------------------------------------

    def _begin(self, run_id: UUID, prompts: list[str], serialized: Any, told: Mapping[str, Any]) -> None:
        metadata = told.get("metadata") or {}
        session = self.session_id or metadata.get("session_id") or metadata.get("thread_id")
        about: dict[str, Any] = {"run_id": str(run_id)}
        if told.get("parent_run_id") is not None:
            about["parent_run_id"] = str(told["parent_run_id"])
        if told.get("tags"):
            about["tags"] = [str(tag) for tag in told["tags"]]
        call = _Call(prompts, about, None if session is None else str(session), _model(serialized, told, metadata))
        with self._lock:
            self._calls[run_id] = call

    def _ended(self, run_id: UUID, response: LLMResult) -> None:
        call = self._over(run_id)
        if call is None:
            return
        output = response.llm_output or {}
        records = []
        for number, prompt in enumerate(call.prompts):
            answers = response.generations[number] if number < len(response.generations) else []
            for place, answer in enumerate(answers):
                message = getattr(answer, "message", None)
                text = answer.text if message is None else text_of(message)
                told = getattr(message, "response_metadata", None) or {}
                usage = getattr(message, "usage_metadata", None) or output.get("token_usage")
                one: dict[str, Any] = {
                    "id": f"{_named(run_id, number)}/{place}",
                    "text": text,
                    "model": told.get("model_name") or told.get("model") or output.get("model_name") or call.model,
                    "usage": as_json(usage) if usage else None,
                    "tool_calls": as_json(getattr(message, "tool_calls", None) or None),
                }
                records.append(self._record(call, run_id, number, prompt, one))
            if not answers:
                records.append(self._record(call, run_id, number, prompt, None))
        self.memory.add_many(records)

    def _failed(self, run_id: UUID, error: BaseException) -> None:
        call = self._over(run_id)
        if call is None:
            return
        call.about["error"] = as_json(f"{type(error).__name__}: {error}")
        said = "".join(call.tokens)
        records = []
        for number, prompt in enumerate(call.prompts):
            partial = {"id": f"{_named(run_id, number)}/0", "text": said, "model": call.model} if said else None
            records.append(self._record(call, run_id, number, prompt, partial))
        self.memory.add_many(records)

    def _over(self, run_id: UUID) -> _Call | None:
        with self._lock:
            return self._calls.pop(run_id, None)

    def _record(
        self, call: _Call, run_id: UUID, number: int, prompt: str, response: dict[str, Any] | None
    ) -> dict[str, Any]:
        if response is not None:
            response = {key: value for key, value in response.items() if value is not None}
        return {
            "prompt": {"id": _named(run_id, number), "text": prompt},
            "response": response,
            "agent": self.agent if response is not None else None,
            "session_id": call.session,
            "metadata": call.about,
        }

    def _guarded(self, write: Any, run_id: UUID, what: Any) -> None:
        try:
            write(run_id, what)
        except Exception as exc:
            if self.raise_error:
                raise
            _log.warning("The call %s could not be recorded: %s", run_id, exc)


def _named(run_id: UUID, number: int) -> str:
    return str(run_id) if number == 0 else f"{run_id}/prompt {number}"


def _asked(messages: Sequence[BaseMessage]) -> str:
    """Return what came since the model's last message; of a first call all of it, instructions left out."""
    since = 0
    for place, message in enumerate(messages):
        if message.type in {"ai", "AIMessageChunk"}:
            since = place + 1
    new = [message for message in messages[since:] if message.type != "system"] or list(messages)
    return "\n\n".join(text for text in map(text_of, new) if text)


def _model(serialized: Any, told: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    given = told.get("invocation_params") or {}
    kwargs = (serialized or {}).get("kwargs") or {}
    for source, name in (
        (metadata, "ls_model_name"),
        (given, "model"),
        (given, "model_name"),
        (kwargs, "model"),
        (kwargs, "model_name"),
    ):
        if isinstance(source.get(name), str) and source[name]:
            return str(source[name])
    return (serialized or {}).get("name") or told.get("name")
