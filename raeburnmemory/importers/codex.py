"""The session logs of Codex: `~/.codex/sessions/**/rollout-*.jsonl`, a file, or a folder with everything below it.

Read as versions up to 0.65 write them, each line an object with `timestamp`, `type` and `payload`, and the older form
whose lines are the payloads themselves. Messages have no ids there, so that theirs are the numbers of their lines.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from ._chat import Chat, text_of
from ._files import objects, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._chat import Group
    from ._files import Part, Source
    from ._report import Log

__all__ = ["read"]

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_CALLS = {"function_call": "arguments", "custom_tool_call": "input", "local_shell_call": "action"}
_CALLS |= {"web_search_call": "action", "tool_search_call": "arguments"}
_RESULTS = {"function_call_output", "custom_tool_call_output", "tool_search_output", "mcp_tool_call_output"}
_ITEMS = {"message", "reasoning", *_CALLS, *_RESULTS}
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$")
# What the program says in the user's name.
_TOLD = re.compile(r"\s*(<(environment_context|user_instructions|permissions instructions|INSTRUCTIONS)|# AGENTS\.md)")


def read(source: Source) -> Iterator[Group]:
    """Yield the messages of all logs."""
    for part in parts(source.path, r"rollout-.*\.jsonl", "rollout-*.jsonl", deep=True):
        yield from _log(part, source.log)


def _log(part: Part, log: Log) -> Iterator[Group]:
    stem = os.path.splitext(os.path.basename(part.name))[0]
    named = _UUID.search(stem)
    chat: Chat | None = None
    about: dict[str, Any] = {}
    own, start, model = named[0] if named else stem, None, None
    for place, line in objects(part, log):
        kind, payload = line.get("type"), line.get("payload")
        if isinstance(payload, dict):
            time = line.get("timestamp")
        elif kind in _ITEMS:  # until September 2025 the payload was the line
            kind, payload, time = "response_item", line, None
        elif kind is None and isinstance(line.get("id"), str):
            kind, payload, time = "session_meta", line, line.get("timestamp")
        else:
            log.skip(f"a line of the type {kind or line.get('record_type')!r}, which is no message", place)
            continue
        if kind == "session_meta" and chat is None and not about:  # one that was forked repeats those before it
            own = payload["id"] if isinstance(payload.get("id"), str) else own
            start, about = payload.get("timestamp"), {"cwd": payload.get("cwd") or None, "program": "codex"}
            continue
        if kind == "turn_context":
            model = payload["model"] if isinstance(payload.get("model"), str) else model
            continue
        if kind == "event_msg":
            log.skip("events, which repeat what the messages say", place)
            continue
        chat = chat or Chat(log, "codex", own, place, start=start, about=about)
        number = place.rpartition(" ")[2]
        if kind == "compacted":
            yield chat.say(number, "system", text_of(payload.get("message")), place, time=time)
        elif kind == "response_item":
            yield from _item(payload, number, place, time, model, chat, log)
        else:
            log.skip(f"a line of the type {kind!r}, which is no message", place)


def _item(
    item: dict[str, Any], own: str, place: str, time: Any, model: str | None, chat: Chat, log: Log
) -> Iterator[Group]:
    kind = item.get("type")
    if kind == "message":
        text, role = text_of(item.get("content")), _ROLES.get(str(item.get("role")))
        if role is None or not text:
            log.skip("nothing in it" if role else "a role that is none of a conversation", place, item.get("role"))
            return
        if role == "user" and _TOLD.match(text):
            role = "system"
        yield chat.say(own, role, text, place, time=time, model=model if role == "assistant" else None)
    elif kind == "reasoning":
        log.skip("what the model thought before it answered", place)
    elif isinstance(kind, str) and kind in _CALLS:
        name = item.get("name") if isinstance(item.get("name"), str) else kind.removesuffix("_call")
        yield chat.call(own, name, item.get(_CALLS[kind]) or {}, place, call=item.get("call_id"), time=time)
    elif kind in _RESULTS:
        about = {"tool_call_id": item.get("call_id")}
        yield chat.say(own, "tool", _output(item.get("output")), place, time=time, about=about)
    else:
        log.skip(f"an item of the type {kind!r}, which is no message", place)


def _output(output: Any) -> str:
    """Return the text of what a tool answered; that of a command stands in JSON of its own."""
    if isinstance(output, str) and output.startswith("{"):
        try:
            inner = json.loads(output)
        except (ValueError, RecursionError):
            return output
        if isinstance(inner, dict) and isinstance(inner.get("output"), str):
            return str(inner["output"])
    return text_of(output)
