"""What makes one hit better than another: what stands around it, what superseded it, when it was said, its copies."""

from __future__ import annotations

import itertools
import re
from datetime import datetime, timedelta, timezone
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from outside import fake

from raeburnmemory import MemoryGraph
from raeburnmemory.embed.builtin import BuiltinEmbedder
from raeburnmemory.errors import InvalidInput
from raeburnmemory.evidence import _once, among
from raeburnmemory.index.lexical import LexicalIndex
from raeburnmemory.nodes import Batch, Node
from raeburnmemory.ranking import OBSERVED, Ranking, Weights
from raeburnmemory.related import LEAST, MOST, RelatedWords

ALL = 10_000
DAY = timedelta(days=1)
NOW = datetime(2026, 5, 20, 12, tzinfo=timezone.utc)  # a Wednesday


@pytest.fixture
def memory():
    with MemoryGraph(":memory:", "builtin", vector_backend="exact") as memory:
        yield memory


def say(memory, **texts):
    for node_id, text in texts.items():
        memory.add_interaction({"id": node_id, "text": text}, timestamp=NOW - 100 * DAY)


def score(hits, node_id):
    return next((hit.score for hit in hits if hit.id == node_id), 0.0)


# --- what stands around it ---------------------------------------------------------------------------------------


def exchanges(memory, session=None):
    pairs = [
        ("Which restaurant near the harbour did you like?", "The Blue Heron, they grill it over juniper."),
        ("How do I sharpen a chisel?", "With a wet stone, at twenty-five degrees."),
        ("What is the tallest mountain of Austria?", "Grossglockner, almost four thousand metres."),
        ("Who painted the ceiling?", "Michelangelo, lying on his back."),
    ]
    for number, (prompt, answer) in enumerate(pairs):
        memory.add_interaction(
            {"id": f"p{number}", "text": prompt}, {"id": f"r{number}", "text": answer}, None, session
        )
    return pairs


@pytest.mark.parametrize("session", [None, "s"])
@pytest.mark.parametrize("number", range(4))
def test_an_answer_is_found_through_its_question(memory, session, number):
    pairs = exchanges(memory, session)
    query = pairs[number][0]
    assert memory.recall(query, ALL, min_coverage=0.01).ids == [f"p{number}"]  # the answer has none of its words
    hits = memory.recall(query, ALL, legs=["lexical", "graph"])
    assert hits.ids[0] == f"p{number}"
    assert f"r{number}" in hits.ids
    if session:
        hit = next(hit for hit in hits if hit.id == f"r{number}")
        assert {"previous", "session"} & {step.relation for step in hit.why.path}
    assert f"p{number}" not in memory.recall(query, ALL, kinds="response").ids


@pytest.mark.parametrize("session", [None, "s"])
@pytest.mark.parametrize("number", range(4))
def test_a_question_is_found_through_its_answer(memory, session, number):
    pairs = exchanges(memory, session)
    query = pairs[number][1]
    assert memory.recall(query, ALL, min_coverage=0.01).ids == [f"r{number}"]
    hits = memory.recall(query, ALL, legs=["lexical", "graph"])
    assert hits.ids[0] == f"r{number}"
    hit = next(hit for hit in hits if hit.id == f"p{number}")
    assert ("responded_with", f"r{number}") in [(step.relation, step.id) for step in hit.why.path]


def test_what_was_said_after_a_matching_question_comes_before_what_was_not(memory):
    for session in ("one", "two"):
        memory.add_message("Good morning.", session_id=session, name="Ana", id=f"{session}-0")
    memory.add_message("Where will the conference take place?", session_id="one", name="Ana", id="one-1")
    memory.add_message("What did you cook?", session_id="two", name="Ana", id="two-1")
    for session in ("one", "two"):
        memory.add_message("In Lyon.", session_id=session, name="Ben", id=f"{session}-2")
    hits = memory.recall("where is the conference", ALL)
    assert score(hits, "one-2") > score(hits, "two-2") + 0.1
    hit = next(hit for hit in hits if hit.id == "one-2")
    assert ("previous", "one-1") in [step[:2] for step in hit.why.path]
    assert score(memory.recall("where is the conference", ALL, legs=["dense", "lexical"]), "one-2") < hit.score


def test_a_link_lifts(memory):
    say(memory, a="Bring a rope.", b="Bring a lamp.", c="The cave near Postojna floods in spring.")
    before = memory.recall("the cave floods", ALL)
    memory.link("a", "c", "links_to")
    after = memory.recall("the cave floods", ALL)
    assert score(after, "a") > score(before, "a") + 0.09
    assert score(after, "b") == pytest.approx(score(before, "b"), abs=1e-3)
    assert after.ids[:2] == ["c", "a"]
    hit = after[1]
    assert [step[:2] for step in hit.why.path] == [("links_to", "c")]
    memory.unlink("a", "c")
    assert score(memory.recall("the cave floods", ALL), "a") == pytest.approx(score(before, "a"), abs=1e-5)
    memory.link("c", "b", "mentions")  # a link helps either of its ends
    assert memory.recall("the cave floods", ALL).ids[:2] == ["c", "b"]


def test_what_is_linked_is_found_without_a_word_of_the_question(memory):
    say(memory, a="Bring a rope.", c="The cave near Postojna floods in spring.")
    assert memory.recall("the cave floods", legs="lexical").ids == ["c"]
    memory.link("c", "a", "links_to")
    assert memory.recall("the cave floods", legs=["lexical", "graph"]).ids == ["c", "a"]


# --- what is superseded ------------------------------------------------------------------------------------------


def chain(memory, texts):
    """Record texts of which each supersedes the one before; return their ids, the newest first."""
    say(memory, **{f"n{number}": text for number, text in enumerate(texts)})
    for number in range(1, len(texts)):
        memory.link(f"n{number}", f"n{number - 1}", "supersedes")
    return [f"n{number}" for number in reversed(range(len(texts)))]


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("legs", [None, ["lexical", "graph"], ["dense", "graph"]], ids=str)
def test_the_newest_comes_first_however_long_the_chain(memory, count, legs):
    ids = chain(memory, [f"The office is in room {number}." for number in range(100, 100 + count)])
    say(memory, other="The office plant needs water.")
    hits = memory.recall("in which room is the office", ALL, legs=legs)
    assert [node_id for node_id in hits.ids if node_id in ids] == ids
    assert hits.ids[0] == ids[0]
    scores = [score(hits, node_id) for node_id in ids]
    assert all(newer > older for newer, older in itertools.pairwise(scores))
    assert next(hit for hit in hits if hit.id == ids[-1]).why.path[0].relation == "supersedes"


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_newest_is_found_where_only_the_oldest_has_the_words(memory, count):
    ids = chain(
        memory, ["The office is in room 100.", "It moved upstairs.", "Now they sit by the lake.", "Zurich."][:count]
    )
    assert memory.recall("office room", min_coverage=0.01).ids == ["n0"]
    hits = memory.recall("office room", legs=["lexical", "graph"])
    assert hits.ids == ids
    assert all(0 <= hit.score <= 1 for hit in hits)
    for hit in hits:
        assert sum(hit.why.legs.values()) == pytest.approx(hit.score, abs=2e-5)


def test_a_link_in_the_middle_that_may_not_be_found(memory):
    chain(memory, ["The office is in room 100.", "The office is in room 200.", "The office is in room 300."])
    memory.update("n1", metadata={"secret": True})
    hits = memory.recall("room 100 of the office", where={"secret": {"exists": False}})
    assert hits.ids == ["n2", "n0"]
    hits = memory.recall("room 100 of the office", where={"secret": True})
    assert hits.ids == ["n1"]


def test_two_that_were_superseded_by_one(memory):
    say(memory, a="The office is in room 100.", b="Its office was room 200.", c="Now by the lake.")
    memory.link("c", "a", "supersedes")
    memory.link("c", "b", "supersedes")
    hits = memory.recall("office room", legs=["lexical", "graph"])
    assert hits.ids[0] == "c"
    assert set(hits.ids[1:]) == {"a", "b"}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_circles_do_no_harm(memory, count):
    say(memory, **{f"n{number}": f"The office is in room {number}." for number in range(count)}, other="office work")
    for number in range(count):
        memory.link(f"n{number}", f"n{(number + 1) % count}", "supersedes")
    hits = memory.recall("office room", ALL)
    assert set(hits.ids) == {*(f"n{number}" for number in range(count)), "other"}
    assert all(0 <= hit.score <= 1 for hit in hits)


@given(
    scores=st.lists(st.floats(-1, 1), min_size=2, max_size=8),
    data=st.data(),
)
def test_sinking_leaves_every_older_one_below_its_newer_one(scores, data):
    count = len(scores)
    newer = [data.draw(st.integers(-1, count - 1)) for _ in range(count)]
    ranking = Ranking(np.arange(count), ["words"], np.array([scores], np.float32))
    ranking.sink(np.array(newer))

    def in_circle(place):
        seen = []
        while place >= 0 and place not in seen:
            seen.append(place)
            place = newer[place]
        return place >= 0

    for place, other in enumerate(newer):
        if other >= 0 and not in_circle(place):
            assert ranking.scores[place] < ranking.scores[other]
    best = max(scores)
    assert ranking.scores.max() == pytest.approx(best, abs=1e-6)
    assert ranking.parts.sum(axis=0) == pytest.approx(ranking.scores, abs=1e-6)
    alone = [place for place in range(count) if newer[place] < 0 and place not in newer]
    assert ranking.scores[alone] == pytest.approx(np.array(scores)[alone], abs=1e-6)


def test_facts_that_were_superseded(memory):
    memory.single_valued("lives_in")
    memory.fact("Ana", "lives_in", "Vienna", valid_from="2024-01-01", id="old")
    memory.fact("Ana", "lives_in", "Graz", valid_from="2025-01-01", id="new")
    memory.fact("Ben", "lives_in", "Linz", valid_from="2025-01-01", id="ben")
    hits = memory.recall("where does Ana live")
    assert hits.ids[0] == "new"
    assert score(hits, "old") < score(hits, "new")
    assert memory.recall("Vienna").ids[0] == "new"  # what was asked for is no longer so
    memory.undo("new")
    assert memory.recall("where does Ana live").ids[0] == "old"


# --- time --------------------------------------------------------------------------------------------------------

WHEN = {
    "yesterday": NOW - DAY,
    "last_week": NOW - 8 * DAY,  # Tuesday of the week before
    "seventh": datetime(2026, 5, 7, 9, tzinfo=timezone.utc),
    "april": datetime(2026, 4, 3, 9, tzinfo=timezone.utc),
    "monday": datetime(2026, 5, 18, 9, tzinfo=timezone.utc),
    "long_ago": datetime(2023, 2, 1, tzinfo=timezone.utc),
}


def dated(memory, text="We talked about the boat."):
    for node_id, when in WHEN.items():
        memory.add_interaction({"id": node_id, "text": text}, timestamp=when)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("yesterday", {"yesterday"}),
        ("last week", {"last_week"}),
        ("on 7 May 2026", {"seventh"}),
        ("on May 7", {"seventh"}),
        ("in April", {"april"}),
        ("since Monday", {"monday", "yesterday"}),
        ("before 2024", {"long_ago"}),
        ("in February 2023", {"long_ago"}),
        ("two days ago", {"monday"}),
    ],
)
def test_what_was_said_at_a_named_time_comes_first(memory, words, expected):
    dated(memory)
    hits = memory.recall(f"what did we say about the boat {words}", ALL, now=NOW)
    assert set(hits.ids[: len(expected)]) == expected
    assert set(hits.ids) == set(WHEN)  # the time is a wish, not a filter
    assert "time" in hits.legs
    assert all(hit.why.legs["time"] > 0 for hit in hits[: len(expected)])
    assert hits[len(expected) - 1].score > hits[len(expected)].score
    assert set(memory.recall(words, ALL, legs="time", now=NOW).ids) >= expected
    without = memory.recall(f"what did we say about the boat {words}", ALL, now=NOW, legs=["dense", "lexical"])
    assert len({hit.score for hit in without}) == 1


def test_the_moment_a_question_is_asked_counts(memory):
    dated(memory)
    assert memory.recall("the boat yesterday", now=NOW).ids[0] == "yesterday"
    assert memory.recall("the boat yesterday", now=WHEN["april"] + DAY).ids[0] == "april"
    assert memory.recall("the boat yesterday", now="2026-05-08").ids[0] == "seventh"


def test_no_time_no_effect(memory):
    dated(memory)
    hits = memory.recall("what did we say about the boat", ALL, now=NOW)
    assert "time" not in hits.legs
    assert all(not hit.why.legs.get("time") for hit in hits)
    assert hits == memory.recall("what did we say about the boat", ALL, now=NOW - 500 * DAY)


def test_a_time_at_which_nothing_was_said_changes_nothing(memory):
    """Three kinds of texts, whose scores are of different wholes: none may gain on the others."""
    dated(memory)
    memory.add_interaction(
        {"id": "p", "text": "Is the boat ready?"}, "The boat is.", None, "s", timestamp=NOW - 90 * DAY
    )
    memory.add_message("The boat!", session_id="t", name="Ana", timestamp=NOW - 90 * DAY)
    plain = memory.recall("the boat", ALL, now=NOW)
    timed = memory.recall("the boat on 3 March 2021", ALL, now=NOW, legs=["dense", "lexical", "graph", "form"])
    assert "time" not in timed.legs
    looked = memory.recall("the boat on 3 March 2021", ALL, now=NOW)
    assert "time" in looked.legs
    assert looked.ids == timed.ids
    assert [hit.score for hit in looked] == [hit.score for hit in timed]
    assert set(looked.ids) == set(plain.ids)


@pytest.mark.parametrize("now", ["0001-01-01", "9999-12-31T23:59:59"])
@pytest.mark.parametrize(
    "words", ["yesterday", "last week", "last weekend", "this year", "3 years ago", "since Monday"]
)
def test_times_outside_the_calendar_are_none(memory, now, words):
    dated(memory)
    assert set(memory.recall(f"the boat {words}", ALL, now=now).ids) == set(WHEN)


def test_newness(memory):
    dated(memory)
    newest = sorted(WHEN, key=WHEN.get, reverse=True)
    hits = memory.recall("the boat", ALL, recency=0.5, half_life=10, now=NOW)
    assert hits.ids == newest
    plain = {hit.id: hit.score for hit in memory.recall("the boat", ALL)}
    for hit in hits:
        age = (NOW - WHEN[hit.id]) / DAY
        assert hit.score == pytest.approx(0.5 * plain[hit.id] + 0.5 * 0.5 ** (age / 10), abs=1e-4)
        assert hit.why.legs["time"] == pytest.approx(0.5 * 0.5 ** (age / 10), abs=1e-4)
    only_new = memory.recall("the boat", ALL, recency=1, half_life=1e-300, now=NOW)
    assert all(hit.score == 0 for hit in only_new)
    assert memory.recall("the boat", ALL, recency=1, half_life=10, now="2020-01-01")[0].score == 1  # all to come


def test_of_equals_the_newer_comes_first_however_near_they_are(memory):
    for number in range(6):
        said = {"id": f"p{number}", "text": "The boat is at the pier."}
        memory.add_interaction(said, timestamp=NOW - timedelta(milliseconds=100 - number))
    for late in range(200):
        hits = memory.recall(
            "the boat", 6, kinds=["prompt"], recency=0.2, half_life=3, now=NOW + timedelta(seconds=late / 7)
        )
        assert hits.ids == ["p5", "p4", "p3", "p2", "p1", "p0"]


def test_what_has_no_time_is_not_new(memory):
    memory._store.write(Batch(nodes=[Node("timeless", "note", "The boat."), Node("odd", "note", "The boat.", {"timestamp": "soon"})]))  # fmt: skip
    say(memory, p="The boat.")
    hits = {hit.id: hit for hit in memory.recall("boat", recency=0.5, now=NOW)}
    assert hits["timeless"].why.legs["time"] == hits["odd"].why.legs["time"] == 0
    assert hits["p"].why.legs["time"] > 0
    assert set(memory.recall("boat", since="1970-01-01").ids) == {"p"}
    assert set(memory.recall("boat", until="9999-01-01").ids) == {"p"}


def test_since_is_inclusive_and_until_exclusive(memory):
    dated(memory)
    at = WHEN["seventh"]
    assert "seventh" in memory.recall("boat", since=at).ids
    assert "seventh" not in memory.recall("boat", until=at).ids
    assert memory.recall("boat", since=at, until=at + timedelta(seconds=1)).ids == ["seventh"]
    assert memory.recall("boat", since=at.astimezone(timezone(timedelta(hours=9))), until=at.isoformat()).ids == []


# --- copies and variety ------------------------------------------------------------------------------------------

COPY = "The ferry to the island leaves at nine from the northern pier."
OTHERS = ["The ferry was late.", "An island of birds.", "The pier is closed.", "Northern lights over the island."]


def copied(memory, copies=5):
    say(memory, **{f"copy{number}": COPY for number in range(copies)})
    say(memory, **{f"o{number}": text for number, text in enumerate(OTHERS)})


def test_copies_stay_unless_they_are_to_be_folded(memory):
    copied(memory)
    hits = memory.recall("when does the ferry to the island leave", 5)
    assert set(hits.ids) == {f"copy{number}" for number in range(5)}
    assert all(hit.duplicates == () for hit in hits)


def test_folding(memory):
    copied(memory)
    hits = memory.recall("when does the ferry to the island leave", 5, fold=True)
    assert hits.ids[0] == "copy0"
    assert sorted(hits[0].duplicates) == ["copy1", "copy2", "copy3", "copy4"]
    assert set(hits.ids[1:]) == {"o0", "o1", "o2", "o3"}  # filled from further down
    assert all(hit.duplicates == () for hit in hits[1:])
    assert sorted(hits.to_dicts()[0]["duplicates"]) == sorted(hits[0].duplicates)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    plain = {hit.id: hit.score for hit in memory.recall("when does the ferry to the island leave", ALL)}
    assert all(hit.score == plain[hit.id] for hit in hits)


@pytest.mark.parametrize("copies", [60, 250])
@pytest.mark.parametrize("options", [{"fold": True}, {"fold": True, "diversity": 0.3}], ids=str)
def test_folding_hundreds_of_copies(copies, options):
    with MemoryGraph(":memory:", fake, vector_backend="exact") as memory:
        memory.add_many([({"id": f"copy{number}", "text": COPY},) for number in range(copies)])
        say(memory, **{f"o{number}": text for number, text in enumerate(OTHERS)})
        hits = memory.recall("when does the ferry to the island leave", 4, **options)
        assert len(hits) == 4
        assert hits.ids[0] == "copy0"
        assert len(hits[0].duplicates) == copies - 1
        assert len(memory.recall("ferry island", ALL, **options)) == 1 + len(OTHERS)


def test_near_copies(memory):
    say(memory, a=COPY, b=COPY.upper() + "!", c=f"{COPY} Hurry!", d="The ferry leaves at nine.")
    hits = memory.recall("the ferry to the island", fold=True)
    assert hits.ids == ["a", "d"]
    assert set(hits[0].duplicates) == {"b", "c"}


def test_texts_without_words_are_no_copies(memory):
    memory.add_interaction({"id": "p", "text": "Which ferry?"}, {"id": "r", "text": "..."}, None, "s")
    memory.add_interaction({"id": "q", "text": "Which ferry leaves?"}, {"id": "t", "text": "???"}, None, "s")
    hits = memory.recall("ferry", fold=True)
    assert {"r", "t"} <= set(hits.ids)


def test_variety(memory):
    copied(memory)
    query = "when does the ferry to the island leave"
    plain = memory.recall(query, 5)
    assert memory.recall(query, 5, diversity=0) == plain
    varied = memory.recall(query, 5, diversity=0.5)
    assert varied.ids[0] == plain.ids[0]
    assert len(varied) == 5
    assert len([node_id for node_id in varied.ids if node_id.startswith("copy")]) == 1
    assert all(hit.duplicates == () for hit in varied)
    scores = {hit.id: hit.score for hit in memory.recall(query, ALL)}
    assert all(hit.score == scores[hit.id] for hit in varied)


@given(diversity=st.floats(0.01, 1), k=st.integers(1, 9))
def test_variety_as_the_paper_has_it(ferry, diversity, k):
    """Maximal marginal relevance by hand, with the cosines of counted words."""
    query = "the ferry to the northern island"
    everything = ferry.recall(query, ALL)
    vocabulary = ferry._recall._corpus.words.words
    counted = [{word: vocabulary.of(hit.text).count(word) for word in vocabulary.of(hit.text)} for hit in everything]

    def cosine(one, other):
        lengths = [np.sqrt(sum(count**2 for count in each.values())) for each in (one, other)]
        return sum(count * other.get(word, 0) for word, count in one.items()) / np.prod(lengths)

    picked, left = [], list(range(len(everything)))
    hits = ferry.recall(query, k, diversity=diversity)
    for hit in hits:
        worth = {
            place: (1 - diversity) * everything[place].score
            - diversity * max((cosine(counted[place], counted[other]) for other in picked), default=0)
            for place in left
        }
        chosen = everything.ids.index(hit.id)
        assert worth[chosen] == pytest.approx(max(worth.values()), abs=1e-4)
        picked.append(chosen)
        left.remove(chosen)
    assert len(hits) == min(k, len(everything))


@pytest.fixture(scope="module")
def ferry():
    with MemoryGraph(":memory:", "builtin", vector_backend="exact") as memory:
        copied(memory, 2)
        yield memory


# --- weights -----------------------------------------------------------------------------------------------------


def test_weights_decide(memory):
    say(memory, words="The ferry leaves the pier.", meaning="A ship departs from the dock.")
    memory.weights = Weights(lone={"words": 1.0})
    assert memory.recall("ferry pier").ids[0] == "words"
    memory.weights = Weights(lone={"meaning": 1.0})
    assert memory.recall("ship dock", ALL).ids[0] == "meaning"
    for hit in memory.recall("ship dock", ALL):
        assert {leg for leg, amount in hit.why.legs.items() if amount} == {"dense"}


def test_weights_of_nothing(memory):
    say(memory, a="The ferry.", b="A ferry.")
    memory.weights = Weights({}, {}, {})
    hits = memory.recall("ferry")
    assert sorted(hits.ids) == ["a", "b"]
    assert [(hit.score, hit.why.legs) for hit in hits] == [(0, {}), (0, {})]
    assert "2 hits" in hits.explain()


@pytest.mark.parametrize(
    "weights", [{"smell": 1.0}, {"words": -1}, {"words": "1"}, {"words": True}, {"words": float("nan")}, {3: 1.0}]
)
@pytest.mark.parametrize("kind", ["people", "chat", "lone"])
def test_weights_that_are_none(kind, weights):
    with pytest.raises(InvalidInput, match=kind):
        Weights(**{kind: weights})


def test_every_weight_is_of_something_observed():
    given_weights = Weights().to_dict()
    assert all(set(weights) <= set(OBSERVED) for weights in given_weights.values())
    assert set(OBSERVED) == set().union(*given_weights.values())


# --- numbers of candidates ---------------------------------------------------------------------------------------


@given(
    parts=st.lists(st.lists(st.integers(-1, 19), max_size=6), min_size=1, max_size=4),
    n=st.sampled_from([20, 10_000]),  # of how many there are they are many, or few
)
def test_each_candidate_comes_once_and_is_found_again(parts, n):
    found = _once([np.array(part, np.int32) for part in parts], n)
    assert found.tolist() == sorted({number for part in parts for number in part} - {-1})
    asked = np.arange(-1, 20)
    places = among(asked, found)
    assert places.tolist() == [found.tolist().index(one) if one in found else -1 for one in asked.tolist()]


# --- related words -----------------------------------------------------------------------------------------------


@given(
    texts=st.lists(st.lists(st.text("abcde", min_size=3, max_size=4), max_size=30).map(" ".join), max_size=6),
    asked=st.lists(st.text("abcde", min_size=3, max_size=4), max_size=4),
)
def test_related_words_are_the_nearest_ones(texts, asked):
    """However the vocabulary grew, and whatever was asked in between: as if all were compared and sorted.

    All but those whose beginnings, the first 64 numbers of their vectors, are less alike than 0.4.
    """
    index, embedder = LexicalIndex("none"), BuiltinEmbedder()

    def beginnings(rows):
        return rows[:, :64] / np.maximum(np.linalg.norm(rows[:, :64], axis=1, keepdims=True), 1e-12)

    related = RelatedWords(index)
    for number, text in enumerate([*texts, "puppy dog kitten cat"]):
        index.put(number, text)
        found = related.of([*asked, "dog"])
        vectors = embedder.embed(index.written)
        for word, near in zip([*asked, "dog"], found, strict=True):
            mine = embedder.embed([word])
            cosines = vectors @ mine[0]
            promise = beginnings(vectors) @ beginnings(mine)[0]
            assume((np.abs(promise - 0.4) > 1e-5).all())
            best = sorted((float(c) for c in cosines[promise > 0.4] if c >= LEAST), reverse=True)[: MOST + 1]
            assert [weight for _, weight in near] == pytest.approx([(c - LEAST) / (1 - LEAST) for c in best], abs=1e-5)
            at = [term for term, _ in near]
            assert cosines[at] == pytest.approx(np.array(best), abs=1e-5)
            assert len(set(at)) == len(at)


def test_in_a_large_vocabulary_hardly_any_related_word_is_overlooked():
    index, embedder = LexicalIndex("none"), BuiltinEmbedder()
    words = sorted({word for text in topics.values() for word in re.findall("[a-z]{3,}", text)})
    index.put(0, " ".join(words))
    assert len(index.written) > 3000
    asked = index.written[::50]
    vectors = embedder.embed(index.written)
    found, expected = 0.0, 0.0
    for word, near in zip(asked, RelatedWords(index).of(asked), strict=True):
        cosines = vectors @ embedder.embed([word])[0]
        best = np.sort(cosines)[::-1][: MOST + 1]
        expected += float((best[best >= LEAST] - LEAST).sum())
        found += sum(weight for _, weight in near) * (1 - LEAST)
        assert cosines[[term for term, _ in near]] == pytest.approx(
            [w * (1 - LEAST) + LEAST for _, w in near], abs=1e-5
        )
    assert 0.98 * expected <= found <= 1.0001 * expected


def test_the_best_of_thousands_of_words_that_are_alike():
    """Words made of the same few pieces are related to hundreds of others: most are left out without comparing."""
    index, embedder = LexicalIndex("none"), BuiltinEmbedder()
    syllables = ["".join(pair) for pair in itertools.product("bdgklmnprt", "aiou")]
    words = ["".join(three) for three in itertools.product(syllables[:20], syllables[10:30], syllables[::4])]
    index.put(0, " ".join(words[::2]))
    related, asked = RelatedWords(index), [*words[1::397], "harbour", "dog"]
    related.of(asked[:3])
    index.put(1, " ".join(words[1::2]) + " harbour dog puppy")  # of which three words are asked for again
    vectors = embedder.embed(index.written)
    beginnings = vectors[:, :64] / np.linalg.norm(vectors[:, :64], axis=1, keepdims=True)
    many = 0
    for word, near in zip(asked, related.of(asked), strict=True):
        mine = embedder.embed([word])[0]
        likely = beginnings @ (mine[:64] / np.linalg.norm(mine[:64])) >= 0.4
        cosines = np.where(likely, vectors @ mine, -1)
        best = np.sort(cosines)[::-1][: MOST + 1]
        many += np.count_nonzero(cosines >= LEAST) > 200
        assert cosines[[term for term, _ in near]] == pytest.approx(best[best >= LEAST], abs=1e-5)
        assert [weight for _, weight in near] == sorted((weight for _, weight in near), reverse=True)
    assert many > len(asked) / 2
