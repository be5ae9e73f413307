"""Messages as mem0 takes them: a text, a dict or a list of dicts, their content a text or parts of one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ._errors import ValidationError

__all__ = ["conversation", "listed", "told"]

_log = logging.getLogger("raeburnmemory")


def listed(messages: Any) -> list[Any]:
    """Return messages as a list.

    Raises:
        ValidationError: They are neither a text nor a dict nor a list.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping):
        return [messages]
    if isinstance(messages, (list, tuple)):
        return list(messages)
    raise ValidationError(
        "messages must be str, dict, or list[dict]",
        "VALIDATION_003",
        {"provided_type": type(messages).__name__, "valid_types": ["str", "dict", "list[dict]"]},
        "Convert your input to a string, dictionary, or list of dictionaries.",
    )


def told(messages: Sequence[Any]) -> list[dict[str, Any]]:
    """Return role, text and speaker of each message; one without a role or text is left out, with a warning."""
    found = []
    for message in messages:
        role = message.get("role") if isinstance(message, Mapping) else None
        text = _text(message.get("content")) if isinstance(message, Mapping) else None
        if not isinstance(role, str) or text is None:
            _log.warning("Skipping a message without a role or text: %r", message)
            continue
        name = message.get("name")
        found.append({"role": role, "content": text, "name": name if isinstance(name, str) and name else None})
    return found


def _text(content: Any) -> str | None:
    if isinstance(content, (list, tuple)):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        return " ".join(texts) if texts else None
    return content if isinstance(content, str) else None


def conversation(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return messages as one text, each with who said it."""
    return "\n".join(f"{message['name'] or message['role']}: {message['content']}" for message in messages)
