"""The words of texts in any script, and which of them stand where, against plain dicts."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import weakref
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outside import ROOT, environment, run

from raeburnmemory.errors import InvalidInput
from raeburnmemory.index._words import ENGLISH, Words, stemmers
from raeburnmemory.index.lexical import LexicalIndex

needs_stemmer = pytest.mark.skipif(stemmers() is None, reason="stems are those of PyStemmer or snowballstemmer")

# Texts and their words as they are, folded but without a stemmer.
PLAIN = {
    "": [],
    " \t\n .,;-_!? ": [],
    "Hello, World!": ["hello", "world"],
    "state-of-the-art e-mail": ["state", "of", "the", "art", "e", "mail"],
    "snake_case camelCase": ["snake", "case", "camelcase"],
    "3.14 0x1F 2026-11-21 B2B": ["3", "14", "0x1f", "2026", "11", "21", "b2b"],
    "C++ and C# at ana@example.org": ["c", "and", "c", "at", "ana", "example", "org"],
    # apostrophes
    "Ana's O'Brien don't 'quoted' rock'n'roll": ["ana", "o'brien", "don't", "quoted", "rock'n'roll"],
    "Ana\u2019s O\u2019Brien don\u2019t \u2018quoted\u2019": ["ana", "o'brien", "don't", "quoted"],
    "the dogs' ' '' 's": ["the", "dogs", "s"],
    # accents, ligatures, widths, case
    "Caf\u00e9 na\u00efve \u00c5ngstr\u00f6m": ["cafe", "naive", "angstrom"],
    "Cafe\u0301 nai\u0308ve": ["cafe", "naive"],  # the same, taken apart
    "\u1ec7 \u01d6": ["e", "u"],  # two marks on one letter
    "Stra\u00dfe STRASSE \ufb01n": ["strasse", "strasse", "fin"],
    "\uff26\uff35\uff2c\uff2c \uff17\uff18": ["full", "78"],
    "\u0130stanbul \u00d8rsted \u0141\u00f3d\u017a": ["istanbul", "\u00f8rsted", "\u0142odz"],
    "x\u00b2 \u00bd \u2163": ["x2", "1\u20442".replace("\u2044", " ").split()[0], "2", "iv"],
    "\u201cAna\u201d\u2014\u201cBen\u201d\u2026": ["ana", "ben"],
    # other scripts with spaces
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!": [
        "\u043f\u0440\u0438\u0432\u0435\u0442",
        "\u043c\u0438\u0440",
    ],
    "\u0401\u043b\u043a\u0430 \u043c\u043e\u0439": [
        "\u0435\u043b\u043a\u0430",
        "\u043c\u043e\u0439",
    ],  # yo is written ye; short i is a letter
    "\u0437\u0430\u0301\u043c\u043e\u043a \u0457\u0436\u0430\u043a": [
        "\u0437\u0430\u043c\u043e\u043a",
        "\u0457\u0436\u0430\u043a",
    ],
    "\u0386\u03bd\u03b8\u03c1\u03c9\u03c0\u03bf\u03c2": ["\u03b1\u03bd\u03b8\u03c1\u03c9\u03c0\u03bf\u03c3"],
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e\u0964": [
        "\u0928\u092e\u0938\u094d\u0924\u0947",
        "\u0926\u0941\u0928\u093f\u092f\u093e",
    ],
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd": ["\u05e9\u05dc\u05d5\u05dd"],  # Hebrew with points
    "\u0643\u0650\u062a\u064e\u0627\u0628 \u0623\u0628": [
        "\u0643\u062a\u0627\u0628",
        "\u0627\u0628",
    ],  # Arabic with vowels
    # scripts without: every character and every pair
    "\u6f22\u5b57": ["\u6f22", "\u6f22\u5b57", "\u5b57"],
    "\u6771\u4eac\u3002\u4eac\u90fd": ["\u6771", "\u6771\u4eac", "\u4eac", "\u4eac", "\u4eac\u90fd", "\u90fd"],
    "\u30ac\u30b9": ["\u30ac", "\u30ac\u30b9", "\u30b9"],
    "\uff76\uff9e\uff7d": ["\u30ac", "\u30ac\u30b9", "\u30b9"],  # half-width kana, voiced by a mark of its own
    "\ub098\ub77c\ub294": ["\ub098", "\ub098\ub77c", "\ub77c", "\ub77c\ub294", "\ub294"],
    "\u0e44\u0e17\u0e22": ["\u0e44", "\u0e44\u0e17", "\u0e17", "\u0e17\u0e22", "\u0e22"],
    "LG\uc804\uc790 GPT4\u304c": ["lg", "\uc804", "\uc804\uc790", "\uc790", "gpt4", "\u304c"],
    "\U0001f984\U0001f984 ok": ["ok"],
}


@pytest.mark.parametrize("text", PLAIN, ids=lambda text: text[:12])
def test_words_of_any_script(text):
    assert Words("none").of(text) == PLAIN[text]


def test_a_word_is_found_wherever_it_is_written_so():
    """Quotes, width, case and marks around or on a word make no other word of it."""
    words = Words("none")
    for word in ("kettle", "o'brien", "2026", "stra\u00dfe"):
        expected = words.of(word)
        assert len(expected) == 1
        for other in (
            word.upper(),
            f"\u201c{word}\u201d,",
            f"({word})\u2026",
            f"\u00bf{word}?",
            f"{word}'s",
            f"{word}\u2019s",
        ):
            assert words.of(other) == expected, other


ASCII = st.text(st.sampled_from("abzABZ019 .,-_()!?'\"\t\n/"), max_size=20)


@given(text=ASCII)
def test_the_short_way_for_ascii_is_the_long_way(text):
    """A sign that is no word sends a text through the other way."""
    words = Words("none")
    expected = words.of(text)
    assert [word for chunk in text.split() for word in words.of(f"\u00ab{chunk}\u00bb")] == expected


MARKS = st.sampled_from(["\u0301", "\u0308", "\u05b8", "a", "e\u0301", "'", "\u2019s", " ", "\u0430"])


@pytest.mark.parametrize("language", ["none", pytest.param("german", marks=needs_stemmer), "english"])
@given(text=st.text(max_size=30) | st.lists(MARKS, max_size=9).map("".join))
def test_any_text(language, text):
    """Words come in order, are never empty, hold no space, and are counted as often as they are there."""
    words = Words(language)
    found = words.of(text)
    assert found == words.of(text)  # from the cache
    assert all(word and not any(map(str.isspace, word)) for word in found)
    assert Counter(words.of(text + " " + text)) == Counter(found + found)
    assert set(words.shown(text)) == set(found)


def test_a_text_longer_than_what_is_remembered():
    words = Words("none")
    assert words.of("a-" * 1000) == ["a"] * 1000


# --- stems and words left out -----------------------------------------------------------------------------------


@needs_stemmer
def test_english():
    words = Words()
    assert words.language == "english"
    assert words.missing is None
    assert words.of("The dogs were running, and I wasn't!") == ["dog", "run"]
    assert words.of("connected connection connecting connections") == ["connect"] * 4
    assert words.of("She went; he goes. They have gone.") == ["go"] * 3  # forms that no rule leads to
    assert words.of("mice and children") == words.of("mouse child")
    assert words.of("R\u00e9sum\u00e9s") == words.of("resumes")
    assert words.of("B2B o'brien's 3rd") == ["b2b", "o'brien", "3rd"]  # no words of English: as they are
    assert words.of("who is it that would not do so?") == []
    assert words.of("WON\u2019T don't Isn\u2019T") == []


def test_function_words_are_folded_as_texts_are():
    words = Words()
    for word in ENGLISH:
        for written in (word, word.upper(), word.replace("'", "\u2019"), f"\u201c{word}\u201d"):
            assert words.of(written) == []
    assert words.of("Let's see what's here; who'd let Ana's may?")[-2:] == ["ana", "may"]
    assert words.of("Let's go home")[-1:] == ["home"]
    assert "let" not in words.of("let's")


@needs_stemmer
@pytest.mark.parametrize(
    ("language", "forms"),
    [
        (
            "russian",
            ["\u043d\u043e\u0432\u044b\u0439", "\u043d\u043e\u0432\u0430\u044f", "\u041d\u043e\u0432\u044b\u0435"],
        ),
        ("portuguese", ["educa\u00e7\u00e3o", "educa\u00e7\u00f5es", "EDUCA\u00c7\u00c3O"]),
        ("spanish", ["com\u00edan", "comer", "comi\u0301an"]),
        ("german", ["H\u00e4user", "Haus", "Hauses"]),
        ("german", ["Stra\u00dfe", "Strassen"]),
        ("french", ["l'\u00e9cole", "\u00e9coles", "d\u2019\u00c9cole"]),
        ("italian", ["dell'arte", "arte", "Dall\u2019Arte"]),
        ("hindi", ["\u0932\u0921\u093c\u0915\u093e", "\u0932\u0921\u093c\u0915\u0947"]),
        ("turkish", ["\u00e7ocuk", "\u00e7ocuklar"]),
    ],
)
def test_other_languages(language, forms):
    words = Words(language)
    assert len({tuple(words.of(form)) for form in forms}) == 1
    (stem,) = words.of(forms[0])
    assert stem == Words("none").of(stem)[0]  # no accent is left
    assert words.of("the and") != []  # only English has words that are left out
    assert words.of("h\u00e94 \u6f22\u5b57") == ["he4", "\u6f22", "\u6f22\u5b57", "\u5b57"]


@needs_stemmer
@pytest.mark.parametrize("language", ["klingon", "", "English", "en", None, 5])
def test_an_unknown_language(language):
    with pytest.raises(InvalidInput, match="none, arabic.*english") as caught:
        Words(language)
    assert repr(language) in str(caught.value)


def test_how_a_word_was_written():
    words = Words("none")
    assert words.shown("Ana's Caf\u00e9, cafe!") == {"ana": "ana", "cafe": "cafe"}


@needs_stemmer
def test_how_a_stem_was_written():
    words = Words()
    assert words.shown("He was running and runs Connections") == {"run": "running", "connect": "connections"}
    assert words.shown("He runs and was running connections")["run"] == "runs"


@needs_stemmer
def test_questions_leave_no_forms_behind():
    """A word of the vocabulary is shown as the first text that holds it has it, whoever asked for it before."""
    index = LexicalIndex()
    index.question("puppies singing")
    index.put(0, "A puppy sang, and the puppies slept.")
    assert dict(zip(index.written, [index.term(word) for word in ("puppi", "sing", "sleep")], strict=True)) == {
        "puppy": 0,
        "sang": 1,
        "slept": 2,
    }


WITHOUT = """
import sys
sys.modules["Stemmer"] = sys.modules["snowballstemmer"] = None
from raeburnmemory.index._words import Words
words = Words()
print(words.missing)
print(words.of("The dogs were running"), Words("none").missing, Words("german").of("H\u00e4user"))
"""


def test_without_a_stemmer_words_stay_as_they_are_and_it_is_said():
    said, found = run(WITHOUT).splitlines()
    assert "pip install PyStemmer" in said
    assert found == "['dogs', 'running'] None ['hauser']"


IN_PYTHON = """
import sys
sys.modules["Stemmer"] = None
from raeburnmemory.index._words import Words
words = Words(sys.argv[1])
assert words.missing is None
assert words.rules["stemmer"].startswith("snowballstemmer ")
print(*words.of(sys.stdin.read()), sep="\\n")
"""


@pytest.mark.parametrize("language", ["english", "german", "russian", "porter"])
def test_stems_in_python_are_those_of_pystemmer(language):
    for package in ("Stemmer", "snowballstemmer"):
        pytest.importorskip(package, reason="the stems of two packages are compared")
    texts = " ".join(path.read_text("utf-8") for path in sorted(ROOT.glob("docs/**/*.md"))[:20])
    texts += " Häuser Straße liefen gegangen новые книги читала бежали"
    done = subprocess.run(
        [sys.executable, "-c", IN_PYTHON, language], input=texts, env=environment(PYTHONIOENCODING="utf-8"),
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == Words(language).of(texts)


# --- where they stand -------------------------------------------------------------------------------------------

BOOKS = ["red", "green", "Blue!", "red red", "the", "\u6f22\u5b57", "caf\u00e9", ""]
told = st.lists(st.sampled_from(BOOKS), max_size=6).map(" ".join) | st.none()
steps = st.lists(st.tuples(st.integers(0, 6), told), max_size=30)


def check(index, texts):
    """Everything that the index tells, against counting the words of *texts*."""
    words = Words("none")
    streams = [words.of(text or "") for text in texts]
    assert len(index) == len(texts)
    assert index.held == sum(map(bool, streams))
    assert index.total == sum(map(len, streams))
    assert index.lengths().tolist() == [len(stream) for stream in streams]
    known = {word for text in (*BOOKS, "never") for word in words.of(text)}
    name = {index.term(word): word for word in known if index.term(word) >= 0}
    assert index.term("never") == -1
    for number, stream in enumerate(streams):
        assert [name[term] for term in index.stream_of(number).tolist()] == stream
    for word in known:
        numbers, counts = index.postings(index.term(word))
        found = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        assert len(found) == len(numbers)
        assert found == {n: stream.count(word) for n, stream in enumerate(streams) if word in stream}
    question = index.question("Red red caf\u00e9 never blue, red")
    assert question.words == ["red", "cafe", "never", "blue"]
    assert question.terms == [index.term(word) for word in question.words]
    assert question.pairs == [(0, 1), (1, 2), (2, 3), (3, 0)]
    held = [sum(word in stream for stream in streams) for word in question.words]
    some = sum(map(bool, streams))
    assert question.idf.tolist() == pytest.approx([math.log(1 + (some - n + 0.5) / (n + 0.5)) for n in held])
    assert question.total == pytest.approx(sum(question.idf))


@given(steps=steps, saved=st.sets(st.integers(0, 20)))
def test_putting_replacing_and_dropping(steps, saved):
    """Whether it holds all of it itself, or goes on where others stopped."""
    index, texts = LexicalIndex("none"), []
    for at, (place, text) in enumerate(steps):
        number = min(place, len(texts))
        index.put(number, text)
        texts[number : number + 1] = [text]
        check(index, texts)
        if at in saved:
            index = LexicalIndex("none", {name: part.copy() for name, part in index.to_parts().items()})
            check(index, texts)


def test_room_that_nobody_uses_is_given_back():
    index, texts = LexicalIndex("none"), ["red green " * 3000] * 3 + ["blue"]
    for number, text in enumerate(texts):
        index.put(number, text)
    for turn in range(15):
        number = turn % 3
        texts[number] = "green " * (6000 - turn) + "red"
        index.put(number, texts[number])
        assert len(index._stream) <= 2 * index.total + 100_000
        check(index, texts)


def test_what_was_asked_for_stays_as_it_was():
    """Arrays that were handed out are copies: adding goes on, and they do not change."""
    index = LexicalIndex("none")
    index.put(0, "red green red")
    numbers, counts = index.postings(index.term("red"))
    stream, lengths = index.stream_of(0), index.lengths()
    for number in range(1, 200):
        index.put(number, "red")
    index.put(0, "blue")
    assert (numbers.tolist(), counts.tolist(), lengths.tolist()) == ([0], [2], [3])
    assert stream.tolist() == [0, 1, 0]


def test_an_empty_index():
    index = LexicalIndex("none")
    question = index.question("anything at all")
    assert question.terms == [-1, -1, -1]
    assert np.isfinite(question.idf).all()
    numbers, counts = index.postings(-1)
    assert len(numbers) == len(counts) == len(index.lengths()) == 0
    assert index.question("").total == 0
    assert index.question(" ?! ").words == []


TEXTS_OF_MANY = st.lists(
    st.none()
    | st.lists(
        st.sampled_from(
            ["Red", "red", "reds", "wine's", "the", "7", "e\u0301t\u00e9", "\u8d64\u3044", "a-b", "'", "\u1e9e"]
        )
        | st.text(max_size=5),
        max_size=8,
    ).map(" ".join)
    | st.just("x" * 60 + " red"),
    max_size=12,
)


@given(texts=TEXTS_OF_MANY, cuts=st.lists(st.integers(0, 12), max_size=3))
@settings(deadline=None)
def test_texts_that_come_together_are_as_if_they_had_come_one_by_one(texts, cuts):
    one, many = LexicalIndex("none"), LexicalIndex("none")
    for number, text in enumerate(texts):
        one.put(number, text)
    ends = sorted({min(cut, len(texts)) for cut in cuts} | {len(texts)})
    for start, end in zip([0, *ends], ends, strict=False):
        many.extend(texts[start:end])
    words = Words("none")
    for index in (one, many):
        assert len(index) == len(texts)
        for number, text in enumerate(texts):
            said = words.of(text or "")
            assert [index._vocabulary[term] for term in index.stream_of(number).tolist()] == said
        for word in {word for text in texts for word in words.of(text or "")}:
            found, counts = index.postings(index.term(word))
            wanted = [(n, words.of(text or "").count(word)) for n, text in enumerate(texts)]
            assert list(zip(found.tolist(), counts.tolist(), strict=True)) == [pair for pair in wanted if pair[1]]
    for name, part in one.to_parts().items():
        assert np.array_equal(part, many.to_parts()[name]), name


def bits(chunk):
    """What a memory might want to know of a chunk."""
    return (1 if "7" in chunk else 0) | (2 if chunk.istitle() else 0) | 128 * ("!" in chunk)


@given(
    texts=TEXTS_OF_MANY, above=st.lists(st.sampled_from(["", "Ana: ", "7! ", "one\ntwo\n"]), min_size=12, max_size=12)
)
@settings(deadline=None)
def test_what_stands_before_a_text_is_found_and_says_nothing_of_it(texts, above):
    above = above[: len(texts)]
    said = [0] * len(texts)
    for number, text in enumerate(texts):
        for chunk in (text or "").split():
            said[number] |= bits(chunk)
    one, many, plain = LexicalIndex("none", tell=bits), LexicalIndex("none", tell=bits), LexicalIndex("none")
    assert [one.put(n, text, before) for n, (text, before) in enumerate(zip(texts, above, strict=True))] == said
    assert many.extend(texts, above).tolist() == said
    assert not plain.extend([text and before + text for text, before in zip(texts, above, strict=True)]).any()
    for name, part in plain.to_parts().items():
        assert np.array_equal(part, one.to_parts()[name]), name
        assert np.array_equal(part, many.to_parts()[name]), name


def test_chunks_are_forgotten_and_learnt_again(monkeypatch):
    monkeypatch.setattr("raeburnmemory.index.lexical._CACHED", 3)
    index = LexicalIndex("none", tell=bits)
    for number in range(20):
        assert index.put(number, f"red {number} Blue {'x' * 50}") == 2 | ("7" in str(number))
        assert len(index._chunks) <= 3 + 3
    assert index.postings(index.term("red"))[0].tolist() == list(range(20))
    assert [index._vocabulary[term] for term in index.stream_of(19).tolist()] == ["red", "19", "blue", "x" * 50]


def test_an_index_that_nobody_has_is_gone_at_once():
    index = LexicalIndex("none", tell=bits)
    index.extend(["red wine", "white wine"])
    index.put(0, "blue")
    gone = weakref.ref(index)
    gc.disable()
    try:
        del index
        assert gone() is None
    finally:
        gc.enable()
