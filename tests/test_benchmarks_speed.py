"""The suite that measures speed: what it stores and asks, its arithmetic, our own systems, and one peer end to end."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

import numpy as np
import pytest
from test_benchmarks import benchmark

NEAR = pytest.approx


def speed(name):
    return benchmark(f"speed.{name}")


@pytest.fixture(scope="module")
def clustered():
    return speed("workload").Clustered(seed=3)


# --- the workload -----------------------------------------------------------------------------------------------


def test_rows_are_the_same_however_they_are_taken(clustered):
    whole = clustered.rows(9_900, 200)  # over the edge of a block
    assert whole.ids == list(range(9_900, 10_100))
    for first, count in ((10_050, 10), (9_995, 20)):
        part = speed("workload").Clustered(seed=3).rows(first, count)
        at = slice(first - 9_900, first - 9_900 + count)
        assert part.texts == whole.texts[at]
        assert part.sessions == whole.sessions[at]
        assert part.times == whole.times[at]
        assert np.array_equal(part.vectors, whole.vectors[at])
    assert speed("workload").Clustered(seed=4).rows(0, 5).texts != clustered.rows(0, 5).texts


def test_what_is_stored_has_the_statistics_that_are_promised(clustered):
    rows = clustered.rows(0, 10_000)
    assert rows.vectors.shape == (10_000, 384)
    assert rows.vectors.dtype == np.float32
    assert np.linalg.norm(rows.vectors.astype(np.float64), axis=1) == NEAR(1, abs=1e-6)
    assert {len(text.split()) for text in rows.texts} == {29}
    assert statistics.mean(map(len, rows.texts)) == NEAR(202, abs=2)  # six letters and a space
    # Zipf's law: the word of rank r comes about 1/r as often as the first one.
    counts: dict[str, int] = {}
    for text in rows.texts:
        for word in text.split():
            counts[word] = counts.get(word, 0) + 1
    often = sorted(counts.values(), reverse=True)
    for rank in (2, 5, 10, 50, 200):
        assert often[0] / often[rank - 1] == NEAR(rank, rel=0.15)
    lengths = [rows.sessions.count(one) for one in dict.fromkeys(rows.sessions)]
    assert statistics.mean(lengths) == NEAR(50, abs=2)
    assert set(lengths[:-1]) <= set(range(30, 71))
    assert len(set(rows.agents)) == 8
    assert rows.times == sorted(rows.times)
    assert rows.times[-1] < clustered.rows(10_000, 1).times[0]


def test_vectors_lie_in_uneven_topics_with_noise_in_shared_directions(clustered):
    vectors = clustered.rows(0, 3_000).vectors.astype(np.float64)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, 0)
    nearest = cosines.max(axis=1)
    assert 0.5 < np.median(nearest) < 0.8  # one of the same topic
    assert abs(np.median(cosines)) < 0.05  # most are of others
    sizes = sorted(((cosines > 0.4).sum(axis=1) + 1).tolist())
    assert sizes[-1] > 10 * sizes[len(sizes) // 4]  # uneven
    # Differences within a topic are noise only; most of it lies in 64 of the 384 directions.
    one, other = np.nonzero(np.triu(cosines > 0.5))
    some = np.random.default_rng(0).permutation(len(one))[:2_000]
    differences = vectors[one[some]] - vectors[other[some]]
    spectrum = np.linalg.svd(differences, compute_uv=False) ** 2
    assert 0.7 < spectrum[:64].sum() / spectrum.sum() < 0.95


def test_words_keep_apart_and_stay_as_they_are():
    words = speed("workload").made_up_words(20_000).tolist()
    assert len(set(words)) == 20_000
    stemmer = pytest.importorskip("Stemmer", reason="stems need PyStemmer").Stemmer("english")
    assert len(set(stemmer.stemWords(words))) > 19_990


def test_questions_fit_what_is_stored(clustered):
    size = 2_000
    asked = clustered.questions(size, 30)
    rows = clustered.rows(0, size)
    common = {word for text in rows.texts for word in text.split()}
    for words, session, (since, until) in zip(asked.words, asked.sessions, asked.spans, strict=True):
        assert len(set(words)) == 3
        assert any(set(words) <= set(text.split()) for text in rows.texts)
        assert session in rows.sessions
        share = sum(since <= one < until for one in rows.times) / size
        assert share == NEAR(0.1, abs=0.03)
    assert common
    assert np.array_equal(asked.vectors, clustered.questions(size, 30).vectors)
    assert not (asked.vectors @ rows.vectors.T > 0.999).any()  # none of them is stored


def test_written_texts_have_the_vectors_of_the_builtin_embedder():
    workload = speed("workload").Written(seed=1)
    rows = workload.rows(5, 40)
    from raeburnmemory.embed.builtin import BuiltinEmbedder

    assert rows.vectors == NEAR(BuiltinEmbedder().embed(rows.texts), abs=1e-6)
    asked = workload.questions(1_000, 3)
    assert asked.vectors.shape == (3, workload.dim)
    assert all(len(words) == 3 for words in asked.words)


# --- what is right ----------------------------------------------------------------------------------------------


def test_the_nearest_are_those_of_brute_force(clustered):
    module = speed("workload")
    size = 700
    asked, rows = clustered.questions(size, 12), clustered.rows(0, size)
    truth = module.Truth(asked, 10)
    for first in range(0, size, 130):
        truth.see(rows.cut(first, first + 130))
    for at in range(12):
        scores = [float(np.dot(one.astype(np.float64), asked.vectors[at].astype(np.float64))) for one in rows.vectors]
        since, until = asked.spans[at]
        inside = {
            "vector": list(range(size)),
            "session": [row for row in range(size) if rows.sessions[row] == asked.sessions[at]],
            "time": [row for row in range(size) if since <= rows.times[row] < until],
        }
        for kind, among in inside.items():
            best = sorted(among, key=lambda row: -scores[row])
            assert truth.recall(kind, at, best[:10]) == 1
            assert truth.recall(kind, at, best[:6]) == 6 / 10
            assert truth.recall(kind, at, [*best[:9], best[11]]) == NEAR(0.9)
            assert truth.recall(kind, at, []) == 0


def test_equal_rows_are_equally_right():
    module, rows = speed("workload"), speed("rows").Rows
    vector = np.eye(1, 8, dtype=np.float32)
    asked = module.Questions(vector, [["a"]], ["s"], [(0, 9)])
    truth = module.Truth(asked, 2)
    truth.see(rows([4, 5, 6], ["a"] * 3, ["s"] * 3, ["x"] * 3, [1] * 3, np.repeat(vector, 3, axis=0)))
    assert truth.recall("vector", 0, [4, 6]) == truth.recall("vector", 0, [5, 4]) == 1
    other = module.Truth(module.Questions(vector, [["a"]], ["t"], [(0, 9)]), 2)
    other.see(rows([4], ["a"], ["s"], ["x"], [1], vector))
    assert other.recall("session", 0, []) == 1  # there is nothing to find
    assert other.recall("vector", 0, [4]) == 1  # and here one of two


def test_shapes_are_what_they_are_called():
    shapes = speed("shapes")
    found = {}
    for shape in shapes.SHAPES:
        one = shapes.shaped(shape, 0, 1_000, 128)
        assert np.array_equal(one, shapes.shaped(shape, 0, 1_000, 128))
        assert not np.array_equal(one, shapes.shaped(shape, 1, 1_000, 128))
        assert np.linalg.norm(one, axis=1) == NEAR(1, abs=1e-5)
        cosines = one @ one.T
        np.fill_diagonal(cosines, np.nan)
        found[shape] = (
            float(np.nanmedian(cosines)),
            float(np.nanmax(cosines)),
            float(np.linalg.norm(one.mean(axis=0))),
        )
        spread = one.std(axis=0)
        assert (spread.max() > 5 * spread.min()) == (shape == "uneven dimensions")
    assert found["one topic"][0] == NEAR(0.9, abs=0.03)
    assert found["near-duplicates"][1] > 0.99
    assert found["random"][0] == NEAR(0, abs=0.02)
    assert found["random"][1] < 0.6
    assert found["strong mean"][2] > 0.7
    assert found["clustered"][2] < 0.4
    with pytest.raises(ValueError, match="'flat' is no shape"):
        shapes.shaped("flat", 0, 1, 8)


# --- the arithmetic ---------------------------------------------------------------------------------------------


def test_ratios_are_taken_round_by_round():
    spread = speed("spread")
    ours, theirs = [2.0, 9.0, 4.0], [1.0, 3.0, 4.0]
    found = spread.ratio(ours, theirs, more_is_better=True)
    assert (found.least, found.middle, found.most) == (1, 2, 3)
    found = spread.ratio(ours, theirs, more_is_better=False)
    assert (found.least, found.middle, found.most) == (NEAR(1 / 3), NEAR(0.5), 1)
    found = spread.ratio([10.0], [1.0, 4.0, 5.0], more_is_better=True)  # other rounds: of the medians
    assert (found.least, found.middle, found.most) == (2.5, 2.5, 2.5)
    found = spread.spread([5.0, 1.0, 2.0, 3.0])
    assert (found.least, found.middle, found.most) == (1, 2.5, 5)


def result(size, system, measure, figures, **more):
    return speed("results").Result(size, system, measure, figures, **more)


def test_goals_are_judged_at_the_largest_size_that_was_measured():
    goals, results = speed("goals"), speed("results").Results
    goal = goals.Goal("vector", 100_000, "ours-sqlite", 4, 8, ("raw", "qdrant-edge"), recall=0.995)
    some = [
        result(10_000, "raw", "vector", [8.0, 8.0], cpu_ms=[6.0, 6.0]),
        result(10_000, "qdrant-edge", "vector", [10.0, 12.0], cpu_ms=[5.0, 5.0]),
        result(10_000, "ours-sqlite", "vector", [2.0, 1.0], cpu_ms=[2.0, 2.0], recall=1.0),
        result(1_000, "ours-sqlite", "vector", [9.0], recall=1.0),
    ]
    (one,) = goals.judge(results(some), [goal])
    assert (one.size, one.peer) == (10_000, "raw")  # the faster one of both
    assert (one.figure.least, one.figure.middle, one.figure.most) == (4, 6, 8)
    assert one.said == "reached, at 10,000 rows only"
    (one,) = goals.judge(results(some), [goal], cpu=True)
    assert (one.peer, one.figure.middle, one.said) == (
        "qdrant-edge",
        2.5,
        "missed: by a factor of 1.6, at 10,000 rows only",
    )
    here = goals.Goal("vector", 10_000, "ours-sqlite", 4, 8, ("raw", "qdrant-edge"), recall=0.995)
    some[2].recall = 0.9
    assert goals.judge(results(some), [here])[0].said == "missed: recall 0.900 instead of 0.995"
    some[2].figures = [4.0, 4.0]
    assert goals.judge(results(some), [here])[0].said == "missed: recall 0.900 instead of 0.995, by a factor of 2"
    some[2].recall, some[2].figures = 1.0, [1.0, 1.0]
    assert goals.judge(results(some), [here])[0].said == "aim reached"
    some[0].recall, some[1].recall = 0.95, 0.995
    (one,) = goals.judge(results(some), [here])  # slower, but it finds what the faster one misses
    assert (one.peer, one.figure.middle) == ("qdrant-edge", 11)
    some[1].recall = 0.96
    assert goals.judge(results(some), [here])[0].peer == "raw with recall 0.950"
    some[2].reason = "it broke"
    assert goals.judge(results(some), [goal])[0].said == "it broke"
    assert goals.judge(results(some[:2]), [goal])[0].said == "not measured"
    assert goals.judge(results(some[3:]), [goal])[0].said == "no such peer was measured"


def test_growth_and_bare_figures_are_to_stay_below():
    goals, results = speed("goals"), speed("results").Results
    growth = goals.Goal("add", 10_000, "ours-json", 1.3, 1.1, growth=True)
    bare = goals.Goal("hybrid", 10_000, "ours-json", 10, 5)
    some = [
        result(1_000, "ours-json", "add", [9.0], cpu_ms=[2.0]),
        result(10_000, "ours-json", "add", [9.0], cpu_ms=[3.0]),
        result(10_000, "ours-json", "hybrid", [7.0], cpu_ms=[4.0]),
        result(10_000, "ours-json", "open", [7.0], cpu_ms=[1_900.0]),
        result(10_000, "ours-json", "memory", [70.0]),
    ]
    one, other = goals.judge(results(some), [growth, bare])
    assert one.figure.middle == 1.5
    assert one.said == "missed: by a factor of 1.15"
    assert (other.figure.middle, other.said) == (7, "reached")
    assert goals.judge(results(some), [bare], cpu=True)[0].said == "aim reached"
    seconds, size = goals.Goal("open", 10_000, "ours-json", 2, 1), goals.Goal("memory", 10_000, "ours-json", 99, 60)
    one, other = goals.judge(results(some), [seconds, size], cpu=True)
    assert (one.figure.middle, one.said) == (1.9, "reached")  # of milliseconds
    assert (other.figure, other.said) == (None, "takes no time")
    assert goals.judge(results(some[:1]), [growth])[0].said == "measured at one size only"


def test_rows_lost_are_no_goal_reached():
    goals, results = speed("goals"), speed("results").Results
    goal = goals.Goal("writers", 1_000, "ours-json", 1.6, 1.6, ("raw",))
    some = [
        result(1_000, "raw", "writers", [10.0]),
        result(1_000, "ours-json", "writers", [99.0], note="3 of 9 lost", detail={"lost": 3}),
    ]
    assert goals.judge(results(some), [goal])[0].said == "missed: 3 of 9 lost"


# --- systems ----------------------------------------------------------------------------------------------------


def worker(name, folder, dim=384):
    return speed("client").Client(name, sys.executable, folder, dim)


def test_modules_are_compiled_once_as_those_of_an_installed_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    client = worker("ours-sqlite", tmp_path / "system")
    try:
        client.open(120)
        client.close(60)
    finally:
        client.end()
    assert list((tmp_path / "compiled").rglob("memory_graph.*.pyc"))


@pytest.mark.parametrize("name", ["ours-sqlite", "ours-json", "raw-numpy"])
def test_a_system_finds_what_is_nearest_and_keeps_what_it_was_given(name, tmp_path, clustered):
    module, stage = speed("workload"), speed("stage")
    asked, rows = clustered.questions(200, 8), clustered.rows(0, 220)
    truth = module.Truth(asked)
    truth.see(rows)
    client = worker(name, tmp_path / name)
    try:
        client.open(60)
        client.send_rows("bulk", rows.cut(0, 200), 60)
        client.do("ready", 60)
        added = client.send_rows("add", rows.cut(200, 220), 60, seconds=60)
        assert added["done"] == 20
        assert added["wall"] > 0
        assert client.do("count", 60, ids=[0, 199, 219, 220, 5_000])["count"] == 3
        client.close(60)
        client = worker(name, tmp_path / name)
        client.open(60)
        for kind in ("vector", "session", "time", "text"):
            reply = stage.ask(client, kind, asked, range(8), 60)
            assert reply["complete"]
            assert len(reply["ids"]) == len(reply["wall_ms"]) == 8
            for at, ids in enumerate(reply["ids"]):
                if kind == "vector" or (kind != "text" and name == "raw-numpy"):
                    assert truth.recall(kind, at, ids) == 1
                elif kind == "session":
                    assert {rows.sessions[one] for one in ids} == {asked.sessions[at]}
                elif kind == "time":
                    assert all(asked.spans[at][0] <= rows.times[one] < asked.spans[at][1] for one in ids)
                else:
                    assert set(rows.texts[ids[0]].split()) & set(asked.words[at])
        if name.startswith("ours"):
            assert len(stage.ask(client, "hybrid", asked, [0], 60)["ids"][0]) == 10
        else:
            with pytest.raises(speed("client").NotOffered, match="no search by words and vectors"):
                stage.ask(client, "hybrid", asked, [0], 60)
        client.close(60)
    finally:
        client.end()


def test_a_worker_that_fails_hangs_or_dies_leaves_its_reason(tmp_path, clustered):
    failed = speed("client").Failed
    client = worker("raw-numpy", tmp_path / "raw")
    try:
        client.open(60)
        rows = clustered.rows(0, 3)
        client.send_rows("bulk", rows, 60)
        with pytest.raises(failed, match="IntegrityError: UNIQUE constraint failed"):
            client.send_rows("bulk", rows, 60)
        begun = time.monotonic()
        with pytest.raises(failed, match=r"^stopped after 1 s$"):
            client.send_rows("add", clustered.rows(3, 3), 1, seconds=9, at=time.time() + 60)
        assert time.monotonic() - begun < 30
        with pytest.raises(failed, match="its process"):
            client.do("close", 5)
    finally:
        client.end()
    (tmp_path / "file").write_text("in the way")
    lost = worker("raw-numpy", tmp_path / "lost")
    (tmp_path / "lost").rmdir()
    try:
        with pytest.raises(failed, match="OperationalError: unable to open database file"):
            lost.open(60)
    finally:
        lost.end()


def test_a_peer_that_cannot_be_installed_is_a_row_with_its_reason(tmp_path, monkeypatch, clustered):
    environments, catalogue = speed("environments"), speed("catalogue")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    missing = catalogue.Known("raw", "made up", "full", ("raeburnmemory-no-such-package",), {})
    monkeypatch.setitem(catalogue.SYSTEMS, "missing", missing)
    options = speed("stage").Options([100], ["missing", "raw-numpy"], ["bulk", "add"], 1, 1, 2)
    run = speed("run").Run(options, clustered, tmp_path / "work", tmp_path / "cache")
    run.at(100)
    for measure in ("bulk", "add"):
        assert "failed: ERROR: No matching distribution" in run.results.get(100, "missing", measure).reason
        assert run.results.get(100, "raw-numpy", measure).figures
    assert environments.python_for((), tmp_path, 1) == sys.executable
    assert not (tmp_path / "work" / "100").exists()


def test_everything_end_to_end(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--sizes", "200", "--systems", "ours-sqlite", "--peers", "raw-numpy", "--rounds", "2"]
    arguments += ["--questions", "3", "--adds", "5", "--reference", "raw-numpy", "--out", str(out)]
    arguments += ["--measures", "bulk,disk,vector,session,time,text,hybrid,add"]
    speed("command").main([*arguments, "--work", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed == (out / "speed.md").read_text("utf-8")
    data = json.loads((out / "speed.json").read_text("utf-8"))
    found = {(one["system"], one["measure"]): one for one in data["results"]}
    measures = arguments[-1].split(",")
    assert set(found) == {(system, measure) for system in ("ours-sqlite", "raw-numpy") for measure in measures}
    for (system, measure), one in found.items():
        if (system, measure) == ("raw-numpy", "hybrid"):
            assert one["reason"] == "it has no search by words and vectors in one call"
        else:
            assert not one["reason"], (system, measure)
            assert len(one["figures"]) == (1 if measure in {"bulk", "disk"} else 2)
            assert min(one["figures"]) > 0
    assert found["raw-numpy", "time"]["recall"] == found["ours-sqlite", "vector"]["recall"] == 1
    # The vector alone is 1,536 bytes; a hundred times that would be something else's.
    assert all(1_536 < found[system, "disk"]["figures"][0] < 153_600 for system in ("ours-sqlite", "raw-numpy"))
    ours, theirs = (found[system, "add"]["figures"] for system in ("ours-sqlite", "raw-numpy"))
    middle = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    (line,) = [line for line in printed.splitlines() if line.startswith("| 200 | ours-sqlite | full |")][:1]
    shown = float(line.split("|")[7].split("(")[0])
    assert shown == NEAR(middle, rel=0.01)
    assert set(data["goals"]["cpu"][0]) >= {"goal", "said", "figure"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_takes_several_processes(tmp_path, clustered):
    options = speed("stage").Options([100], ["raw-numpy"], ["open", "memory", "writers"], 2, 2, 30)
    run = speed("run").Run(options, clustered, tmp_path / "work", tmp_path / "cache")
    run.at(100)
    opened, memory, writers = (run.results.get(100, "raw-numpy", one) for one in options.measures)
    assert not opened.reason + memory.reason + writers.reason
    assert len(opened.figures) == len(writers.figures) == 2
    assert 0 < opened.cpu_ms[0] / 1e3 < 60
    assert 1 < memory.figures[0] < memory.detail["VmRSS"] / 1e6 <= memory.detail["VmHWM"] / 1e6 < 1_000
    assert writers.detail == {"acknowledged": 2 * 2 * 30, "lost": 0}
    assert run.versions["raw-numpy"]["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--peers", "oracle"], "no system is called 'oracle'; there are: ours-sqlite"),
        (["--measures", "add,joy"], "no measure is called 'joy'"),
        (["--sizes", "1000,many"], "--sizes must be whole numbers separated by commas, not '1000,many'"),
        (["--sizes", "5"], "--sizes must be 100 or more, not 5"),
        (["--reference", "chromadb"], "no system of this run is called 'chromadb'"),
        (["--rounds", "0"], "must be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, says, capsys):
    with pytest.raises(SystemExit):
        speed("command").main(arguments)
    assert says in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="the workers are killed as POSIX kills")
def test_what_a_killed_program_had_acknowledged_is_there(tmp_path):
    from benchmarks.kills import killed

    found = killed("ours-json", sys.executable, tmp_path / "store", kills=2, longest=0.3)
    assert (found.kills, found.lost, found.failure) == (2, 0, "")
    assert found.acknowledged > 0
    (tmp_path / "store" / "memory.json").write_bytes(b"no JSON")
    found = killed("ours-json", sys.executable, tmp_path / "store", kills=1, longest=0.1)
    assert found.lost is None
    assert found.failure.startswith("unreadable after 0 kills")
