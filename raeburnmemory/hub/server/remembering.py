"""What a chat completion gets from the memory, and what the memory keeps of it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...context import build_context
from ...hits import Hit
from ...recording import Recorder
from ...recording._openai import Chat
from ..asking.core import KINDS, RECORDED_BY, limits_of

if TYPE_CHECKING:
    from ...memory_graph import MemoryGraph
    from ...recording.recorder import Call
    from .plugins import Plugins

__all__ = ["BUDGET", "Exchange", "Remembering"]

BUDGET = 500  # tokens, where nobody says how many
_HITS = 20
_QUESTION = 4000  # letters of a message that are searched with: its end, where a question mostly stands
_LONGEST_LINE = 64 << 20  # bytes of a stream: what has more is no part of a chat

log = logging.getLogger("raeburnmemory.hub")


@dataclass
class Remembering:
    """How much of the memory goes along with a chat, in tokens (0 for nothing); and how recording went so far."""

    budget: int = BUDGET
    recorded: int = 0
    failed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, recorder: Recorder) -> None:
        """Add what one recorder has counted."""
        with self._lock:
            self.recorded += recorder.recorded
            self.failed += recorder.failed


class Exchange:
    """One chat completion on its way: the body that is sent, what was heard, and its record.

    Nothing that goes wrong here keeps a question from being asked: it is then sent as it came.
    """

    def __init__(
        self,
        memory: MemoryGraph,
        body: Mapping[str, Any],
        session: str,
        remembering: Remembering,
        plugins: Plugins,
        *,
        remember: bool,
    ) -> None:
        self.memory, self.body, self.session = memory, body, session
        self._remembering, self._plugins = remembering, plugins
        self._remember = remember and remembering.budget > 0
        self.recorder = Recorder(memory, session_id=session)
        self.chat = Chat(body)
        self.call: Call = self.recorder.begin(self.chat.asked(), **self.chat.about())
        self.used: list[str] = []  # the ids of what went along
        self._rest, self.done = bytearray(), False

    # --- what goes along ----------------------------------------------------------------------------------------

    def prepared(self) -> bytes | None:
        """Return the body with what the memory holds for the last question; None if it goes as it came."""
        messages: list[Any] | None = None
        if self._remember:
            try:
                messages = self._with_memory()
            except Exception as exc:  # noqa: BLE001 - whatever it is, the question is asked without
                self.recorder.told(exc, f"The call {self.call.id} went without memory")
        changed = self._plugins.prompt(messages or list(self.body["messages"]))
        if changed is None and messages is None:
            return None
        body = {**self.body, "messages": messages if changed is None else changed}
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")

    def _with_memory(self) -> list[Any] | None:
        messages = list(self.body["messages"])
        last = max((n for n, one in enumerate(messages) if _role(one) == "user"), default=None)
        if last is None:
            return None
        question = _text(messages[last]).strip()[-_QUESTION:]
        if not question:
            return None
        said = {_key(text) for one in messages if (text := _text(one))}
        hits = [hit for hit in self._relevant(question) if _key(hit.text) not in said]
        hits += [Hit(node, 0.0) for node in self._plugins.retrieved(question, _HITS)]
        context = build_context(hits, self._remembering.budget)
        if not context:
            return None
        self.used = [piece.id for piece in context.pieces]
        self.call.about["memory"] = self.used
        messages[last] = {**messages[last], "content": _behind(context.text, messages[last]["content"])}
        return messages

    def _relevant(self, question: str) -> Iterable[Hit]:
        similarity, coverage = limits_of(self.memory)
        for hit in self.memory.recall(question, _HITS, kinds=KINDS):
            near = similarity is not None and hit.similarity is not None and hit.similarity >= similarity
            if (near or (hit.coverage or 0.0) >= coverage) and hit.node.attributes.get("recorded_by") != RECORDED_BY:
                yield hit

    def without_memory(self) -> bool:
        """Send the body as it came after all; False if that was done already."""
        if not self.used:
            return False
        log.warning("The model has no room for what the memory holds: the call %s went without.", self.call.id)
        self.used = []
        self.call.about.pop("memory", None)
        return True

    # --- what is heard ------------------------------------------------------------------------------------------

    def hear(self, piece: bytes) -> None:
        """Take in a piece of a stream, whatever stands in it."""
        if self.done or len(self._rest) > _LONGEST_LINE:
            return
        *lines, rest = piece.split(b"\n")
        for line in lines:
            name, _, value = bytes(self._rest + line).rstrip(b"\r").partition(b":")
            self._rest.clear()
            if name == b"data":
                self._event(value.strip())
        self._rest += rest

    def _event(self, value: bytes) -> None:
        if value == b"[DONE]":
            self.done = True
            return
        try:
            event = json.loads(value)
            if event.get("error"):
                self.call.about["error"] = _message(event["error"])
            self.chat.see(event)
        except Exception as exc:  # noqa: BLE001 - whoever asked gets it all the same
            self.recorder.told(exc, f"A piece of the answer to the call {self.call.id} could not be read")

    def heard(self, body: bytes) -> None:
        """Take in a whole answer."""
        try:
            self.call.answers = self.chat.answers(json.loads(body))
        except Exception as exc:  # noqa: BLE001 - that it was asked is worth a record all the same
            self.recorder.told(exc, f"The answer to the call {self.call.id} could not be read")

    def refused(self, message: str) -> None:
        """Note that there is no answer, and why."""
        self.call.about["error"] = message

    # --- the record ---------------------------------------------------------------------------------------------

    def end(self, error: BaseException | None = None) -> None:
        """Write down what was asked and what came, once."""
        if self.call.over:
            return
        self.call.answers = self.call.answers or self.chat.seen()
        if error is not None:
            self.call.failed(error)
        for answer in self.call.answers:
            if isinstance(model := answer.about.get("model"), str) and model:
                self.call.agent = model
        self.recorder.end(self.call)
        self._remembering.count(self.recorder)

    @property
    def whole(self) -> bool:
        """Whether a stream came to its end."""
        return self.done or self.chat.whole()


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _text(message: Any) -> str:
    """Return what of a message can be read."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, Mapping))
    return "\n".join(part for part in parts if isinstance(part, str))


def _behind(text: str, content: Any) -> Any:
    """Return the content of a message with *text* before it.

    In the message itself, and not as one of its own: there are templates that refuse two messages of one side after
    each other, or one of the system in the middle; and what was stored is not to speak with the voice of the system.
    """
    if isinstance(content, list):
        return [{"type": "text", "text": f"{text}\n\n"}, *content]
    return f"{text}\n\n{content}"


def _key(text: str) -> str:
    return " ".join(text.split()).casefold()


def _message(error: Any) -> str:
    found = error.get("message") if isinstance(error, Mapping) else error
    return str(found)[:2000]
