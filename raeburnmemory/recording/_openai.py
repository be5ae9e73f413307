"""What OpenAI's two chat endpoints are asked and answer, read from what goes over the wire.

Answers are read whether they are objects of the package or JSON, and nothing of the package is needed for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from .recorder import Answer

__all__ = ["Chat", "Endpoint", "Responses"]

_INSTRUCTIONS = {"system", "developer"}


class Endpoint(Protocol):
    """One call of an endpoint: its body, and what comes back."""

    def __init__(self, body: Mapping[str, Any]) -> None: ...

    def asked(self) -> str:
        """Return what came since the model's last message; of a first call all of it, instructions left out."""

    def about(self) -> dict[str, Any]:
        """Return what is known before there is an answer."""

    def with_context(self, text: str) -> dict[str, Any]:
        """Return the body with *text* as a message of the system behind its own."""

    def answers(self, result: Any) -> list[Answer]:
        """Return the answers in a whole result."""

    def see(self, piece: Any) -> None:
        """Take in one piece of a stream."""

    def seen(self) -> list[Answer]:
        """Return the answers as far as they came."""

    def whole(self) -> bool:
        """Tell whether the stream came to its end."""


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _plain(value: Any) -> Any:
    """Return an object of the package as JSON values, without what is None."""
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_none=True, warnings=False) if callable(dump) else value


def _given(**about: Any) -> dict[str, Any]:
    return {name: value for name, value in about.items() if value is not None and value != []}


def _new(messages: Iterable[Any], is_answer: Any) -> list[Any]:
    """Return the messages since the last answer, without instructions unless there is nothing else."""
    listed = list(messages)
    since = max((place + 1 for place, message in enumerate(listed) if is_answer(message)), default=0)
    return [one for one in listed[since:] if _get(one, "role") not in _INSTRUCTIONS] or listed


def _joined(content: Any) -> str:
    """Return what of a message's content can be read: a text, or the texts of its parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Iterable):
        return ""
    parts = (part if isinstance(part, str) else _get(part, "text") for part in content)
    return "\n".join(part for part in parts if isinstance(part, str))


def _behind_instructions(messages: Iterable[Any], message: Mapping[str, Any]) -> list[Any]:
    listed = list(messages)
    place = next((n for n, one in enumerate(listed) if _get(one, "role") not in _INSTRUCTIONS), len(listed))
    return [*listed[:place], dict(message), *listed[place:]]


class Chat:
    """`/chat/completions`."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body, self._messages = body, list(body.get("messages") or [])
        self._model: Any = None
        self._usage: Any = None
        self._choices: dict[int, dict[str, Any]] = {}

    def asked(self) -> str:
        """Return what came since the model's last message."""
        new = _new(self._messages, lambda message: _get(message, "role") == "assistant")
        return "\n\n".join(text for text in (_joined(_get(message, "content")) for message in new) if text)

    def about(self) -> dict[str, Any]:
        """Return the endpoint and the model that was asked for."""
        return _given(endpoint="chat.completions", model=self._body.get("model"))

    def with_context(self, text: str) -> dict[str, Any]:
        """Return the body with *text* as a message of the system."""
        return {**self._body, "messages": _behind_instructions(self._messages, {"role": "system", "content": text})}

    def answers(self, result: Any) -> list[Answer]:
        """Return each choice as an answer."""
        self._model, self._usage = _get(result, "model"), _get(result, "usage")
        found = []
        for choice in _get(result, "choices") or []:
            message = _get(choice, "message")
            calls = [_tool_call(one) for one in _get(message, "tool_calls") or []]
            text = _joined(_get(message, "content")) or _get(message, "refusal") or ""
            found.append(self._answer(text, calls, _get(choice, "finish_reason")))
        return found

    def _answer(self, text: str, calls: list[dict[str, Any]], reason: Any) -> Answer:
        about = _given(model=self._model, usage=_plain(self._usage), tool_calls=calls, finish_reason=reason)
        return Answer(text, about)

    def see(self, piece: Any) -> None:
        """Take in a chunk."""
        self._model, self._usage = _get(piece, "model") or self._model, _get(piece, "usage") or self._usage
        for choice in _get(piece, "choices") or []:
            number, delta = _get(choice, "index") or 0, _get(choice, "delta")
            known = self._choices.setdefault(number, {"text": [], "calls": {}, "reason": None})
            known["text"] += [text for name in ("content", "refusal") if isinstance(text := _get(delta, name), str)]
            for place, call in enumerate(_get(delta, "tool_calls") or []):
                at = _get(call, "index")
                one = known["calls"].setdefault(place if at is None else at, {"id": "", "name": "", "arguments": ""})
                told = _tool_call(call)
                one["id"], one["name"] = one["id"] or told["id"] or "", one["name"] + (told["name"] or "")
                one["arguments"] += told["arguments"] or ""
            known["reason"] = _get(choice, "finish_reason") or known["reason"]

    def seen(self) -> list[Answer]:
        """Return the choices as far as they came."""
        return [
            self._answer("".join(known["text"]), [known["calls"][at] for at in sorted(known["calls"])], known["reason"])
            for _, known in sorted(self._choices.items())
        ]

    def whole(self) -> bool:
        """Tell whether every choice said why it ended."""
        return bool(self._choices) and all(known["reason"] for known in self._choices.values())


def _tool_call(call: Any) -> dict[str, Any]:
    inner = _get(call, "function") or _get(call, "custom") or {}
    arguments = _get(inner, "arguments")
    return {
        "id": _get(call, "id"),
        "name": _get(inner, "name"),
        "arguments": _get(inner, "input") if arguments is None else arguments,
    }


class Responses:
    """`/responses`."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body, self._input = body, body.get("input")
        self._model: Any = None
        self._texts: list[str] = []
        self._last: Any = None

    def asked(self) -> str:
        """Return what came since the model's last output."""
        if isinstance(self._input, str):
            return self._input
        new = _new(self._input or [], _is_output)
        texts = (_joined(_get(one, "content")) or _joined(_get(one, "output")) for one in new)
        return "\n\n".join(text for text in texts if text)

    def about(self) -> dict[str, Any]:
        """Return the endpoint and the model that was asked for."""
        return _given(endpoint="responses", model=self._body.get("model"))

    def with_context(self, text: str) -> dict[str, Any]:
        """Return the body with *text* as a message of the system."""
        given = self._input
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or [])
        return {**self._body, "input": _behind_instructions(messages, {"role": "system", "content": text})}

    def answers(self, result: Any) -> list[Answer]:
        """Return the output as one answer: its texts, and the tools it calls."""
        texts, calls = [], []
        for item in _get(result, "output") or []:
            if _get(item, "type") in {"function_call", "custom_tool_call"}:
                arguments = _get(item, "arguments")
                calls.append(
                    {
                        "id": _get(item, "call_id"),
                        "name": _get(item, "name"),
                        "arguments": _get(item, "input") if arguments is None else arguments,
                    }
                )
            for part in (_get(item, "content") or []) if _get(item, "type") == "message" else []:
                texts += [text for name in ("text", "refusal") if isinstance(text := _get(part, name), str)]
        about = _given(
            model=_get(result, "model"),
            usage=_plain(_get(result, "usage")),
            tool_calls=calls,
            response_id=_get(result, "id"),
            finish_reason=_get(result, "status"),
            failure=_get(_get(result, "error"), "message"),
        )
        return [Answer("".join(texts), about)]

    def see(self, piece: Any) -> None:
        """Take in an event."""
        kind, response = str(_get(piece, "type")), _get(piece, "response")
        if kind in {"response.output_text.delta", "response.refusal.delta"}:
            self._texts.append(str(_get(piece, "delta") or ""))
        if response is not None:
            self._model = _get(response, "model") or self._model
        if kind in {"response.completed", "response.incomplete", "response.failed"}:
            self._last = response

    def seen(self) -> list[Answer]:
        """Return the whole output if it came, else the text so far."""
        if self._last is not None:
            return self.answers(self._last)
        return [Answer("".join(self._texts), _given(model=self._model))] if self._texts else []

    def whole(self) -> bool:
        """Tell whether the last event came."""
        return self._last is not None


def _is_output(item: Any) -> bool:
    kind = _get(item, "type")
    if _get(item, "role") is not None:
        return bool(_get(item, "role") == "assistant")
    return kind in {"function_call", "custom_tool_call", "reasoning"}
