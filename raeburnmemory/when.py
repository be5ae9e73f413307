"""Times that a question names: "on 7 May 2023", "last week", "two days ago", "since Monday". English only."""

from __future__ import annotations

import calendar
import math
import re
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Span", "spans_in"]

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
_MONTHS |= {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name} | {"sept": 9}
_DAYS = {name.lower(): number for number, name in enumerate(calendar.day_name)}
_COUNTS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
_NUMBERS = {word: number for number, word in enumerate(_COUNTS.split())}
_NUMBERS |= {"a": 1, "an": 1, "a couple of": 2, "a few": 3, "several": 4}

_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\.?"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_COUNT = rf"(?P<count>\d{{1,3}}|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})"
_UNIT = r"(?P<unit>day|week|weekend|month|year)"

_PATTERNS = [
    (kind, re.compile(rf"\b{pattern}\b", re.IGNORECASE))
    for kind, pattern in [
        ("date", rf"{_YEAR}-(?P<month>[01]?\d)-(?P<day>[0-3]?\d)"),
        ("date", rf"{_DAY}\s+(?:of\s+)?{_MONTH},?\s+{_YEAR}"),
        ("date", rf"{_MONTH}\s+{_DAY},?\s+{_YEAR}"),
        ("date", rf"{_MONTH},?\s+{_YEAR}"),
        ("date", rf"{_YEAR}-(?P<month>[01]\d)"),
        ("date", rf"{_DAY}\s+(?:of\s+)?{_MONTH}"),
        ("date", rf"{_MONTH}\s+{_DAY}"),
        # "may" and "march" are verbs as well: alone, a month needs a word before it that only times have.
        ("date", rf"(?:in|during|since|until|before|after|by|last|early|late|mid)[\s-]+{_MONTH}"),
        ("date", rf"this\s+(?!(?:may|march)\b){_MONTH}"),
        ("date", r"this\s+(?P<month>(?-i:May|March)|(?:may|march)(?=\s*(?:$|[^\w\s])))"),  # "this may be" is no time
        ("date", rf"(?:in|during|since|until|before|after|of)\s+{_YEAR}"),
        ("ago", rf"{_COUNT}\s+{_UNIT}s?\s+ago"),
        ("past", rf"(?:last|past|previous)\s+{_COUNT}\s+{_UNIT}s"),
        ("last", rf"(?:last|previous)\s+{_UNIT}"),
        ("past", rf"past\s+{_UNIT}"),
        ("this", rf"this\s+{_UNIT}"),
        ("weekday", rf"(?:(?:on|last|since|until|before|after|this)\s+)(?P<weekday>{'|'.join(_DAYS)})"),
        ("today", r"(?:today|this\s+(?:morning|afternoon|evening))"),
        ("yesterday", r"(?:yesterday|last\s+night)"),
    ]
]
_LAST = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()  # the last moments of that day are none as a number
_SIDE = re.compile(r"(since|after|before|until|by)\s", re.IGNORECASE)
_SIDE_BEFORE = re.compile(r"\b(since|after|before|until|by)\s+(?:the\s+)?$", re.IGNORECASE)


class Span(NamedTuple):
    """A stretch of time, in seconds since 1970, and the words that name it; the end is not part of it."""

    start: float
    end: float
    words: str


def spans_in(question: str, now: float, first: float) -> list[Span]:
    """Return the times that *question* names, seen from *now*, in UTC.

    Dates without a year stand for that date in every year from *first* on, the time of the oldest memory.
    """
    found: list[Span] = []
    taken: list[tuple[int, int]] = []
    today = datetime.fromtimestamp(min(now, _LAST), timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(question):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            words = {key: value.lower() for key, value in match.groupdict().items() if value}
            # Also where it is no day of any calendar: "31 June 2025" is not to be read as June 2025 next.
            taken.append(match.span())
            # What lies outside the years 1 to 9999 is no time either.
            with suppress(ValueError, OverflowError):
                found += [
                    _bounded(question, match, start, end) for start, end in _meant(kind, words, today, now, first)
                ]
    return found


def _bounded(question: str, match: re.Match[str], start: datetime, end: datetime) -> Span:
    """Return the span, without its beginning or end where the question says "before" or "since"."""
    one, two = start.timestamp(), end.timestamp()
    side = _SIDE_BEFORE.search(question[: match.start()]) or _SIDE.match(match.group())
    if side is not None and side[1].lower() in {"since", "after"}:
        two = math.inf
    elif side is not None:
        one, two = -math.inf, one
    return Span(one, two, match.group())


def _meant(
    kind: str, words: dict[str, str], today: datetime, now: float, first: float
) -> Iterator[tuple[datetime, datetime]]:
    day = timedelta(days=1)
    if kind == "date":
        years = [int(words["year"])] if "year" in words else range(_year(first), today.year + 1)
        for year in years:
            if "month" not in words:
                yield _date(year), _date(year + 1)
                continue
            month = int(words["month"]) if words["month"].isdigit() else _MONTHS[words["month"]]
            if not 1 <= month <= 12:
                continue
            if "day" not in words:
                yield _date(year, month), _date(year + month // 12, month % 12 + 1)
            elif 1 <= int(words["day"]) <= calendar.monthrange(year, month)[1]:
                start = _date(year, month, int(words["day"]))
                yield start, start + day
    elif kind == "today":
        yield today, today + day
    elif kind == "yesterday":
        yield today - day, today
    elif kind == "weekday":
        back = (today.weekday() - _DAYS[words["weekday"]]) % 7 or 7
        yield today - back * day, today - (back - 1) * day
    elif kind == "past":
        start = _back(today, words["unit"], _count(words))
        yield start, datetime.fromtimestamp(now, timezone.utc) + day
    elif kind == "ago":
        start, count = _back(today, words["unit"], _count(words)), _count(words)
        # "Three weeks ago" is no day: the farther away, the less exactly it is meant.
        slack = {"day": 0, "week": 3, "weekend": 3, "month": 15, "year": 183}[words["unit"]] + count // 10
        yield start - slack * day, start + (slack + 1) * day
    else:
        yield _calendar(kind, words["unit"], today)


def _calendar(kind: str, unit: str, today: datetime) -> tuple[datetime, datetime]:
    """Return this or the last day, week (from Monday), weekend, month or year."""
    day, back = timedelta(days=1), kind == "last"
    if unit == "year":
        return _date(today.year - back), _date(today.year - back + 1)
    if unit == "month":
        this = today.replace(day=1)
        start = (this - day).replace(day=1) if back else this
        return start, (start + 31 * day).replace(day=1)
    if unit == "day":
        return today - back * day, today - (back - 1) * day
    monday = today - today.weekday() * day
    if unit == "weekend":
        saturday = monday + 5 * day - (7 * day if back or today.weekday() < 5 else 0 * day)
        return saturday, saturday + 2 * day
    monday -= 7 * back * day
    return monday, monday + 7 * day


def _back(today: datetime, unit: str, count: int) -> datetime:
    if unit == "year":
        return today.replace(year=today.year - count, day=min(today.day, 28))
    if unit == "month":
        months = today.year * 12 + today.month - 1 - count
        return today.replace(year=months // 12, month=months % 12 + 1, day=min(today.day, 28))
    return today - timedelta(days=count * (1 if unit == "day" else 7))


def _count(words: dict[str, str]) -> int:
    count = words.get("count", "one")
    return int(count) if count.isdigit() else _NUMBERS[count]


def _date(year: int, month: int = 1, day: int = 1) -> datetime:
    return datetime(year, month, day, tzinfo=timezone.utc)


def _year(seconds: float) -> int:
    return datetime.fromtimestamp(seconds, timezone.utc).year
