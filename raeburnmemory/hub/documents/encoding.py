"""Bytes to text: by the mark at the beginning, by what is declared, as UTF-8, and else by what the bytes look like."""

from __future__ import annotations

import codecs
import re
from collections import Counter

from ..._optional import extra
from .errors import DecodeError

__all__ = ["decode", "looks_binary"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = (
    re.compile(rb"""^\s*<\?xml[^>]{0,200}encoding\s*=\s*["']([\w.:-]{1,40})"""),
    re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE),
)
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", re.MULTILINE)  # PEP 263, in the first two lines
# What the web calls so is Windows-1252, in which five bytes have no meaning.
_WEB = {"iso8859-1": "cp1252", "ascii": "cp1252"}
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\x08\x1b")) + b"\x7f"
_SEEN = 1 << 16  # bytes from which an encoding is guessed, and at which a binary file shows itself

# Encodings of texts in Latin letters; of those that fit equally well, the first is meant. charset-normalizer takes two
# of three texts in Spanish, Dutch or Icelandic, and one of five in French, for something else.
_LATIN = ("cp1252", "cp1250", "iso8859-2", "cp1254", "cp1257", "cp850", "cp852", "mac-roman")
_LETTERS = tuple(  # beyond ASCII, a language each
    map(
        frozenset,
        (
            "àâæçéèêëîïôœùûüÿ", "äöüßé", "áéíñóúüªº", "àáâãçéêíóôõúüªº", "àèéìíîòóùú", "éëïóöüèáíê", "åäöéàü",
            "æøåéòôü", "äöåšžé", "àçèéíïòóúü", "áéíóúýðþæö",
            "ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "čćđšž", "ăâîşţ",
            "çğıiöşüâîû\u0307", "ąčęėįšųūž", "āčēģīķļņšūž", "äöõüšž",  # noqa: RUF001
        ),
    )
)  # fmt: skip
_SIGNS = frozenset("“”„‘’‚«»‹›–—…•€£°§©®·¿¡×²³½\xa0")  # noqa: RUF001
_FITS = 0.95  # the share of letters and signs that belong to one language
_WHOLE = 0.8  # the share of characters beyond ASCII that are whole, in UTF-8 with some damage


def decode(data: bytes, declared: str | None = None, *, markup: bool = False, uri: str | None = None) -> str:
    """Return the text of *data*; *declared* is an encoding that came with it, *markup* says to look for one inside.

    An encoding of that name that does not exist, or does not fit, is passed over, as browsers do.

    Raises:
        DecodeError: It is text in no encoding.
        MissingDependency: It is not UTF-8, says no other encoding, has no Latin letters, and charset-normalizer is not
            installed.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError as exc:
                raise DecodeError(
                    f"The text begins with the mark of {encoding.upper()}, but is not: {exc.reason} at byte "
                    f"{exc.start}.",
                    uri=uri,
                    remedy="Save it as UTF-8.",
                ) from exc
    for name in (declared, _inside(data, markup=markup), "utf-8", _unmarked(data)):
        text = _try(data, name)
        if text is not None:
            return text
    return _guessed(data, uri)


def looks_binary(data: bytes) -> bool:
    """Tell whether *data* is no text in any encoding: it has zero bytes, or many control characters."""
    head = data[:_SEEN]
    if any(head.startswith(mark) for mark, _ in _MARKS) or _unmarked(data):
        return False
    control = len(head) - len(head.translate(None, _CONTROL))
    return b"\0" in head or control * 50 > len(head)


def _inside(data: bytes, *, markup: bool) -> str | None:
    if markup:
        found = next((match for pattern in _DECLARED if (match := pattern.search(data[:4096]))), None)
        name = found[1].decode("ascii") if found else None
        # That could be read as ASCII, so it is not that.
        return None if name is None or name.lower().startswith(("utf-16", "utf-32", "utf16", "utf32")) else name
    first_two = b"\n".join(data[:1000].split(b"\n", 2)[:2])
    cookie = _COOKIE.search(first_two)
    return cookie[1].decode("ascii") if cookie else None


def _unmarked(data: bytes) -> str | None:
    """Return UTF-16 without its mark: in Western text every second byte is zero, in no other text any is."""
    head = data[: _SEEN & ~1]
    if len(head) < 4 or len(head) % 2:
        return None
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if odd * 10 > half * 6 and not even:
        return "utf-16-le"
    return "utf-16-be" if even * 10 > half * 6 and not odd else None


def _try(data: bytes, name: str | None) -> str | None:
    if not name:
        return None
    try:
        found = codecs.lookup(name.strip().strip("\"'"))
        if not getattr(found, "_is_text_encoding", True):  # rot13, zlib and their like
            return None
        text = data.decode(_WEB.get(found.name, found.name))
    except (LookupError, UnicodeError, ValueError):
        return None
    return None if "\0" in text else text


def _guessed(data: bytes, uri: str | None) -> str:
    """Return text in an encoding that nothing names, and that is not UTF-8 throughout."""
    sample = _sample(data)
    if _is_damaged_utf8(sample):
        return data.decode("utf-8", "replace")
    for name in _latin(sample):
        if (text := _try(data, name)) is not None:
            return text
    with extra("hub", module="charset_normalizer"):
        from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    text = _try(data, best.encoding) if best is not None else None
    if text is None:
        raise DecodeError(
            "The bytes are no text in UTF-8, nor in any encoding that could be guessed.",
            uri=uri,
            remedy="Save the text as UTF-8, or name its encoding: mime='text/plain; charset=…'.",
        )
    return text


def _sample(data: bytes) -> bytes:
    """Return what an encoding is guessed from: whole words, from the first line on that has more than ASCII."""
    tells = re.search(rb"[\x80-\xff]", data)
    begin = data.rfind(b"\n", 0, tells.start()) + 1 if tells else 0
    sample = data[begin : begin + _SEEN]
    if len(data) - begin <= _SEEN:
        return sample
    # Half a character at its end is none, and would speak against the right encoding.
    return sample[: max(sample.rfind(b"\n"), sample.rfind(b" ")) + 1] or sample


def _is_damaged_utf8(sample: bytes) -> bool:
    """Tell whether nearly all beyond ASCII is UTF-8, which no text in another encoding looks like by chance."""
    text = sample.decode("utf-8", "replace")
    beyond = sum(character > "\x7f" for character in text)
    return beyond - text.count("\ufffd") > beyond * _WHOLE


def _latin(sample: bytes) -> list[str]:
    """Return the encodings in which a text has the letters of a language that is written in Latin, the best first."""
    found: list[tuple[float, str]] = []
    for name in _LATIN:
        text = _try(sample, name)
        count = Counter(character for character in (text or "").lower() if character > "\x7f")
        if total := sum(count.values()):
            fits = max(sum(count[one] for one in letters | _SIGNS if one in count) for letters in _LETTERS) / total
            if fits >= _FITS:
                found.append((fits, name))
    return [name for _, name in sorted(found, key=lambda one: -one[0])]
