"""Reading JSON one element at a time: a file of half a gigabyte never stands in memory.

`json` parses whole documents only, so the elements of an array are parsed one by one from a window over the file.
ijson was turned down: it is one more dependency, and without its C part it takes about ten times as long.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..records import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["MOST", "elements"]

MOST = 1 << 28  # characters of one element: more than any conversation, less than would fill the memory
_CHUNK = 1 << 20
_TAIL = 16  # a number, a literal or an escape that the window's end cuts in two is shorter
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def elements(file: BinaryIO, name: str, key: str | None = None) -> Iterator[tuple[int, Any]]:
    """Yield the elements of the array that *file* holds, with their numbers from 0.

    An object is taken for an array of one, unless it has an array under *key*, which is meant then: what comes before
    that in the object is passed over.

    Raises:
        InvalidInput: It is damaged, or something else; the message names the place.
    """
    yield from _Window(file, name).elements(key)


class _Window:
    """A part of the file as text, and how far it was read."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._gone = 0  # characters that were let go of before the window
        self._lines = 0  # ends of lines among those
        self._over = False

    def elements(self, key: str | None) -> Iterator[tuple[int, Any]]:
        first = self._peek()
        if not first:
            raise self._damaged("it is empty", 0)
        if first == "{":
            if key is None or not self._into(key):
                self._at = 0
                yield 0, self._value("the object")
                self._nothing_more()
                return
        elif first != "[":
            raise InvalidInput(
                f"{self._name!r} holds neither a JSON list nor an object, but {shown(self._text[self._at :][:40])}. "
                f"Nothing was imported. Name the file that holds the conversations."
            )
        inside = first == "{"
        yield from self._array()
        if not inside:
            self._nothing_more()

    def _into(self, key: str) -> bool:
        """Go to the array under *key* of an object, if it has one. What comes before that stays, to go back to."""
        self._at += 1
        while self._peek() == '"':
            name = self._value("a key")
            if self._peek() != ":":
                return False
            self._at += 1
            if name == key and self._peek() == "[":
                return True
            self._value(f"the value of {name!r}")
            if self._peek() != ",":
                return False
            self._at += 1
            self._peek()
        return False

    def _array(self) -> Iterator[tuple[int, Any]]:
        self._at += 1
        number = 0
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            yield number, self._value(f"element {number}")
            number += 1
            after = self._peek()
            self._at += 1
            if after == "]":
                return
            if after != ",":
                self._at -= 1
                what = "it ends" if not after else f"there is {shown(after)}"
                raise self._damaged(f"after element {number - 1} {what}, where ',' or ']' belongs", self._at)
            self._forget()

    def _value(self, what: str) -> Any:
        self._peek()
        size = _CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError as exc:
                raise self._damaged(f"{what} is nested too deeply", self._at) from exc
            except json.JSONDecodeError as exc:
                cut = exc.msg.startswith("Unterminated") or exc.pos >= len(self._text) - _TAIL
                if self._over or not cut:
                    raise self._damaged(f"{what}: {exc.msg}", exc.pos) from exc
                if len(self._text) - self._at > MOST:
                    raise self._damaged(f"{what} has more than {MOST} characters, or does not end", self._at) from exc
            except ValueError as exc:  # a number of more digits than Python reads
                raise self._damaged(f"{what}: {exc}", self._at) from exc
            else:
                if end < len(self._text) or self._over:
                    self._at = end
                    return value
            # What was parsed so far is parsed again, so the window grows by as much as it has.
            self._more(size)
            size *= 2

    def _nothing_more(self) -> None:
        if self._peek():
            raise self._damaged(f"there is more after its end: {shown(self._text[self._at :][:40])}", self._at)

    def _peek(self) -> str:
        """Pass over white space and return the next character, nothing at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._over:
                return ""
            self._more()

    def _more(self, size: int = _CHUNK) -> None:
        raw = self._file.read(size)
        self._over = not raw
        try:
            self._text += self._decoder.decode(raw, final=self._over)
        except UnicodeDecodeError as exc:
            raise self._damaged(f"it is no UTF-8 ({exc.reason})", len(self._text)) from exc

    def _forget(self) -> None:
        if self._at > _CHUNK // 2:
            self._lines += self._text.count("\n", 0, self._at)
            self._gone += self._at
            self._text, self._at = self._text[self._at :], 0

    def _damaged(self, what: str, at: int) -> InvalidInput:
        line = self._lines + self._text.count("\n", 0, at) + 1
        near = self._text[max(at - 20, 0) : at + 20]
        return InvalidInput(
            f"{self._name!r} is damaged at line {line}, character {self._gone + at}, near {shown(near)}: {what}. "
            f"Nothing was imported. Fetch the file once more, or mend it there."
        )
