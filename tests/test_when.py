"""Times that questions name, against dates written out by hand."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raeburnmemory.when import spans_in


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


NOW = at("2026-03-18T15:30:00")  # a Wednesday
FIRST = at("2024-11-05T08:00:00")
EVER = "-"


def named(question, now=NOW, first=FIRST):
    """Return the spans as dates, with a time of day where they have one."""

    def shown(seconds):
        if math.isinf(seconds):
            return EVER
        text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="minutes").removesuffix("+00:00")
        return text.removesuffix("T00:00")

    return [(shown(start), shown(end)) for start, end, _ in spans_in(question, now, first)]


# Each question and the stretches of time that it names, the end not part of them.
PHRASES = {
    # a whole date
    "what happened on 7 May 2023?": [("2023-05-07", "2023-05-08")],
    "on the 7th of May, 2023": [("2023-05-07", "2023-05-08")],
    "on May 7, 2023 we met": [("2023-05-07", "2023-05-08")],
    "MAY 7TH 2023": [("2023-05-07", "2023-05-08")],
    "Sept. 3rd, 2025": [("2025-09-03", "2025-09-04")],
    "the note of 2025-12-31": [("2025-12-31", "2026-01-01")],
    "2025-2-3": [("2025-02-03", "2025-02-04")],
    "on 1 January 2026": [("2026-01-01", "2026-01-02")],
    # leap days
    "29 February 2024": [("2024-02-29", "2024-03-01")],
    "February 29, 2000": [("2000-02-29", "2000-03-01")],
    "February 28, 2025": [("2025-02-28", "2025-03-01")],
    # a month and a year
    "who called in June 2025?": [("2025-06-01", "2025-07-01")],
    "December 2025": [("2025-12-01", "2026-01-01")],
    "Feb, 2024": [("2024-02-01", "2024-03-01")],
    "the bill of 2025-02": [("2025-02-01", "2025-03-01")],
    # a year
    "where did we live in 2025?": [("2025-01-01", "2026-01-01")],
    "the summer of 1999": [("1999-01-01", "2000-01-01")],
    # no year: each since the oldest memory
    "her birthday on June 5": [
        ("2024-06-05", "2024-06-06"),
        ("2025-06-05", "2025-06-06"),
        ("2026-06-05", "2026-06-06"),
    ],
    "the 3rd of march": [("2024-03-03", "2024-03-04"), ("2025-03-03", "2025-03-04"), ("2026-03-03", "2026-03-04")],
    "on 29 February": [("2024-02-29", "2024-03-01")],
    "trips in August": [("2024-08-01", "2024-09-01"), ("2025-08-01", "2025-09-01"), ("2026-08-01", "2026-09-01")],
    "in early december": [("2024-12-01", "2025-01-01"), ("2025-12-01", "2026-01-01"), ("2026-12-01", "2027-01-01")],
    "is it this May that we move?": [
        ("2024-05-01", "2024-06-01"),
        ("2025-05-01", "2025-06-01"),
        ("2026-05-01", "2026-06-01"),
    ],
    "what happens this march?": [
        ("2024-03-01", "2024-04-01"),
        ("2025-03-01", "2025-04-01"),
        ("2026-03-01", "2026-04-01"),
    ],
    "this june": [("2024-06-01", "2024-07-01"), ("2025-06-01", "2025-07-01"), ("2026-06-01", "2026-07-01")],
    # days around now
    "what did I eat today?": [("2026-03-18", "2026-03-19")],
    "this morning": [("2026-03-18", "2026-03-19")],
    "yesterday I said": [("2026-03-17", "2026-03-18")],
    "who rang last night?": [("2026-03-17", "2026-03-18")],
    "on Monday": [("2026-03-16", "2026-03-17")],
    "last Tuesday": [("2026-03-17", "2026-03-18")],
    "on wednesday": [("2026-03-11", "2026-03-12")],  # today is one: the one before
    "on Thursday": [("2026-03-12", "2026-03-13")],
    # weeks from Monday, weekends, months, years
    "this week": [("2026-03-16", "2026-03-23")],
    "last week": [("2026-03-09", "2026-03-16")],
    "the previous week": [("2026-03-09", "2026-03-16")],
    "last weekend": [("2026-03-14", "2026-03-16")],
    "this month": [("2026-03-01", "2026-04-01")],
    "last month": [("2026-02-01", "2026-03-01")],
    "this year": [("2026-01-01", "2027-01-01")],
    "last year": [("2025-01-01", "2026-01-01")],
    "last day": [("2026-03-17", "2026-03-18")],
    # ago: the farther away, the wider
    "two days ago": [("2026-03-16", "2026-03-17")],
    "1 day ago": [("2026-03-17", "2026-03-18")],
    "a week ago": [("2026-03-08", "2026-03-15")],
    "3 weeks ago": [("2026-02-22", "2026-03-01")],
    "a couple of weeks ago": [("2026-03-01", "2026-03-08")],
    "a month ago": [("2026-02-03", "2026-03-06")],
    "two years ago": [("2023-09-17", "2024-09-18")],
    "a few days ago": [("2026-03-15", "2026-03-16")],
    # a stretch up to now
    "in the past week": [("2026-03-11", "2026-03-19T15:30")],
    "the last three days": [("2026-03-15", "2026-03-19T15:30")],
    "over the past 2 months": [("2026-01-18", "2026-03-19T15:30")],
    "the last ten years": [("2016-03-18", "2026-03-19T15:30")],
    # one side only
    "since Monday": [("2026-03-16", EVER)],
    "since 7 May 2025": [("2025-05-07", EVER)],
    "after 2025-12-31": [("2025-12-31", EVER)],
    "before June 2025": [(EVER, "2025-06-01")],
    "until yesterday": [(EVER, "2026-03-17")],
    "by 3 January 2026": [(EVER, "2026-01-03")],
    "before the last month": [(EVER, "2026-02-01")],
    "since last year": [("2025-01-01", EVER)],
    "before 2025": [(EVER, "2025-01-01")],
    "since two weeks ago": [("2026-03-01", EVER)],
    # two of them
    "between 3 May 2025 and 5 May 2025": [("2025-05-03", "2025-05-04"), ("2025-05-05", "2025-05-06")],
    "yesterday or on Monday": [("2026-03-16", "2026-03-17"), ("2026-03-17", "2026-03-18")],
}


@pytest.mark.parametrize("question", PHRASES)
def test_phrases(question):
    assert sorted(named(question)) == PHRASES[question]


@pytest.mark.parametrize(
    "question",
    [
        "",
        "what does Ana like?",
        "may I ask what Ana may eat?",
        "we march on",
        "this may be wrong",
        "did this march end well?",
        "they march in step",
        "will you be here in a second?",
        "June is my sister",
        "I have 2023 apples",
        "room 2025-b",
        "31 June 2025",
        "30 February 2024",
        "29 February 2025",
        "February 29, 1900",
        "2025-13-01",
        "2025-00-10",
        "0 May 2025",
        "the augustan age",
        "mondays are hard",
        "a dayago",
        "yesterdays",
    ],
)
def test_what_names_no_time(question):
    assert named(question) == []


def test_a_date_that_is_none_is_not_read_as_its_parts():
    """June 2025 would be another time than the one that was meant."""
    assert named("what about 31 June 2025?") == []
    assert named("what about June 31, 2025?") == []


def test_29_february_without_a_year_that_has_one():
    assert named("on 29 February", at("2027-01-01"), at("2025-01-01")) == []
    assert named("on 29 February", at("2029-01-01"), at("2023-01-01")) == [
        ("2024-02-29", "2024-03-01"),
        ("2028-02-29", "2028-03-01"),
    ]


@pytest.mark.parametrize(
    ("now", "question", "expected"),
    [
        ("2026-01-01T00:00:00", "yesterday", ("2025-12-31", "2026-01-01")),
        ("2026-01-31T23:59:59", "last month", ("2025-12-01", "2026-01-01")),
        ("2026-01-01", "last year", ("2025-01-01", "2026-01-01")),
        ("2026-12-31", "this month", ("2026-12-01", "2027-01-01")),
        ("2024-03-31", "a month ago", ("2024-02-13", "2024-03-15")),
        ("2024-03-31", "last month", ("2024-02-01", "2024-03-01")),
        ("2024-02-29", "last year", ("2023-01-01", "2024-01-01")),
        ("2024-02-29", "the past year", ("2023-02-28", "2024-03-01")),
        ("2026-03-01", "two days ago", ("2026-02-27", "2026-02-28")),
        ("2026-03-16", "this week", ("2026-03-16", "2026-03-23")),  # a Monday
        ("2026-03-22", "this week", ("2026-03-16", "2026-03-23")),  # a Sunday
        ("2026-03-16", "last week", ("2026-03-09", "2026-03-16")),
        ("2026-01-02", "last week", ("2025-12-22", "2025-12-29")),
        ("2026-03-16", "on Monday", ("2026-03-09", "2026-03-10")),
        ("2026-03-20", "this weekend", ("2026-03-14", "2026-03-16")),  # of the one to come nothing was said yet
        ("2026-03-21", "this weekend", ("2026-03-21", "2026-03-23")),
        ("2026-03-22", "last weekend", ("2026-03-14", "2026-03-16")),
        ("2026-03-23", "last weekend", ("2026-03-21", "2026-03-23")),
        ("2026-03-18T23:59:59", "today", ("2026-03-18", "2026-03-19")),
        ("2026-03-18T00:00:00", "today", ("2026-03-18", "2026-03-19")),
        ("2026-01-15", "the last 13 months", ("2024-12-15", "2026-01-16")),
    ],
)
def test_boundaries(now, question, expected):
    assert named(question, at(now), at("2026-01-01")) == [expected]


def test_the_last_moment_of_all_years():
    last = datetime.max.replace(tzinfo=timezone.utc).timestamp()  # rounded, it is in the year 10000
    assert named("yesterday", last, last) == [("9999-12-30", "9999-12-31")]
    assert named("today, or in 2026", last, last) == [("2026-01-01", "2027-01-01")]  # no day comes after that one


def test_the_words_are_told_and_the_sides_too():
    (span,) = spans_in("What did she say since 7 May 2025, please?", NOW, FIRST)
    assert span.words == "7 May 2025"
    assert span.start == at("2025-05-07")
    assert span.end == math.inf
    (span,) = spans_in("before June 2025", NOW, FIRST)
    assert (span.start, span.words) == (-math.inf, "June 2025")


def test_any_day_of_the_calendar():
    """Every day of four years, in five ways of writing it."""
    day = datetime(2023, 1, 1, tzinfo=timezone.utc)
    while day.year < 2027:
        end = (day + timedelta(days=1)).timestamp()
        ways = [
            f"{day:%Y-%m-%d}",
            f"{day.day} {day:%B %Y}",
            f"{day:%B} {day.day}, {day.year}",
            f"{day:%d %b %Y}",
            f"{day.day}th of {day:%B} {day:%Y}",
        ]
        for way in ways:
            assert [(s.start, s.end) for s in spans_in(f"x {way} y", NOW, FIRST)] == [(day.timestamp(), end)], way
        day += timedelta(days=1)


SOME = st.sampled_from(
    [
        *("since", "before", "after", "by", "the", "last", "past", "this", "on", "in", "of", "ago", "a", "an", "mid"),
        *("day", "days", "week", "weeks", "weekend", "month", "months", "year", "years", "999", "3", "31", "0", "2024"),
        *("May", "june", "Feb.", "29", "30th", "monday", "today", "yesterday", "night", "few", "several", "1900"),
        *("2024-02-30", "2024-13-01", "2024-02", ",", "twenty", "zero", "couple", "last night", "couple of", "2099"),
    ]
)


@given(words=st.lists(SOME, max_size=7), now=st.integers(0, 4_102_444_800), ago=st.integers(0, 10**9))
def test_any_words_are_read_or_left(words, now, ago):
    """No date of any kind breaks it, and every span is one: it begins before it ends."""
    question = " ".join(words)
    for start, end, said in spans_in(question, now, max(now - ago, 0)):
        assert start < end
        assert said in question
