"""Messages in a table: CSV with a header, one message to a row, or a prompt and its response.

Which column says what is told by *columns*, or else by the names in the header. Further columns are kept.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..records import shown
from ._chat import Chat, digest
from ._files import only_file
from ._json_stream import MOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ._chat import Group
    from ._files import Source
    from ._report import Log

__all__ = ["COLUMNS", "read"]

# What a column can be, and the names by which it is known without being told.
COLUMNS = {
    "text": ("text", "content", "message", "body", "prompt", "question"),
    "response": ("response", "answer", "completion", "output", "reply"),
    "role": ("role", "sender", "author", "speaker", "from"),
    "session": ("session", "session_id", "conversation", "conversation_id", "thread", "thread_id", "chat_id"),
    "time": ("time", "timestamp", "date", "datetime", "created_at", "create_time"),
    "id": ("id", "message_id", "uuid"),
}
_ROLES = {
    **dict.fromkeys(["user", "human", "me", "customer", ""], "user"),
    **dict.fromkeys(["assistant", "ai", "bot", "model", "chatgpt", "claude", "gpt", "agent"], "assistant"),
    **dict.fromkeys(["system", "developer"], "system"),
    **dict.fromkeys(["tool", "function"], "tool"),
}
_DELIMITERS = ",;\t|"


def read(source: Source) -> Iterator[Group]:
    """Yield the messages of a table, row by row."""
    part = only_file(source.path)
    csv.field_size_limit(min(MOST, 2**31 - 1))
    with part.open() as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        try:
            yield from _rows(file, part.name, source)
        except UnicodeDecodeError as exc:
            raise InvalidInput(
                f"{part.name!r} is no UTF-8: {exc.reason} at byte {exc.start} of what was read last, {exc.object[exc.start : exc.start + 1]!r}. "  # noqa: E501
                f"Nothing was imported. Save it as UTF-8, or: iconv -f cp1252 -t utf-8 FILE"
            ) from exc
        finally:
            file.detach()


def _rows(file: io.TextIOWrapper, name: str, source: Source) -> Iterator[Group]:
    start = file.read(1 << 16)
    file.seek(0)
    header_line = start.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header_line.count)
    if "\0" in start:
        raise InvalidInput(f"{name!r} is no CSV: it holds NUL characters. Save it as UTF-8.")
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise InvalidInput(f"{name!r} is empty. Its first line must name its columns.")
        table = _Table(header, _chosen(header, source.columns, name), source, name)
        for row in reader:
            if row:
                yield from table.row(row, f"{name}, line {reader.line_num}")
    except csv.Error as exc:
        raise InvalidInput(
            f"{name!r} is damaged at line {reader.line_num}: {exc}. Nothing was imported. Mend the quotation marks "
            f"there."
        ) from exc


def _chosen(header: list[str], asked: Mapping[str, str], name: str) -> dict[str, int]:
    """Return which column is what."""
    plain = [title.strip().lower().replace(" ", "_") for title in header]
    found: dict[str, int] = {}
    for what, title in asked.items():
        if what not in COLUMNS:
            raise InvalidInput(f"{what!r} is nothing that a column can be. Choose one of: {', '.join(COLUMNS)}.")
        if title not in header:
            raise InvalidInput(f"{name!r} has no column {title!r}. Choose one of: {', '.join(map(repr, header))}.")
        found[what] = header.index(title)
    for what, titles in COLUMNS.items():
        if what not in found:
            place = next((plain.index(title) for title in titles if title in plain), None)
            if place is not None and place not in found.values():
                found[what] = place
    if "text" not in found:
        raise InvalidInput(
            f"{name!r} has no column that is known to hold the text, among {', '.join(map(repr, header))}. Name it, on "
            f"the command line with --column text=NAME."
        )
    return found


class _Table:
    def __init__(self, header: list[str], columns: dict[str, int], source: Source, name: str) -> None:
        self._header = header
        self._columns = columns
        self._source = source
        self._name = name
        self._chats: dict[str, Chat] = {}
        self._seen: Counter[str] = Counter()

    def row(self, row: list[str], place: str) -> Iterator[Group]:
        log: Log = self._source.log
        if len(row) != len(self._header):
            log.skip(f"a row that has not {len(self._header)} columns", place, row)
            return
        given = {what: row[at].strip() if what != "text" else row[at] for what, at in self._columns.items()}
        answer = given.get("response", "")
        if not given["text"].strip() and not answer:
            log.skip("nothing in it", place)
            return
        own = given.get("id") or self._named(row)
        chat = self._chat(given.get("session", ""), place)
        said = given.get("role", "")
        role = _ROLES.get(said.lower(), "user")
        rest = {title: row[at] for at, title in enumerate(self._header) if at not in self._columns.values() and row[at]}
        about: dict[str, Any] = {"metadata": rest or None}
        time, name = given.get("time"), said if said.lower() not in _ROLES else None
        if given["text"].strip():
            yield chat.say(own, role, given["text"], place, time=time, name=name, about=about)
        if answer:
            about = about if not given["text"].strip() else {}
            yield chat.say(f"{own}/response", "assistant", answer, place, time=time, about=about)

    def _chat(self, own: str, place: str) -> Chat:
        if own not in self._chats:
            session = None if self._source.session is None else f"{self._source.session}{own and ':'}{own}"
            self._chats[own] = Chat(self._source.log, "csv", own or self._source.stem, place, session=session)
        return self._chats[own]

    def _named(self, row: list[str]) -> str:
        """Return an id for a row that has none: what it says, and how often that came before."""
        own = digest(row)
        self._seen[own] += 1
        return own if self._seen[own] == 1 else f"{own}-{self._seen[own]}"


def as_columns(pairs: Any) -> dict[str, str]:
    """Return columns that are given as `what=NAME`, as on a command line."""
    found: dict[str, str] = {}
    for pair in pairs:
        what, equals, title = str(pair).partition("=")
        if not equals or not title:
            raise InvalidInput(f"--column {shown(pair)} should have the form WHAT=NAME, such as text=Message.")
        found[what] = title
    return found
