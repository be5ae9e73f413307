"""The comparison on public sets: loaders on small files in the published formats, the systems, and the table."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
from outside import ROOT, fake, unit

from raeburnmemory._optional import installed

NEAR = pytest.approx


class Doc(NamedTuple):
    id: str
    text: str
    session_id: str | None
    timestamp: str | None
    speaker: str | None


def benchmark(name):
    """Return a module of `benchmarks`, which lies beside the package and is no part of it."""
    if not (ROOT / "benchmarks").is_dir():
        pytest.skip("installed as a package, without its benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        return importlib.import_module(f"benchmarks.{name}")


# --- loaders ----------------------------------------------------------------------------------------------------

LOCOMO = [
    {
        "sample_id": "talk-1",
        "conversation": {
            "speaker_a": "Isla",
            "speaker_b": "Rory",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Isla", "dia_id": "D1:1", "text": "I planted leeks behind the shed."},
                {"speaker": "Rory", "dia_id": "D1:2", "text": "Look at mine!", "blip_caption": "a bed of onions", "img_url": []},
            ],
            "session_2_date_time": "12:09 am on 13 September, 2023",
            "session_2": [{"speaker": "Rory", "dia_id": "D2:1", "text": "The ferry was late again."}],
            "session_10_date_time": "9:00 am on 1 October, 2023",
            "session_10": [{"speaker": "Isla", "dia_id": "D10:1", "text": "My niece plays the fiddle."}],
        },
        "qa": [
            {"question": "What did Isla plant?", "answer": "leeks", "evidence": ["D1:1"], "category": 4},
            {"question": "What do both grow?", "evidence": ["D1:1; D1:02", "D:10:1"], "category": 1},
            {"question": "Who was late?", "evidence": ["D2:1", "D7:9", "D"], "category": 2},
            {"question": "Who sails?", "evidence": [], "category": 5, "adversarial_answer": "nobody"},
        ],
    }
]  # fmt: skip


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture
def locomo_file(tmp_path):
    return write(tmp_path / "locomo10.json", LOCOMO)


def test_locomo(locomo_file):
    dataset = benchmark("datasets").locomo(locomo_file)
    (talk,) = dataset.collections
    assert [tuple(document) for document in talk.documents] == [
        ("D1:1", "I planted leeks behind the shed.", "session 1", "2023-05-08T13:56:00+00:00", "Isla"),
        ("D1:2", "Look at mine! [shares a photo: a bed of onions]", "session 1", "2023-05-08T13:56:00+00:00", "Rory"),
        ("D2:1", "The ferry was late again.", "session 2", "2023-09-13T00:09:00+00:00", "Rory"),
        ("D10:1", "My niece plays the fiddle.", "session 10", "2023-10-01T09:00:00+00:00", "Isla"),
    ]
    assert [(query.id, query.label, list(query.expected), query.sessions) for query in talk.queries] == [
        ("talk-1-0", "single-hop", ["D1:1"], ("session 1",)),
        ("talk-1-1", "multi-hop", ["D1:1", "D1:2", "D10:1"], ("session 1", "session 10")),
        ("talk-1-2", "temporal", ["D2:1"], ("session 2",)),
    ]
    assert dataset.notes == {"pieces of evidence that name no turn": 2, "questions without evidence": 1}
    assert dataset.size == (1, 4, 3)


LONG = [
    {
        "question_id": "b7",
        "question_type": "single-session-user",
        "question": "Which instrument did I buy?",
        "answer": "a fiddle",
        "question_date": "2023/05/30 (Tue) 23:40",
        "haystack_session_ids": ["s_9", "answer_s_1"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/21 (Sun) 10:00"],
        "haystack_sessions": [
            [{"role": "user", "content": "How do I boil rice?"}, {"role": "assistant", "content": " "}],
            [
                {"role": "user", "content": "I bought a fiddle.", "has_answer": True},
                {"role": "assistant", "content": "How lovely.", "has_answer": False},
            ],
        ],
        "answer_session_ids": ["answer_s_1"],
    },
    {
        "question_id": "a3",
        "question_type": "multi-session",
        "question": "How often did I travel?",
        "answer": 2,
        "haystack_session_ids": ["answer_s_2"],
        "haystack_dates": ["2023/06/01 (Thu) 08:00"],
        "haystack_sessions": [[{"role": "user", "content": "The train was full."}]],
        "answer_session_ids": ["answer_s_2"],
    },
    {"question_id": "c1_abs", "question": "What did my cat say?"},
]


@pytest.fixture
def long_file(tmp_path):
    return write(tmp_path / "longmemeval_s_cleaned.json", LONG)


def test_longmemeval(long_file):
    dataset = benchmark("datasets").longmemeval(long_file)
    one, two = dataset.collections
    assert (one.id, two.id) == ("a3", "b7")
    assert [tuple(document) for document in two.documents] == [
        ("0.0 of s_9", "How do I boil rice?", "s_9", "2023-05-20T02:21:00+00:00", "user"),
        ("1.0 of answer_s_1", "I bought a fiddle.", "answer_s_1", "2023-05-21T10:00:00+00:00", "user"),
        ("1.1 of answer_s_1", "How lovely.", "answer_s_1", "2023-05-21T10:00:00+00:00", "assistant"),
    ]
    (query,) = two.queries
    assert query.expected == {"1.0 of answer_s_1": 1}
    assert query.sessions == ("answer_s_1",)
    assert query.now == "2023-05-30T23:40:00+00:00"
    assert (one.queries[0].expected, one.queries[0].now) == ({}, None)
    assert dataset.notes == {
        "questions about what was never said": 1,
        "questions measured by session only": 1,
        "empty turns": 1,
    }


@pytest.fixture
def beir_folder(tmp_path):
    folder = tmp_path / "islands"
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": "d1", "title": "Skye", "text": "An island with a bridge.", "metadata": {}},
        {"_id": "d2", "title": "", "text": "Ferries go to Arran."},
        {"_id": "d3", "title": "", "text": ""},
        {"_id": "q3", "title": "", "text": "How wet is Mull?"},
        {"_id": "d4", "title": "Mull", "text": "It rains on two days of three."},
    ]
    queries = [("q1", "Which island has a bridge?"), ("q2", "asked elsewhere"), ("q3", "How wet is Mull?")]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in corpus))
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n\n" for i, t in queries))
    rows = ["query-id\tcorpus-id\tscore", "q1\td1\t2", "q1\td2\t1", "q1\td4\t0", "q3\tq3\t1", "q3\td4\t1"]
    (folder / "qrels" / "test.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_beir(beir_folder):
    dataset = benchmark("datasets").beir(beir_folder)
    assert dataset.name == "islands"
    (one,) = dataset.collections
    assert [(document.id, document.text) for document in one.documents] == [
        ("d1", "Skye\nAn island with a bridge."),
        ("d2", "Ferries go to Arran."),
        ("q3", "How wet is Mull?"),
        ("d4", "Mull\nIt rains on two days of three."),
    ]
    assert {query.id: query.expected for query in one.queries} == {"q1": {"d1": 2, "d2": 1}, "q3": {"d4": 1}}
    assert dataset.notes == {"questions of other parts of the set": 1, "empty documents": 1}


@pytest.mark.parametrize(("row", "says"), [("q1\td9\t1", "name document 'd9'"), ("q9\td1\t1", "name question 'q9'")])
def test_judgements_about_what_is_not_there_are_refused(beir_folder, row, says):
    with open(beir_folder / "qrels" / "test.tsv", "a") as file:
        file.write(row + "\n")
    with pytest.raises(ValueError, match=says):
        benchmark("datasets").beir(beir_folder)


def test_parts_are_two_halves_of_a_set():
    datasets = benchmark("datasets")
    five = datasets.Dataset("five", [datasets.Collection(str(n), [], []) for n in range(5)])
    assert [one.id for one in datasets.part_of(five, "even").collections] == ["0", "2", "4"]
    assert [one.id for one in datasets.part_of(five, "odd", 1).collections] == ["1"]
    assert datasets.part_of(five, "all") == five
    queries = [datasets.Query(str(n), "?", {"d": 1.0}) for n in range(100)]
    single = datasets.Dataset("one", [datasets.Collection("one", [], queries)])
    even, odd = (datasets.part_of(single, part).collections[0].queries for part in ("even", "odd"))
    assert {query.id for query in even} | {query.id for query in odd} == {query.id for query in queries}
    assert len(even) + len(odd) == 100
    assert 30 < len(even) < 70


# --- systems ----------------------------------------------------------------------------------------------------

DOCS = [
    Doc("keys", "The spare key hangs behind the garden door.", "s1", "2024-01-05T10:00:00", "Isla"),
    Doc("soup", "Lentil soup wants cumin and patience.", "s1", "2024-01-05T10:01:00", "Rory"),
    Doc("boat", "Our boat leaves at noon on Friday.", "s2", None, "user"),
    Doc("late", "The boat was late and the soup cold.", "s2", None, "assistant"),
    Doc("lone", "Herons stand still for hours.", "lone", None, None),
]


def embed(texts):
    return unit(fake(texts, 384))


class Hashed:
    name, dim = "hashed", 384
    embed = staticmethod(embed)


def peer(name):
    """A system that takes packages which nothing else here needs."""
    return pytest.param(name, marks=pytest.mark.long)


@pytest.fixture(params=["ours", peer("bm25"), "fts5", "vectors", peer("rrf"), peer("chromadb")])
def system(request):
    for name, package in (("bm25", "bm25s"), ("rrf", "bm25s"), ("chromadb", "chromadb")):
        if request.param == name:
            pytest.importorskip(package, reason=f"the system {name!r} is made of the package {package!r}")
    if request.param in {"bm25", "rrf"}:
        pytest.importorskip("Stemmer", reason="bm25 is measured with stems, which need PyStemmer")
    system = benchmark("systems").opened(request.param, Hashed())
    system.add(DOCS)
    yield system
    system.close()


def test_every_system_finds_what_it_was_given(system):
    for doc in DOCS:
        assert system.search(doc.text, 3)[0] == doc.id
    assert len(system.search("boat", 2)) <= 2
    found = system.search("the boat and the soup", 100)
    assert len(set(found)) == len(found) <= len(DOCS)
    assert set(found) <= {doc.id for doc in DOCS}
    assert {"late", "soup"} <= set(found[:3])


def test_questions_without_known_words_are_no_accident(system):
    assert set(system.search("?!", 3)) <= {doc.id for doc in DOCS}
    assert set(system.search("zzzz", 3)) <= {doc.id for doc in DOCS}


def test_vectors_are_the_nearest_by_cosine():
    system = benchmark("systems").opened("vectors", Hashed())
    system.add(DOCS)
    question = "boat soup door"
    cosines = {doc.id: float(embed([doc.text])[0] @ embed([question])[0]) for doc in DOCS}
    assert system.search(question, 5) == sorted(cosines, key=lambda one: -cosines[one])
    assert system.search(question, 2) == system.search(question, 5)[:2]


def test_rrf_adds_the_reciprocals_of_the_ranks():
    systems = benchmark("systems")
    fused = object.__new__(systems.RRF)

    class Scripted:
        def __init__(self, found):
            self.found = found

        def search(self, query, k):
            assert k == 100
            return self.found

    fused._parts = (Scripted(["a", "b", "c"]), Scripted(["c", "d", "b"]))
    expected = {"a": 1 / 61, "b": 1 / 62 + 1 / 63, "c": 1 / 63 + 1 / 61, "d": 1 / 62}
    assert fused.search("anything", 4) == sorted(expected, key=lambda one: -expected[one])


@pytest.mark.parametrize(("name", "package"), [("bm25", "bm25s"), ("rrf", "bm25s"), ("chromadb", "chromadb")])
def test_a_package_that_is_not_there_is_named(monkeypatch, name, package):
    systems = benchmark("systems")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install {package}; or leave"):
        systems.opened(name, Hashed())


# --- the adapter ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["json", "sqlite", "memory", None])
def test_documents_are_recorded_as_a_user_would(monkeypatch, store):
    adapter = benchmark("eval_adapter")
    if store is not None:
        monkeypatch.setenv("RAEBURN_EVAL_STORE", store)
    monkeypatch.setenv("RAEBURN_EVAL_INDEX", "exact")
    system = adapter.Builtin()
    memory = system.memory
    try:
        assert memory.storage_backend == (store or "sqlite")
        assert memory.vector_backend == "exact"
        system.add(DOCS[:2])
        system.add(DOCS[2:])
        kinds = {doc.id: memory.get(doc.id).kind for doc in DOCS}
        assert kinds == {"keys": "prompt", "soup": "prompt", "boat": "prompt", "late": "response", "lone": "prompt"}
        assert [memory.get(doc.id).attributes.get("name") for doc in DOCS] == ["Isla", "Rory", None, None, None]
        assert memory.get("keys").timestamp == "2024-01-05T10:00:00+00:00"
        assert [node.id for node in memory.thread("s2")] == ["boat", "late"]
        assert memory.neighbours("boat", "responded_with")[0].id == "late"
        assert memory.links("lone") == []
        assert system.search("Where is the spare key?", 2)[0] == "keys"
    finally:
        system.close()
    assert not Path(system._folder.name).exists()


def test_a_given_model_embeds_everything_in_one_batch():
    calls = []

    def counted(texts):
        calls.append(list(texts))
        return embed(texts)

    long = Doc("long", "The heron stood in the loch. " * 60, None, None, None)
    system = benchmark("eval_adapter").MiniLM(embed=counted)
    try:
        system.add([*DOCS, long])
        everything = calls[0]
        assert "Isla: " + DOCS[0].text in everything
        assert sum(text.startswith("The heron stood") for text in everything) > 2  # the whole and its passages
        assert len(calls) == 1
        assert system.memory.stats().vectors["prompt"] == 5
        assert system.search("Where is the spare key?", 1) == ["keys"]
        assert calls[-1] == ["Where is the spare key?"]
    finally:
        system.close()


def test_the_adapter_says_what_it_needs(monkeypatch):
    adapter = benchmark("eval_adapter")
    monkeypatch.delenv("RAEBURN_EVAL_MODEL", raising=False)
    with pytest.raises(ValueError, match="RAEBURN_EVAL_MODEL: the folder"):
        adapter.MiniLM()
    monkeypatch.setenv("RAEBURN_EVAL_STORE", "postgres")
    with pytest.raises(ValueError, match="RAEBURN_EVAL_STORE='postgres' is no store"):
        adapter.Builtin()


# --- the comparison ---------------------------------------------------------------------------------------------


class Scripted:
    """A system that answers as it was told to."""

    answers: ClassVar = {"one": ["x", "a", "b"], "two": ["c", "two"]}

    def __init__(self, _embed):
        self.closed = False

    def add(self, docs):
        self.docs = list(docs)

    def search(self, query, k, now=None):
        return self.answers.get(query, [])[:k]

    def close(self):
        assert not self.closed
        self.closed = True


def test_figures_are_those_of_documents_and_of_their_sessions(monkeypatch):
    retrieval, datasets = benchmark("retrieval"), benchmark("datasets")
    monkeypatch.setitem(benchmark("systems").PEERS, "scripted", Scripted)
    documents = [datasets.Document(i, f"text {i}", s) for i, s in zip("xabc", ["s1", "s1", "s2", "s3"], strict=True)]
    queries = [
        datasets.Query("q1", "one", {"b": 1.0, "c": 1.0}, ("s2", "s3"), "hard"),
        datasets.Query("two", "two", {}, ("s3",), "easy"),
    ]
    dataset = datasets.Dataset("made up", [datasets.Collection("1", documents, queries)], {"cats": 3})
    results = retrieval.compare(dataset, ["scripted"], Hashed())
    result = results["scripted"]
    assert len(result.documents) == 1  # of the other question only the session is known
    assert result.figure("recall@5").value == 0.5
    assert result.figure("mrr").value == NEAR(1 / 3)
    # Sessions stand where their first document stands: s1, s2 for the first question, s3 for the second.
    assert result.figure("session recall_any@5").value == 1
    assert result.figure("session recall_all@5").value == 0.5
    assert {label: figure.value for label, figure in result.classes().items()} == {"easy": 1, "hard": 0.5}
    lines = retrieval.table(dataset, results, classes=True).splitlines()
    assert lines[:3] == [
        "made up: 1 collections, 4 texts, 2 questions",
        "behind each figure: its 95 % interval",
        "left out: 3 cats",
    ]
    assert lines[4].split()[:4] == ["scripted", "0.000", ".00-.79", "0.500"]
    assert lines[-2].split() == ["easy", "hard"]
    data = json.loads(json.dumps(result.to_dict()))
    assert data["questions"] == 2
    assert data["figures"]["recall@10"]["value"] == 0.5
    assert data["classes"]["easy"]["value"] == 1


def test_a_document_is_no_answer_to_the_question_of_the_same_id(beir_folder, monkeypatch):
    retrieval = benchmark("retrieval")
    monkeypatch.setitem(benchmark("systems").PEERS, "scripted", Scripted)
    monkeypatch.setattr(Scripted, "answers", {"How wet is Mull?": ["q3", "d4"]})
    results = retrieval.compare(benchmark("datasets").beir(beir_folder), ["scripted"], Hashed())
    assert results["scripted"].documents[1]["mrr"] == 1


def test_names_are_given_to_others_only_where_it_is_asked_for(locomo_file, monkeypatch):
    retrieval = benchmark("retrieval")
    given = []
    monkeypatch.setitem(benchmark("systems").PEERS, "scripted", Scripted)
    monkeypatch.setattr(Scripted, "add", lambda self, docs: given.append([doc.text for doc in docs]))
    dataset = benchmark("datasets").locomo(locomo_file)
    for named in (False, True):
        retrieval.compare(dataset, ["scripted"], Hashed(), named=named)
    assert [texts[2] for texts in given] == ["The ferry was late again.", "Rory: The ferry was late again."]


def test_the_vectors_of_all_systems_come_from_one_batch_per_collection(locomo_file, monkeypatch):
    batches = []

    class Counted(Hashed):
        @staticmethod
        def embed(texts):
            batches.append(len(texts))
            return embed(texts)

    monkeypatch.setenv("RAEBURN_EVAL_STORE", "memory")
    benchmark("retrieval").compare(benchmark("datasets").locomo(locomo_file), ["ours", "vectors"], Counted())
    assert batches[0] >= 4 + 4 + 3  # texts with names, texts without, questions
    assert sum(batches[1:]) <= 1  # the search that builds what is built at the first search


def test_all_sets_in_one_run(locomo_file, long_file, beir_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAEBURN_EVAL_INDEX", "exact")
    out = tmp_path / "out.json"
    arguments = [
        "--locomo",
        locomo_file,
        "--longmemeval",
        long_file,
        "--beir",
        beir_folder,
        "--systems",
        "ours,fts5,vectors",
    ]
    benchmark("retrieval").main([*map(str, arguments), "--classes", "--out", str(out)])
    printed = capsys.readouterr().out
    for heading in ("LoCoMo: 1 collections, 4 texts", "LongMemEval: 2 collections, 4 texts", "islands: 1 collections"):
        assert heading in printed
    written = json.loads(out.read_text())
    assert written["model"] == "builtin"
    assert set(written["results"]) == {"LoCoMo", "LongMemEval", "islands"}
    for results in written["results"].values():
        assert set(results) == {"ours", "fts5", "vectors"}
    assert written["results"]["islands"]["fts5"]["figures"]["recall@10"]["value"] > 0.5
    assert written["results"]["LongMemEval"]["ours"]["figures"]["session recall_any@5"]["value"] == 1
    assert np.isfinite(written["results"]["LoCoMo"]["ours"]["query_ms_p95"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name a set with --locomo, --longmemeval or --beir"),
        (["--locomo", "x.json", "--systems", "ours,lucene"], "no system is called 'lucene'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, says, capsys):
    with pytest.raises(SystemExit):
        benchmark("retrieval").main(arguments)
    assert says in capsys.readouterr().err


# --- how long it takes ------------------------------------------------------------------------------------------


def test_latency_asks_every_size_and_prints_a_line_for_each(monkeypatch, capsys):
    latency = benchmark("latency")
    sizes = {"--sizes": "20,40", "--k": "2,5", "--rounds": "1", "--questions": "3"}
    monkeypatch.setattr(sys, "argv", ["latency", *(part for option in sizes.items() for part in option)])
    latency.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = [line for line in lines if line[2:3] in (["new"], ["again"])]
    assert [line[:3] for line in table] == [
        [size, k, words] for size in ("20", "40") for k in ("2", "5") for words in ("new", "again")
    ]
    assert all(float(number) > 0 for line in table for number in (line[3], line[-1]))


def test_what_the_service_adds_is_what_is_left_of_its_time(monkeypatch, capsys):
    for package in ("fastapi", "uvicorn", "httpx"):
        pytest.importorskip(package, reason="the service needs raeburnmemory[fastapi]")
    service = benchmark("service")
    sizes = {"--messages": "40", "--rounds": "1", "--calls": "3", "--clients": "2"}
    monkeypatch.setattr(sys, "argv", ["service", *(part for option in sizes.items() for part in option)])
    service.main()
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert first == "40 messages, 2 clients, workers: 1, median of 1 rounds of 6 calls, ms"
    assert [line.split()[0] for line in lines] == ["recall", "add", "session"]
    for line in lines:
        own, own95, whole, whole95, bare, bare95, adds, *cpu = map(float, line.split()[1:])
        assert 0 < own <= own95
        assert 0 < whole <= whole95
        assert 0 < bare <= bare95
        assert adds == pytest.approx(whole - own - bare, abs=0.03)
        assert cpu[3] == pytest.approx(cpu[1] - cpu[0] - cpu[2], abs=0.03)


def test_the_vectors_of_prepared_questions_are_those_of_the_model():
    latency = benchmark("latency")
    prepared = latency.Prepared()
    prepared.prepare(["a boat", "some soup"])
    assert prepared.known.keys() == {"a boat", "some soup"}
    for texts in (["a boat"], ["some soup"], ["a boat", "some soup"], ["a door"]):
        assert np.array_equal(prepared.embed(texts), latency.BuiltinEmbedder().embed(texts))


# --- what reading costs ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_what_reading_costs_is_printed_for_each_size(tmp_path, monkeypatch, capsys):
    graph = benchmark("graph")
    chosen = "get,why (agent),nodes('fact') (none),len,graph,export(path),link_similar_prompts"
    options = ["--sizes", "300,600", "--folder", str(tmp_path), "--rounds", "1", "--link", "--only", chosen]
    monkeypatch.setattr(sys, "argv", ["graph", *options])
    graph.main()
    tables = capsys.readouterr().out.strip().split("\n\n")
    assert [table.partition(" nodes")[0] for table in tables] == [
        "sqlite, 300",
        "sqlite, 600",
        "json, 300",
        "json, 600",
    ]
    for table in tables:
        rows = {line[:27].strip(): line[27:].split() for line in table.splitlines()[2:]}
        assert ",".join(rows) == chosen.replace("graph,export(path)", "export(path),graph")
        made = {name: int(row[3].replace(",", "")) for name, row in rows.items()}
        if table.startswith("sqlite"):
            assert made["get"] == 1
            assert made["graph"] > 700 < made["export(path)"]
    assert not (tmp_path / "exported.json").exists()


# --- stores and indexes -------------------------------------------------------------------------------------------


def test_every_store_with_every_index(tmp_path, capsys):
    backends, out = benchmark("backends"), tmp_path / "figures.json"
    options = {"--size": "300", "--dim": "12", "--questions": "5", "--rounds": "1", "--singly": "20", "--k": "4"}
    indexes = [
        name
        for name, module in (("exact", ""), ("faiss", "faiss"), ("qdrant", "qdrant_client"))
        if not module or installed(module)
    ]
    backends.main([*(part for option in options.items() for part in option), "--out", str(out)])
    head, names, *table = capsys.readouterr().out.splitlines()
    assert head.startswith("300 vectors of 12 numbers, 5 questions, k=4, Qdrant at :memory:")
    rows = [line.split() for line in table if not line.startswith("left out")]
    assert [row[:2] for row in rows] == [[store, index] for store in ("json", "sqlite") for index in indexes]
    assert names.split()[-1] == "recall@4"
    assert {row[-1] for row in rows} == {"1.000"}
    figures = json.loads(out.read_text())
    assert [len(line["times"]) for line in figures["lines"]] == [5] * len(rows)
    left_out = {
        line.partition(":")[2].split(",")[1].split(":")[0].strip() for line in table if line.startswith("left out")
    }
    assert left_out == {"faiss", "qdrant"} - set(indexes)


def test_what_cannot_be_measured_is_named(capsys):
    backends = benchmark("backends")
    with pytest.raises(SystemExit):
        backends.main(["--stores", "postgres"])
    assert (
        "'postgres' is no store here. Choose from: json, sqlite; postgres needs --postgres." in capsys.readouterr().err
    )
    backends.main(
        [
            "--size",
            "20",
            "--dim",
            "4",
            "--questions",
            "2",
            "--rounds",
            "1",
            "--stores",
            "json",
            "--indexes",
            "exact,grid",
        ]
    )
    assert "left out: json, grid: No vector backend is called 'grid'." in capsys.readouterr().out


def test_the_nearest_are_counted_by_their_scores():
    backends = benchmark("backends")
    vectors, questions = backends.made_up(50, 8, 3)
    assert np.linalg.norm([*vectors, *questions], axis=1) == pytest.approx(1, abs=1e-6)
    for question, least in zip(questions, backends.expected(vectors, questions, 4), strict=True):
        scores = sorted(
            (sum(a * b for a, b in zip(row, question.tolist(), strict=True)) for row in vectors.tolist()), reverse=True
        )
        assert least == NEAR(scores[3])


def test_what_a_folder_costs_is_told_in_shares(capsys):
    ingest = benchmark("ingest")
    costs = ingest.Costs(100, ingest.Cost(10, 20), ingest.Cost(0.2, 1), ingest.Cost(0.25, 1))
    assert list(costs.shares().values()) == pytest.approx([0.02, 0.025, 0.025])
    ingest.main(["--files", "40", "--rounds", "1"])
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if not line.startswith(" ")] == ["sqlite, 40 files", "json, 40 files"]
    assert sum("nothing changed, of the first sync" in line for line in shown) == 2
    with pytest.raises(RuntimeError, match="was to give"):
        ingest.timed(ingest.IngestReport, added=1)
