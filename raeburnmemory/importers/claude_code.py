"""The session logs of Claude Code: `~/.claude/projects/*/*.jsonl`, a file, or a folder with everything below it.

Read as versions 1.0 to 2.1 write them: one JSON object to a line; those of the type `user` and `assistant` are messages
in the form of Anthropic's API, linked by `parentUuid`. What agents did on the side is a session of its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ._chat import Chat
from ._files import objects, parts
from .claude import blocks, call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._chat import Group
    from ._files import Part, Source
    from ._report import Log

__all__ = ["read"]


def read(source: Source) -> Iterator[Group]:
    """Yield the messages of all logs."""
    for part in parts(source.path, r".*\.jsonl", "*.jsonl", deep=True):
        yield from _log(part, source.log)


def _log(part: Part, log: Log) -> Iterator[Group]:
    chats: dict[str, Chat] = {}
    stem = os.path.splitext(os.path.basename(part.name))[0]
    for place, line in objects(part, log):
        kind = line.get("type")
        if kind not in {"user", "assistant"} or not isinstance(line.get("message"), dict):
            log.skip(f"a line of the type {kind!r}, which is no message", place)
            if isinstance(line.get("uuid"), str):  # messages may follow it all the same
                parent = line.get("parentUuid")
                _chat(chats, line, stem, place, log).silent(line["uuid"], parent if isinstance(parent, str) else None)
            continue
        if not isinstance(line.get("uuid"), str):
            log.skip("a message without a uuid", place)
            continue
        yield from _message(line, _chat(chats, line, stem, place, log), place, log)


def _chat(chats: dict[str, Chat], line: dict[str, Any], stem: str, place: str, log: Log) -> Chat:
    own = line["sessionId"] if isinstance(line.get("sessionId"), str) else stem
    if line.get("isSidechain"):
        own += f":{line.get('agentId') or 'aside'}"
    if own not in chats:
        about = {"cwd": line.get("cwd") or None, "git_branch": line.get("gitBranch") or None}
        chats[own] = Chat(log, "claude-code", own, place, start=line.get("timestamp"), about=about)
    return chats[own]


def _message(line: dict[str, Any], chat: Chat, place: str, log: Log) -> Iterator[Group]:
    own, message, time = line["uuid"], line["message"], line.get("timestamp")
    parent = line["parentUuid"] if isinstance(line.get("parentUuid"), str) else None
    if line.get("isMeta"):
        chat.skip(own, parent, "what the program told the model, marked isMeta", place)
        return
    role = "user" if line["type"] == "user" else "assistant"
    text, calls = blocks(message.get("content"), place, log)
    if text:
        if role == "user" and line.get("isCompactSummary"):
            role = "system"  # the program's summary of what was said so far, not a question
        model = message.get("model")
        yield chat.say(
            own,
            role,
            text,
            place,
            time=time,
            model=model if role == "assistant" and isinstance(model, str) and model else None,
            parent=parent,
        )
    else:
        chat.silent(own, parent)
        if not calls and not message.get("content"):
            log.skip("nothing in it", place)
    for at, block in enumerate(calls):
        yield from call(block, f"{own}/{at}", place, time, chat, own)
        chat.settle(own)
