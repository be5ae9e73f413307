"""Full-text search: what holds some words, in what order, against BM25 computed by hand over plain lists."""

from __future__ import annotations

import math
import random
import threading
import time

import numpy as np
import pytest
from outside import fake

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import InvalidInput
from raeburnmemory.nodes import Node

WORDS = [f"{one}{two}{three}" for one in "bdfg" for two in "aou" for three in ("kol", "vim", "zar", "pet", "lun")]
NAMES = ("ann", "ben")
ODDS = [1 / place for place in range(1, len(WORDS) + 1)]


def bm25(texts, asked, k, *, every=False):
    """Return what `matching` should: ids and scores, from texts by their ids in the order of the store."""
    split = {one: text.split() for one, text in texts.items() if text}
    mean = sum(map(len, split.values())) / len(split)
    asked, scores, highest = list(dict.fromkeys(asked)), {}, 0.0
    for word in asked:
        holding = [one for one, words in split.items() if word in words]
        idf = math.log(1 + (len(split) - len(holding) + 0.5) / (len(holding) + 0.5))
        highest += 1.9 * idf
        for one in holding:
            often = split[one].count(word)
            slow = 0.9 * (1 - 0.4 + 0.4 * len(split[one]) / mean)
            scores[one] = scores.get(one, 0.0) + idf * 1.9 * often / (often + slow)
    order = list(texts)
    found = [one for one in scores if not every or all(word in split[one] for word in asked)]
    found.sort(key=lambda one: (-round(scores[one] / highest, 12), order.index(one)))
    return [(one, scores[one] / highest) for one in found[:k]]


def same(hits, wanted):
    assert hits.ids == [one for one, _ in wanted]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in wanted], abs=2e-6)


@pytest.fixture(params=["memory.db", "memory.json"])
def memory(request, tmp_path):
    with MemoryGraph(tmp_path / request.param, embedding_model=fake) as opened:
        yield opened


def filled(memory, count=600, seed=0):
    """Fill a memory with texts of made-up words, some common and some rare; return them by their ids."""
    rng = random.Random(seed)
    texts = {f"m{number}": " ".join(rng.choices(WORDS, ODDS, k=rng.randint(1, 25))) for number in range(count)}
    memory.add_messages(
        [
            {"text": text, "id": one, "session_id": f"s{at % 7}", "name": NAMES[at % 2]}
            for at, (one, text) in enumerate(texts.items())
        ]
    )
    # What somebody said is found by the name, too.
    return {one: f"{NAMES[at % 2]} {text}" for at, (one, text) in enumerate(texts.items())}


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("k", [1, 10, 1000])
def test_it_finds_what_bm25_finds(memory, k, every):
    texts = filled(memory)
    rng = random.Random(k)
    for _ in range(40):
        asked = rng.choices([*WORDS, "nowhere"], [*ODDS, 0.05], k=rng.randint(1, 5))
        same(memory.matching(" ".join(asked), k, every=every), bm25(texts, asked, k, every=every))


def test_common_words_are_passed_over_only_where_they_cannot_matter(memory):
    # One rare word, and one that nearly all texts hold, some many times: what looks among the few must not miss these.
    texts = {f"m{at}": f"often {'often ' * (at % 9)}{'rare' if at % 97 == 5 else 'plain'}" for at in range(2500)}
    memory.add_messages([{"text": text, "id": one} for one, text in texts.items()])
    for asked in ("rare often", "often rare rare", "often plain rare", "often"):
        for k in (1, 5, 26, 40, 3000):
            same(memory.matching(asked, k), bm25(texts, asked.split(), k))


def test_after_changes_and_in_a_new_process_it_finds_the_same(tmp_path):
    path = tmp_path / "memory.db"
    with MemoryGraph(path, embedding_model=fake) as memory:
        texts = filled(memory, 300)
        memory.matching("bakol")
    with MemoryGraph(path, embedding_model=fake) as memory:
        memory.matching("bakol")
        memory.forget([one for one in texts if one.endswith("3")])
        for one in list(texts):
            if one.endswith("3"):
                del texts[one]
            elif one.endswith("7"):
                memory.update(one, text=(text := "bakol " + texts[one].partition(" ")[2]))
                texts[one] = texts[one].partition(" ")[0] + " " + text
        for asked in ("bakol", "bakol davim", "guzar lun bopet", "gulun"):
            same(memory.matching(asked, 20), bm25(texts, asked.split(), 20))
        memory.add_message("bakol gulun", "user", id="last")
        texts["last"] = "bakol gulun"
        same(memory.matching("bakol gulun", 20), bm25(texts, ["bakol", "gulun"], 20))
    with MemoryGraph(path, embedding_model=fake) as memory:
        for asked in ("bakol gulun", "davim", "bakol"):
            same(memory.matching(asked, 20), bm25(texts, asked.split(), 20))


def test_filters_hold_before_the_best_are_taken(memory):
    texts = filled(memory)
    some = {one: text for at, (one, text) in enumerate(texts.items()) if at % 7 == 3}
    for asked in (["bakol", "gulun"], ["bokol"], ["bakol", "bavim", "bazar"]):
        wanted = [(one, score) for one, score in bm25(texts, asked, 10_000) if one in some]
        same(memory.matching(" ".join(asked), 5, session="s3"), wanted[:5])
        assert memory.matching(" ".join(asked), session="nobody").ids == []
        words = " ".join(asked)
        assert set(memory.matching(words, 600, session="s3", speaker="ann").ids) == {
            one for one, _ in wanted if int(one[1:]) % 2 == 0
        }
        assert memory.matching(words, 600, session="s3", every=True).ids == [
            one for one, _ in bm25(texts, asked, 10_000, every=True) if one in some
        ]
    assert memory.matching("bakol", kinds="fact").ids == []
    assert memory.matching("bakol", since="2999-01-01").ids == []


def test_every_kind_of_text_is_found_and_each_hit_says_which_words(memory):
    memory.add_interaction(
        {"id": "p", "text": "The printer says ECONNREFUSED"}, {"id": "r", "text": "Restart the printers."}, "a", "s"
    )
    memory.fact("printer", "stands in", "the cellar", id="f")
    hits = memory.matching("Printer ECONNREFUSED")
    assert set(hits.ids) == {"p", "r", "f"}
    assert hits.ids[0] == "p"
    assert hits[0].why.words == ("printer", "econnrefused")
    assert hits[0].why.legs == {"lexical": hits[0].score}
    assert hits[0].coverage == 1.0
    assert 0 < hits[1].coverage < 1
    assert hits[0].similarity is None
    assert hits.legs == ("lexical",)
    assert memory.matching("printer", kinds=["response", "fact"], every=True).ids == ["r", "f"]


def test_what_is_quoted_stands_side_by_side(memory):
    for one, text in {
        "a": "Error E-4711 in the pump",
        "b": "4711 is what E said",
        "c": "The pump of E, 4711 litres, and E 4711 again",
        "d": "the pump",
        "e": "4711",
    }.items():
        memory.add_message(text, "user", id=one)
    assert set(memory.matching('"E-4711"').ids) == {"a", "c"}
    assert set(memory.matching("E-4711").ids) == {"a", "b", "c", "e"}
    assert set(memory.matching('"E 4711" pump').ids) == {"a", "c", "d"}
    assert set(memory.matching('pump "E-4711"', every=True).ids) == {"a", "c"}
    assert memory.matching('"4711 pump"').ids == ["a"]  # "in the" is passed over in both
    assert memory.matching('"pump 4711"').ids == []
    assert memory.matching('"pump" "the"', every=True).ids == memory.matching("pump").ids
    assert set(memory.matching('"e nowhere" 4711').ids) == {"a", "b", "c", "e"}
    assert memory.matching('pump "E-4711').ids == memory.matching("pump E-4711").ids  # an open quote is none
    # As rare as it is: two texts of five hold it, one of them twice. Without words such as "the" they have 4, 3, 6, 1
    # and 1 words.
    slow = {words: 0.9 * (0.6 + 0.4 * words / 3) for words in (4, 6)}
    hits = memory.matching('"E-4711"')
    assert {hit.id: hit.score for hit in hits} == pytest.approx(
        {"a": 1 / (1 + slow[4]), "c": 2 / (2 + slow[6])}, abs=1e-6
    )
    assert [hit.why.words for hit in hits] == [("E-4711",)] * 2


def test_no_words_no_hits_and_a_reason(memory):
    memory.add_message("Something was said", "user", id="m")
    for asked in ("", "the", "?!", '""'):
        hits = memory.matching(asked)
        assert (hits.ids, list(hits.skipped)) == ([], ["lexical"])
    assert memory.matching("nowhere").ids == []
    assert memory.matching("nowhere", every=True).skipped == {}
    assert memory.matching("said", 0).ids == []
    for wrong in (None, 5):
        with pytest.raises(InvalidInput):
            memory.matching(wrong)
    with pytest.raises(InvalidInput, match="every must be True or False, not 'no'"):
        memory.matching("said", every="no")
    for count in (-1, 2.5, True):
        with pytest.raises(InvalidInput, match="number of hits"):
            memory.matching("said", count)


def test_an_empty_memory_has_nothing(memory):
    assert memory.matching("anything at all").ids == []
    assert memory.matching('"anything at all"', every=True).ids == []


def test_namespaces_are_apart_and_what_expired_is_gone(memory):
    memory.add_message("a lamp", "user", id="here")
    memory.within("other").add_message("a lamp", "user", id="there")
    assert memory.matching("lamp").ids == ["here"]
    assert memory.within("other").matching("lamp").ids == ["there"]
    now = time.time()
    memory.put(
        [
            Node("gone", "prompt", "lamp", expires_at=now - 10),
            Node("later", "prompt", "a lamp and more", expires_at=now + 3600),
        ]
    )
    assert memory.matching("lamp").ids == ["here", "later"]


def test_words_of_another_writer_are_found_at_once(tmp_path):
    path = tmp_path / "memory.db"
    with MemoryGraph(path, embedding_model=fake) as one, MemoryGraph(path, embedding_model=fake) as other:
        assert one.matching("lantern").ids == []
        other.add_message("a lantern", "user", id="m")
        assert one.matching("lantern").ids == ["m"]
        other.forget("m")
        assert one.matching("lantern").ids == []


def test_threads_may_ask_at_once(memory):
    texts, wrong = filled(memory), []

    def ask(seed):
        rng = random.Random(seed)
        for _ in range(25):
            asked = rng.choices(WORDS, ODDS, k=3)
            if memory.matching(" ".join(asked), 8).ids != [one for one, _ in bm25(texts, asked, 8)]:
                wrong.append(asked)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_scores_do_not_hang_on_what_was_asked_before(memory):
    filled(memory)
    asked = ["bakol gulun", "bavim", "bakol bavim bazar guzar"]
    first = [[(hit.id, hit.score) for hit in memory.matching(words)] for words in asked]
    memory.recall("bakol bazar", 5)
    assert [[(hit.id, hit.score) for hit in memory.matching(words)] for words in reversed(asked)] == first[::-1]
    assert all(np.isfinite(score) for hits in first for _, score in hits)
