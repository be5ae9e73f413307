"""The log of Simon Willison's `llm`: its SQLite database `logs.db`.

Read as versions 0.12 to 0.36 write it: `responses`, a row for each prompt and its response, and since 0.32 the store of
messages, in which `turns` name the first and last of each call and equal beginnings of conversations are kept once.
Both may stand in one file.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import urllib.parse
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ._chat import Chat, text_of
from ._files import only_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._chat import Group
    from ._files import Source
    from ._report import Log

__all__ = ["read"]

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "tool": "tool"}


def read(source: Source) -> Iterator[Group]:
    """Yield the messages of a log, conversation by conversation."""
    path = only_file(source.path).name
    try:
        with contextlib.closing(sqlite3.connect(f"file:{urllib.parse.quote(path)}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            db.execute("BEGIN")  # so that all is read as of one moment
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables & {"responses", "turns"}:
                raise InvalidInput(
                    f"{path!r} is a database, but no log of llm: it has neither a table 'responses' nor 'turns'. The "
                    f"command `llm logs path` says where the log is."
                )
            log = _Log(db, path, source.log, tables)
            if "responses" in tables:
                yield from log.responses()
            if "turns" in tables:
                yield from log.turns()
    except sqlite3.Error as exc:
        raise InvalidInput(
            f"{path!r} cannot be read as a database: {exc}. Nothing was imported. Name the file that `llm logs path` "
            f"prints, or put back a copy of it."
        ) from exc


class _Log:
    def __init__(self, db: sqlite3.Connection, path: str, log: Log, tables: set[str]) -> None:
        self._db = db
        self._path = path
        self._log = log
        self._tables = tables

    def _rows(self, table: str, select: str, *values: Any) -> list[sqlite3.Row]:
        return self._db.execute(select, values).fetchall() if table in self._tables else []

    # --- a row for each prompt and response ---------------------------------------------------------------------

    def responses(self) -> Iterator[Group]:
        """Yield what the table of responses holds."""
        names = {row["id"]: row["name"] for row in self._rows("conversations", "SELECT id, name FROM conversations")}
        chat, current = None, None
        for row in self._db.execute("SELECT * FROM responses ORDER BY conversation_id, datetime_utc, id"):
            place = f"{self._path}, response {row['id']}"
            if chat is None or row["conversation_id"] is None or row["conversation_id"] != current:
                current = row["conversation_id"]
                own, about = current or row["id"], {"title": names.get(current)}
                chat = Chat(self._log, "llm", own, place, start=row["datetime_utc"], about=about)
            yield from self._response(dict(row), chat, place)

    def _response(self, row: dict[str, Any], chat: Chat, place: str) -> Iterator[Group]:
        own, time = row["id"], row["datetime_utc"]
        told = [*self._fragments("system_fragments", own), *filter(None, [row["system"]])]
        if told:
            yield chat.say(f"{own}/system", "system", "\n".join(told), place, time=time)
        results = self._rows("tool_results", "SELECT * FROM tool_results WHERE response_id = ? ORDER BY id", own)
        for each in results:
            about = {"tool_call_id": each["tool_call_id"]}
            yield chat.say(
                f"{own}/result {each['id']}", "tool", each["output"] or "", place, time=time, name=each["name"],
                about=about,
            )  # fmt: skip
        asked = [*self._fragments("prompt_fragments", own), *filter(None, [row["prompt"]])]
        files = self._rows(
            "prompt_attachments",
            "SELECT a.id, a.type, a.path, a.url FROM prompt_attachments p JOIN attachments a ON a.id = p.attachment_id "
            'WHERE p.response_id = ? ORDER BY p."order"',
            own,
        )
        if asked or files:
            about = {"attachments": [_present(each) for each in files] or None}
            yield chat.say(f"{own}/prompt", "user", "\n".join(asked), place, time=time, about=about)
        elif not results:
            self._log.skip("nothing in it", f"{place}, prompt")
        calls = self._rows("tool_calls", "SELECT * FROM tool_calls WHERE response_id = ? ORDER BY id", own)
        model = row.get("resolved_model") or row["model"]
        if row["response"]:
            usage = {"input": row.get("input_tokens"), "output": row.get("output_tokens")}
            about = {"usage": {key: value for key, value in usage.items() if value is not None} or None}
            yield chat.say(own, "assistant", row["response"], place, time=time, model=model, about=about)
        elif not calls:
            self._log.skip("nothing in it", f"{place}, response")
        for each in calls:
            yield chat.call(
                f"{own}/call {each['id']}", each["name"], _parsed(each["arguments"]), place,
                call=each["tool_call_id"], time=time,
            )  # fmt: skip

    def _fragments(self, table: str, response: str) -> list[str]:
        select = f'SELECT f.content FROM {table} t JOIN fragments f ON f.id = t.fragment_id WHERE t.response_id = ? ORDER BY t."order"'  # noqa: E501
        return [row["content"] for row in self._rows(table, select, response)]

    # --- the store of messages ----------------------------------------------------------------------------------

    def turns(self) -> Iterator[Group]:
        """Yield what the turns of each thread added to it."""
        for thread in self._db.execute("SELECT * FROM threads ORDER BY datetime_utc, id").fetchall():
            place = f"{self._path}, thread {thread['id']}"
            about = {"title": thread["name"], "forked_from": thread["forked_from"]}
            chat = Chat(self._log, "llm", thread["id"], place, start=thread["datetime_utc"], about=about)
            seen: set[str] = set()
            turns = self._db.execute(
                "SELECT * FROM turns WHERE thread_id = ? ORDER BY datetime_utc, id", [thread["id"]]
            )
            for turn in turns.fetchall():
                new = []
                at = turn["tip_message_hash"]
                while at is not None and at not in seen:
                    seen.add(at)
                    message = self._db.execute("SELECT * FROM messages WHERE hash = ?", [at]).fetchone()
                    if message is None:
                        self._log.skip("a message that is not there", f"{place}, turn {turn['id']}", at)
                        break
                    new.append(message)
                    at = message["parent_hash"]
                for message in reversed(new):
                    where = f"{place}, message {message['hash']}"
                    yield from self._message(message, dict(turn), chat, where)

    def _message(self, message: sqlite3.Row, turn: dict[str, Any], chat: Chat, place: str) -> Iterator[Group]:
        own, parent = message["hash"].rpartition(":")[2], message["parent_hash"]
        parent = parent.rpartition(":")[2] if parent else ""
        role, time = _ROLES.get(message["role"]), turn["datetime_utc"]
        if role is None:
            chat.skip(own, parent, "a role that is none of a conversation", place, message["role"])
            return
        said, files, calls = [], [], []
        select = "SELECT * FROM parts WHERE message_hash = ? ORDER BY position"
        for part in self._db.execute(select, [message["hash"]]):
            payload = _parsed(part["payload"]) if part["payload"] else {}
            if part["type"] == "text":
                said.append(self._text(part["text"], payload))
            elif part["type"] == "attachment" and isinstance(payload.get("attachment"), dict):
                files.append(self._attachment(payload["attachment"]))
            elif part["type"] in {"tool_call", "tool_result"}:
                calls.append((part["type"], part["tool_name"] or payload.get("name") or "tool", payload))
            elif part["type"] == "reasoning":
                self._log.skip("what the model thought before it answered", place)
            else:
                self._log.skip(f"a part of the type {part['type']!r}", place)
        text = "".join(said)
        if text or files:
            yield chat.say(
                own,
                role,
                text,
                place,
                time=time,
                model=(turn.get("resolved_model") or turn["model"]) if role == "assistant" else None,
                about={"attachments": files or None},
                parent=parent,
            )
        else:
            chat.silent(own, parent)
            if not calls:
                self._log.skip("nothing in it", place)
        for at, (kind, name, payload) in enumerate(calls):
            each, call = f"{own}/{at}", payload.get("tool_call_id")
            if kind == "tool_call":
                yield chat.call(each, name, payload.get("arguments") or {}, place, call=call, time=time, parent=own)
            else:
                output = text_of(payload.get("output"))
                about = {"tool_call_id": call}
                yield chat.say(each, "tool", output, place, time=time, name=name, about=about, parent=own)
            chat.settle(own)

    def _text(self, text: str | None, payload: dict[str, Any]) -> str:
        """Return the text of a part, that of fragments in it put in their places."""
        if text is not None:
            return text
        found = []
        for piece in payload.get("text_ref") or []:
            if "literal" in piece:
                found.append(str(piece["literal"]))
            else:
                row = self._db.execute("SELECT content FROM fragments WHERE id = ?", [piece.get("fragment")]).fetchone()
                found.append(row["content"] if row else "")
        return "".join(found)

    def _attachment(self, named: dict[str, Any]) -> dict[str, Any]:
        row = self._db.execute("SELECT id, type, path, url FROM attachments WHERE id = ?", [named.get("id")]).fetchone()
        return _present(row) if row else named


def _present(row: sqlite3.Row) -> dict[str, Any]:
    return {key: row[key] for key in row.keys() if row[key] is not None}  # noqa: SIM118 - a row is no dict


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text or {}
