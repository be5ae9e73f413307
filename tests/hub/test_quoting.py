"""What is quoted to a model, and what is made of the numbers that it writes: for any text, cut in any way."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("httpx", reason="the hub speaks HTTP with httpx")

from raeburnmemory.hub.asking.citing import Markers, verified
from raeburnmemory.hub.asking.quoting import cleaned, find
from raeburnmemory.hub.asking.sources import Source
from raeburnmemory.index._words import Words

HIDDEN = "\u200b\u200d\u202e\u2066\ufeff\u00ad\x00\x07\x1b\ufe0f\U000e0041\U000e0101\u3164\u2800\u034f\ud800"
MARKS = ["<|im_start|>", "<|", "< |", "<\u200b|", "</s>", "<S>", "[INST]", "[/INST]", "<<SYS>>", "<start_of_turn>",
         "<\uff5cUser\uff5c>", "</think>"]  # fmt: skip
texts = st.lists(
    st.one_of(
        st.text(), st.sampled_from(list(HIDDEN)), st.sampled_from(MARKS), st.sampled_from(["\r\n", "\n", " ", "a"])
    )
).map("".join)


@given(texts)
def test_clean_text_is_what_can_be_seen_and_knows_where_it_stood(text):
    clean = cleaned(text)
    assert len(clean.text) == len(clean.origins)
    assert list(clean.origins) == sorted(clean.origins)
    for char, place in zip(clean.text, clean.origins, strict=True):
        assert char in {text[place], "\n", " "}
    for char in clean.text:
        assert char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Cn"}
        assert char not in HIDDEN
    if not re.search(r"[<\[]", text):
        # Without marks, nothing is added; what stays is all that has a shape.
        kept = [c for c in text if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Cn"} and c not in HIDDEN]
        seen = [c for c in clean.text if c not in "\n\t"]
        breaks = {"\u2028", "\u2029"}
        invisible = re.compile("[\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef\uffa0]")
        assert seen == [c for c in kept if c not in breaks and not invisible.match(c)]


@given(texts, st.data())
def test_a_part_of_clean_text_is_found_in_the_original(text, data):
    clean = cleaned(text)
    start = data.draw(st.integers(0, len(clean.text)))
    end = data.draw(st.integers(start, len(clean.text)))
    low, high = clean.original(start, end)
    assert 0 <= low <= high <= len(text)
    if start < end:
        # A space that breaks a mark leads to the mark, else cleaning what it leads to gives the part again.
        again = cleaned(text[low:high]).text.replace(" ", "")
        assert clean.text[start:end].replace(" ", "") in again


@pytest.mark.parametrize("mark", MARKS)
def test_marks_of_roles_are_broken(mark):
    seen = cleaned(f"before {mark} after").text
    assert not re.search(r"<[|\uff5c]|</?(s|think|start_of_turn)>|\[/?INST\]|<<SYS", seen, re.IGNORECASE)
    assert seen.startswith("before ")
    assert seen.endswith(" after")


def test_plain_text_stays_as_it_is():
    for text in ("", "a < b, x[1] <b>bold</b>\n\ttab", "Grüße, 世界 🎉 naïve", "क्षि नमस्ते"):
        assert cleaned(text).text == text


@pytest.mark.parametrize(
    ("passage", "text", "found"),
    [
        ("peanuts and latex", "Peanuts,\nand  LATEX!", "Peanuts,\nand  LATEX"),
        ("peanuts \u2026 pen", "peanuts and a pen", "peanuts and a pen"),
        ("cat", "concatenate", None),
        ("a.*b", "a and b", None),
        ("...", "anything", None),
        ("it\u2019s", "It's", "It's"),
    ],
)
def test_a_passage_is_found_whatever_stands_between_its_words(passage, text, found):
    span = find(passage, text)
    assert (span and text[slice(*span)]) == found


# --- numbers in brackets ----------------------------------------------------------------------------------------


def pass_through(pieces, numbers=(1, 2, 3)):
    markers = Markers(numbers)
    said = "".join([markers.feed(piece) for piece in pieces] + [markers.end()])
    assert said == markers.text
    return said, markers


@pytest.mark.parametrize(
    ("text", "said", "found", "invented"),
    [
        ("Yes [1].", "Yes [1].", [1], []),
        ("Yes [9].", "Yes.", [], [9]),
        ("Yes [1, 9, 2].", "Yes [1][2].", [1, 2], [9]),
        ("Yes [1][9][2].", "Yes [1][2].", [1, 2], [9]),
        ("Yes [2-4].", "Yes [2][3].", [2, 3], [4]),
        ("Yes \u30101\u3011.", "Yes [1].", [1], []),
        ("Yes [Source 1; 7].", "Yes [1].", [1], [7]),
        ("Yes [^1] [#2].", "Yes [1] [2].", [1, 2], []),
        ("A [link](x) and [ok].", "A [link](x) and [ok].", [], []),
        ("In [2026-11-22] and [3.5].", "In [2026-11-22] and [3.5].", [], []),
        ("Open [", "Open [", [], []),
        ("Open [1", "Open [1", [], []),
        ("[[1]]", "[[1]]", [1], []),
        ("`x[9]` and ``y[8]`` [1]", "`x[9]` and ``y[8]`` [1]", [1], []),
        ("```\nx[9]\n```\n[1]", "```\nx[9]\n```\n[1]", [1], []),
        ("[1234]", "[1234]", [], []),
        ("two  spaces  stay [1]", "two  spaces  stay [1]", [1], []),
    ],
)
def test_numbers_are_kept_or_go(text, said, found, invented):
    heard, markers = pass_through([text])
    assert heard == said
    assert [marker.number for marker in markers.found] == found
    assert markers.invented == invented
    for marker in markers.found:
        assert said[marker.at :].startswith(f"[{marker.number}]")


@given(st.text(alphabet="ab .,[]`1239-\n\u3010\u3011", max_size=60), st.data())
def test_it_makes_no_difference_how_an_answer_is_cut(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[low:high] for low, high in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole, one = pass_through([text])
    parts, other = pass_through(pieces)
    assert whole == parts
    assert (one.found, one.invented) == (other.found, other.invented)
    assert {marker.number for marker in one.found} <= {1, 2, 3}
    # Outside of code, no number of a source that there is not comes through.
    if "`" not in text:
        assert not re.search(r"\[(?!1\]|2\]|3\])\d{1,3}\]", whole)


def source(number, text):
    clean = cleaned(text)
    return Source(number, text, "memory", clean, id=f"m{number}", shown=len(clean.text))


def test_a_citation_is_never_verified_unless_its_quote_is_stored():
    sources = [source(1, "The gate\u200b code is 4711. Roses are red."), source(2, "Tea is at five.")]
    words = Words("english")
    answer = (
        'The gate code is 4711 [1]. It says "roses are red" [1]. It says "the moon is cheese" [2]. Tea at six 6 [2].'
    )
    _, markers = pass_through([answer])
    for stored in ({"m1": sources[0].text, "m2": sources[1].text}, {"m1": "changed", "m2": None}):
        citations, problems, false = verified(answer, markers.found, sources, stored, words)
        for citation in citations:
            text = stored[citation.id] or ""
            assert not citation.verified or citation.quote in text
            assert citation.quote in sources[citation.number - 1].text
        assert [marker.number for marker in false] == [2]
        assert any("moon is cheese" in problem for problem in problems)
    assert [citation.verified for citation in citations] == [False] * len(citations)
