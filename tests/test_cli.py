"""The command line: what it prints, what it exits with, and that it never shows a traceback."""

import contextlib
import importlib.metadata
import json
import os
import re
import select
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import raeburnmemory
from raeburnmemory import MemoryGraph
from raeburnmemory.embed.builtin import BuiltinEmbedder
from raeburnmemory.ranking import Weights

with contextlib.suppress(ImportError):  # where it is missing, what works without it is tested all the same
    import typer
    from commands import CliRunner

    from raeburnmemory import cli
    from raeburnmemory.cli import app

ROOT = Path(raeburnmemory.__file__).resolve().parent.parent
COMMANDS = [
    "add",
    "fact",
    "retract",
    "undo",
    "forget",
    "import",
    "ingest",
    "sync",
    "sources",
    "recall",
    "similar",
    "matching",
    "context",
    "get",
    "thread",
    "facts",
    "why",
    "trace",
    "evaluate",
    "tune",
    "stats",
    "ask",
    "export",
    "reindex",
    "reembed",
    "doctor",
    "verify",
    "repair",
    "backup",
    "restore",
    "copy",
    "compact",
    "vacuum",
    "schema",
    "serve",
    "mcp",
    "hub",
    "demo",
    "models",
]
SERVING = {"ask", "hub", "mcp", "models", "serve"}
ADD = (
    'raeburnmemory --db graph.json add --prompt-id p1 --prompt-text "Hello" --response-id r1 --response-text "Hi" '
    '--agent-id a1 --agent-name "Greeter" --session-id s1'
)
SEEDS = [
    ADD,
    "raeburnmemory --db graph.json export --output export.json",
    'raeburnmemory --db graph.json similar --text "Hello"',
]


NEED_NO_TYPER = {
    "test_version_and_import_need_no_package",
    "test_without_typer_one_sentence_says_what_to_install",
    "test_the_console_script",
}


@pytest.fixture(autouse=True)
def _here(request, tmp_path, monkeypatch):
    """Run everything in a folder of its own, which is the home too, with the model that is always there."""
    if request.node.name not in NEED_NO_TYPER:
        pytest.importorskip("typer", reason="the command line needs typer")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("RAEBURN_EMBED_MODEL", "builtin")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def run(*arguments, **options):
    return CliRunner().invoke(app, [*arguments], prog_name="raeburnmemory", **options)


def good(*arguments):
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def bad(code, *arguments):
    """Run what goes wrong with *code*, on one line of stderr, and return that line."""
    result = run(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr), result.stderr
    return result.stderr


def start(*arguments, **options):
    """Start the program as people do, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    environment.pop("PYTHONUNBUFFERED", None)
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
    return subprocess.Popen([sys.executable, "-m", "raeburnmemory", *arguments], env=environment, **streams)


def finish(process, given=None):
    with process:
        out, err = process.communicate(given, timeout=60)
    return process.returncode, (out or b"").decode(), (err or b"").decode()


@pytest.fixture
def graph():
    """Give the name of a small memory in JSON files."""
    with MemoryGraph("graph.json", embedding_model="builtin") as memory:
        memory.add_interaction(
            {"id": "p1", "text": "How do I reset my password?"},
            {"id": "r1", "text": "On the account page.\nBelow your name."},
            {"id": "a1", "name": "Helper"},
            "s1",
            metadata={"topic": "account", "stars": 5},
            timestamp="2024-05-01T10:00:00Z",
        )
        memory.add_interaction({"id": "p2", "text": "Where is the nearest bakery?"}, None, None, "s2")
    return "graph.json"


def ids(path="graph.json", **options):
    with MemoryGraph(path, read_only=True, **options) as memory:
        return [node.id for node in memory]


# --- the commands of the original ------------------------------------------------------------------------------


def test_the_three_commands_of_the_original():
    outputs = [good(*shlex.split(command)[1:]) for command in SEEDS]
    exported = json.loads(Path("export.json").read_text())
    assert {node["id"]: node["type"] for node in exported["nodes"]} == {
        "p1": "prompt",
        "r1": "response",
        "a1": "agent",
        "s1": "session",
    }
    assert {(edge["source"], edge["target"], edge["relation"]) for edge in exported["links"]} == {
        ("p1", "r1", "responded_with"),
        ("r1", "a1", "generated_by"),
        ("p1", "s1", "belongs_to"),
    }
    assert str(Path("export.json").resolve()) in outputs[1]
    assert outputs[2] == " 1   1.000  p1  Hello\n"


def test_a_missing_store_and_missing_vectors_name_the_file_and_the_cure():
    code, out, err = finish(start("--db", "graph.json", "similar", "--text", "Hello"))
    assert (code, out) == (3, "")
    assert "'graph.json'" in err
    assert "raeburnmemory --db graph.json add" in err
    assert list(Path().iterdir()) == []

    good(*shlex.split(SEEDS[0])[1:])
    Path("graph.json.faiss").unlink(missing_ok=True)
    Path("graph.json.vectors.npy").unlink(missing_ok=True)
    code, out, err = finish(start("--db", "graph.json", "similar", "--text", "Hello"))
    assert (code, out) == (4, "")
    assert str(Path("graph.json").resolve()) in err
    assert "Traceback" not in err
    cure = re.search(r"raeburnmemory (--db \S+ reindex)", err)
    assert run(*shlex.split(cure[1])).exit_code == 0
    assert good(*shlex.split(SEEDS[2])[1:]) == " 1   1.000  p1  Hello\n"


# --- adding ----------------------------------------------------------------------------------------------------


def test_add_with_everything():
    out = good(
        *(
            "--db",
            "a.db",
            "--namespace",
            "ana",
            "add",
            "--prompt-id",
            "p",
            "--prompt-text",
            "Tea?",
            "--response-id",
            "r",
        ),
        *("--response-text", "Yes.", "--agent-id", "a", "--agent-name", "Ann", "--session-id", "s"),
        *("--timestamp", "2024-05-01T12:00:00+02:00", "--metadata", '{"mood": "calm", "n": [1]}', "--model", "builtin"),
        "--json",
    )
    assert json.loads(out) == {"prompt": "p", "response": "r", "agent": "a", "session": "s"}
    with MemoryGraph("a.db", read_only=True, namespace="ana") as memory:
        assert memory.stats().storage_backend == "sqlite"
        spoken = {"timestamp": "2024-05-01T10:00:00+00:00", "mood": "calm", "n": [1]}
        assert memory.get("p").to_dict() == {"id": "p", "type": "prompt", "text": "Tea?", **spoken}
        assert memory.get("r").to_dict() == {"id": "r", "type": "response", "text": "Yes.", **spoken}
        assert memory.get("a").attributes == {"name": "Ann"}
        assert [node.id for node in memory.thread("s")] == ["p", "r"]
    assert ids("a.db") == []


def test_add_makes_ids_and_says_them():
    out = good("--db", "a.json", "add", "--prompt-text", "Tea?", "--response-text", "Yes.")
    found = re.fullmatch(r"Recorded prompt (\S+), response (\S+) in (.+)\n", out)
    assert ids("a.json") == [found[1], found[2]]
    assert found[3] == str(Path("a.json").resolve())


def test_seconds_are_a_time_and_dates_are_not_seconds():
    for node_id, when in (("p1", "1714557600"), ("p2", "1714557600.5"), ("p3", "2024-05-01T10:00:00Z")):
        good("--db", "a.json", "add", "--prompt-text", "Tea?", "--prompt-id", node_id, "--timestamp", when)
    with MemoryGraph("a.json", read_only=True) as memory:
        assert [memory.get(node_id).timestamp for node_id in ("p1", "p2", "p3")] == [
            "2024-05-01T10:00:00+00:00",
            "2024-05-01T10:00:00.500000+00:00",
            "2024-05-01T10:00:00+00:00",
        ]
    assert "'17145'" in bad(2, "--db", "a.json", "add", "--prompt-text", "Tea?", "--timestamp", "17145")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--prompt-text", "x", "--prompt-id", ""], "prompt"),
        (["--prompt-text", "x", "--response-id", "r"], "--response-text"),
        (["--prompt-text", "x", "--agent-name", "Ann"], "--agent-id"),
        (["--prompt-text", "x", "--metadata", "{nope"], "--metadata"),
        (["--prompt-text", "x", "--metadata", "[1]"], "'[1]'"),
        (["--prompt-text", "x", "--metadata", "[" * 100_000], "--metadata"),
        (["--prompt-text", "x", "--metadata", '{"a": NaN}'], "nan"),
        (["--prompt-text", "x", "--metadata", '{"text": 1}'], "'text'"),
        (["--prompt-text", "x", "--timestamp", "yesterday"], "'yesterday'"),
        (["--prompt-text", "x", "--prompt-id", "1", "--session-id", "1"], "'1'"),
        (["--prompt-text", "half \udc80"], "surrogate"),
        ([], "--prompt-text"),
    ],
)
def test_bad_input_makes_no_store(options, says):
    assert says in bad(2, "--db", "new.json", "add", *options)
    assert list(Path().iterdir()) == []


def test_a_model_that_cannot_be_had_makes_no_store(monkeypatch):
    monkeypatch.delenv("RAEBURN_EMBED_MODEL")
    assert "no/such/model" in bad(4, "--db", "new.json", "add", "--prompt-text", "x", "--model", "no/such/model")
    assert list(Path().iterdir()) == []


def test_another_model_than_that_of_the_store(graph, monkeypatch):
    monkeypatch.delenv("RAEBURN_EMBED_MODEL")
    line = bad(4, "--db", graph, "add", "--prompt-text", "x", "--model", "all-MiniLM-L6-v2")
    assert "reembed --model all-MiniLM-L6-v2" in line
    assert len(ids()) == 6


# --- reading ---------------------------------------------------------------------------------------------------


def test_similar(graph):
    question = "I forgot my password"
    vectors = BuiltinEmbedder().embed([question, "How do I reset my password?", "Where is the nearest bakery?"])
    scores = [float(np.dot(vectors[0], other)) for other in vectors[1:]]
    assert scores[0] > scores[1]

    found = json.loads(good("--db", graph, "similar", "--text", question, "--json"))
    assert [hit["id"] for hit in found["hits"]] == ["p1", "p2"]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx(scores, abs=1e-5)
    assert found["hits"][0] == {
        "score": found["hits"][0]["score"],
        "similarity": found["hits"][0]["score"],
        "id": "p1",
        "type": "prompt",
        "text": "How do I reset my password?",
        "timestamp": "2024-05-01T10:00:00+00:00",
        "topic": "account",
        "stars": 5,
    }
    assert found["skipped"] == {}
    lines = good("--db", graph, "similar", "--text", question).splitlines()
    assert [line.split(maxsplit=3) for line in lines] == [
        ["1", f"{scores[0]:.3f}", "p1", "How do I reset my password?"],
        ["2", f"{scores[1]:.3f}", "p2", "Where is the nearest bakery?"],
    ]
    assert len(good("--db", graph, "similar", "--text", question, "-k", "1").splitlines()) == 1
    assert good("--db", graph, "similar", "--text", question, "--top-k", "0") == ""

    def ids(*options):
        return [
            hit["id"]
            for hit in json.loads(good("--db", graph, "similar", "--text", question, *options, "--json"))["hits"]
        ]

    with MemoryGraph(graph, "builtin", read_only=True) as memory:
        responses = {node.id for node in memory.nodes("response")}
    assert set(ids("--kind", "response")) == responses
    assert set(ids("--kind", "response", "--kind", "prompt")) == {"p1", "p2", *responses}
    assert ids("--where", "stars=5") == ["p1"]
    done = run("--db", graph, "similar", "--text", question, "--until", "2024-04-30")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "Nothing in" in done.stderr


def test_matching(graph):
    found = json.loads(good("--db", graph, "matching", "reset password", "--json"))
    with MemoryGraph(graph, "builtin", read_only=True) as memory:
        wanted = memory.matching("reset password")
    assert found == {"hits": [hit.to_dict() for hit in wanted], "skipped": {}}
    assert found["hits"][0]["id"] == "p1"
    assert found["hits"][0]["why"]["words"] == ["reset", "password"]
    lines = good("--db", graph, "matching", "reset bakery", "-k", "2").splitlines()
    assert {line.split(maxsplit=3)[2] for line in lines} <= set(wanted.ids) | {"p2"}
    assert len(lines) == 2
    assert good("--db", graph, "matching", "reset", "--top-k", "0") == ""
    for nothing in (["reset bakery", "--every"], ["reset", "--kind", "fact"], ["nowhere"]):
        done = run("--db", graph, "matching", *nothing)
        assert (done.exit_code, done.stdout) == (0, "")
        assert "Nothing in" in done.stderr
    done = run("--db", graph, "matching", "the")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no words to look for" in done.stderr


def test_long_texts_are_shortened_to_the_width(monkeypatch):
    good("--db", "a.json", "add", "--prompt-id", "p", "--prompt-text", "word " * 100)
    for width in (60, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        (line,) = good("--db", "a.json", "similar", "--text", "word").splitlines()
        assert len(line) == width
        assert line.endswith("…")


def test_similar_in_an_empty_memory_and_for_an_unknown_word(graph):
    with MemoryGraph("empty.json", embedding_model="builtin"):
        pass
    result = run("--db", "empty.json", "similar", "--text", "Hello")
    assert (result.exit_code, result.stdout) == (0, "")
    assert re.fullmatch(r"Note: There are no prompts in '.*empty\.json' yet\.\n", result.stderr)

    result = run("--db", graph, "similar", "--text", "\u0f40", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["hits"] == []
    assert list(json.loads(result.stdout)["skipped"]) == ["dense"]
    assert re.fullmatch(r"Warning: The dense search did not run: [^\n]+\n", result.stderr)


def test_context(graph):
    text = good("--db", graph, "context", "how do I reset my password?", "--budget", "300", "-k", "1")
    assert text.splitlines()[1:4] == [
        "<memory>",
        '<item n="1" source="user, 2024-05-01 10:00, session s1, id p1">',
        "How do I reset my password?",
    ]
    assert text.count("</item>") == 2  # the answer came along
    arguments = ("context", "how do I reset my password?", "--session", "s1", "--neighbours", "0", "-k", "1")
    found = json.loads(good("--db", graph, *arguments, "--json"))
    assert [piece["id"] for piece in found["pieces"]] == ["p1"]
    assert (found["budget"], found["estimated"], found["left_out"]) == (1000, True, [])
    ordered = json.loads(good("--db", graph, "context", "the nearest bakery", "--order", "score", "--json"))
    assert ordered["pieces"][0]["id"] == "p2"


def test_context_says_what_did_not_fit(graph):
    result = run("--db", graph, "context", "how do I reset my password?", "--budget", "10", "-k", "1")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Note: 1 of the hits did not fit into 10 tokens.\n" in result.stderr
    result = run("--db", graph, "context", "password", "--until", "2001-01-01")
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"Note: Nothing in '{os.path.realpath(graph)}' fits.\n" in result.stderr
    assert "no order of a context" in bad(2, "--db", graph, "context", "password", "--order", "time")


def test_get(graph):
    node = json.loads(good("--db", graph, "get", "r1", "--json"))
    assert node["text"] == "On the account page.\nBelow your name."
    assert (node["id"], node["type"], node["topic"], node["stars"]) == ("r1", "response", "account", 5)
    out = good("--db", graph, "get", "r1")
    assert re.search(r"^type +response$", out, re.MULTILINE)
    assert re.search(r"^text +On the account page\.\nBelow your name\.$", out, re.MULTILINE)
    assert re.search(r"^stars +5$", out, re.MULTILINE)
    assert "'nobody'" in bad(3, "--db", graph, "get", "nobody")


def test_thread(graph):
    said = json.loads(good("--db", graph, "thread", "s1", "--json"))
    assert [(node["id"], node["type"]) for node in said] == [("p1", "prompt"), ("r1", "response")]
    lines = good("--db", graph, "thread", "s1").splitlines()
    assert lines[0] == "2024-05-01T10:00:00+00:00  prompt  p1"
    assert lines[1] == "    How do I reset my password?"
    assert lines[-3:-1] == ["    On the account page.", "    Below your name."]
    assert "'s9'" in bad(3, "--db", graph, "thread", "s9")
    assert "a prompt" in bad(3, "--db", graph, "thread", "p1")


def test_facts(graph):
    said = ("fact", "Ana", "lives_in")
    out = good("--db", graph, *said, "Vienna", "--from", "2024-05-01", "--source", "p1", "--source", "r1", "--id", "v")
    assert out == f"Recorded fact v in {Path(graph).resolve()}: Ana lives in Vienna\n"
    found = json.loads(good("--db", graph, *said, "Graz", "--from", "1735689600", "--single-valued", "--json"))
    assert (found["type"], found["text"], found["valid_to"]) == ("fact", "Ana lives in Graz", None)
    assert found["valid_from"] == "2025-01-01T00:00:00+00:00"
    late = json.loads(good("--db", graph, *said, "Linz", "--from", "2024-09-01", "--to", "2025-03-01", "--json"))
    assert late["valid_to"] == "2025-01-01T00:00:00+00:00"

    def listed(*options):
        return [node["object"] for node in json.loads(good("--db", graph, "facts", *options, "--json"))]

    assert listed() == listed("--subject", "ana", "--predicate", "lives in") == ["Graz"]
    assert listed("--as-of", "2024-06-01") == ["Vienna"]
    assert listed("--all") == ["Vienna", "Linz", "Graz"]
    assert listed("--all", "--object", "Linz") == ["Linz"]
    assert good("--db", graph, "facts", "--all").splitlines() == [
        f"2024-05-01T00:00:00+00:00  2024-09-01T00:00:00+00:00  {'v':36}  Ana lives in Vienna",
        f"2024-09-01T00:00:00+00:00  2025-01-01T00:00:00+00:00  {late['id']}  Ana lives in Linz",
        f"2025-01-01T00:00:00+00:00  -                          {found['id']}  Ana lives in Graz",
    ]
    result = run("--db", graph, "facts", "--subject", "Ben")
    assert (result.exit_code, result.stdout) == (0, "")
    assert re.fullmatch(r"Note: No fact in '.*graph\.json' fits\.\n", result.stderr)


def test_a_fact_that_makes_no_sense_makes_no_memory(graph):
    for code, *arguments in (
        (2, "--from", "soon"),
        (2, "--from", "2024-05-01", "--to", "2024-05-01"),
        (2, "--id", ""),
        (3, "--source", "p1"),
    ):
        bad(code, "--db", "new.json", "fact", "Ana", "likes", "tea", *arguments)
        assert not Path("new.json").exists()
    assert "'p9'" in bad(3, "--db", graph, "fact", "Ana", "likes", "tea", "--source", "p9")
    assert "must not be empty" in bad(2, "--db", graph, "fact", "Ana", "likes", " ")
    bad(2, "--db", graph, "facts", "--as-of", "soon")
    good("--db", "new.json", "fact", "Ana", "likes", "tea")
    assert len(ids("new.json")) == 1


def test_why(graph):
    good("--db", graph, "fact", "Ana", "lives_in", "Vienna", "--from", "2024-05-01", "--source", "r1", "--id", "v")
    lines = good("--db", graph, "why", "v").splitlines()
    assert lines[:2] == ["fact v: Ana lives in Vienna", "  valid from 2024-05-01T00:00:00+00:00"]
    assert lines[3].startswith("  derived from response r1: On the account page. Below your name. (said by Helper, ")
    assert lines[3].endswith(", at 2024-05-01T10:00:00+00:00, in session s1)")
    assert len(lines) == 4
    found = json.loads(good("--db", graph, "why", "v", "--json"))
    assert (found["node"]["id"], found["sources"][0]["node"]["id"]) == ("v", "r1")
    assert found["sources"][0]["speakers"] == ["Helper"]
    assert "'nobody'" in bad(3, "--db", graph, "why", "nobody")


def test_trace(graph):
    good("--db", graph, "fact", "Ana", "lives_in", "Vienna", "--source", "r1", "--id", "v")
    lines = good("--db", graph, "trace", "v").splitlines()
    assert lines[0] == "fact v: Ana lives in Vienna"
    assert lines[1].startswith("└── derived from response r1: On the account page.")
    assert [line.split(":")[0].strip("│├└─ ") for line in lines[2:]] == [
        "answers prompt p1",
        "in session s1",
        "given by agent a1",
    ]
    found = json.loads(good("--db", graph, "trace", "v", "--json"))
    assert [(node["id"], node["origin"]["depth"]) for node in found] == [
        ("v", 0),
        ("r1", 1),
        ("p1", 2),
        ("s1", 3),
        ("a1", 2),
    ]
    assert len(good("--db", graph, "trace", "v", "--depth", "1").splitlines()) == 2
    assert "'nobody'" in bad(3, "--db", graph, "trace", "nobody")
    bad(2, "--db", graph, "trace", "v", "--depth", "-1")


def test_retract_and_undo(graph):
    said = ("--db", graph, "fact", "Ana", "lives_in")
    good(*said, "Vienna", "--from", "2024-05-01", "--id", "v")
    good(*said, "Graz", "--from", "2025-01-01", "--id", "g", "--single-valued")

    def ends():
        return {node["id"]: node["valid_to"] for node in json.loads(good("--db", graph, "facts", "--all", "--json"))}

    new_year = "2025-01-01T00:00:00+00:00"
    assert ends() == {"v": new_year, "g": None}
    assert good("--db", graph, "undo", "g") == "Took back fact g: Ana lives in Graz\n"
    assert ends() == {"v": None}
    out = good("--db", graph, "retract", "v", "--at", "1735689600")
    assert out == f"Fact v ends at {new_year}: Ana lives in Vienna\n"
    assert ends() == {"v": new_year}
    assert json.loads(good("--db", graph, "undo", "v", "--json"))["id"] == "v"
    assert ends() == {}
    good(*said, "Linz", "--id", "l")
    assert json.loads(good("--db", graph, "retract", "l", "--json"))["valid_to"] is not None
    for command in ("retract", "undo"):
        assert "'nobody'" in bad(3, "--db", graph, command, "nobody")
        assert "'p1'" in bad(2, "--db", graph, command, "p1")
    bad(2, "--db", graph, "retract", "l", "--at", "soon")


QUESTIONS = [
    {"question": "How do I reset my password?", "expected": ["p1"], "class": "account"},
    {"question": "Where is the bakery?", "expected": ["p2"], "session": "s1"},
]


def test_evaluate(graph):
    Path("q.json").write_text(json.dumps(QUESTIONS))
    lines = good("--db", graph, "evaluate", "q.json", "-k", "3").splitlines()
    assert lines[0].split()[:3] == ["n", "recall@1", "recall@3"]
    assert lines[1].split()[:3] == ["all", "2", "0.500"]
    assert lines[2].split()[:3] == ["account", "1", "1.000"]
    assert "questions with something missing from their first 3 hits: 1" in lines
    data = json.loads(good("--db", graph, "evaluate", "q.json", "--json"))
    assert (data["questions"], data["k"], data["figures"]["mrr"]["value"]) == (2, 10, 0.5)
    assert [one["missing"] for one in data["failures"]] == [["p2"]]


def test_tune(graph):
    Path("q.json").write_text(json.dumps(QUESTIONS))
    before = Path(graph).read_bytes()
    lines = good("--db", graph, "tune", "q.json").splitlines()
    assert lines[0].split() == ["before", "after"]
    assert lines[-1] == "The present weights are kept: 2 questions teach too little. Bring at least 20."
    data = json.loads(good("--db", graph, "tune", "q.json", "--json"))
    assert (data["questions"], data["kept"]) == (2, True)
    assert data["weights"] == Weights().to_dict()
    assert Path(graph).read_bytes() == before
    assert "'r.json'" in bad(1, "--db", graph, "tune", "r.json")


def test_questions_that_cannot_be_asked(graph):
    assert "'q.json'" in bad(1, "--db", graph, "evaluate", "q.json")
    Path("q.json").write_text('["torn')
    assert "'q.json', line 1, is no JSON" in bad(2, "--db", graph, "evaluate", "q.json")
    Path("q.json").write_text('[["What?", ["p9"]]]')
    assert "no node has the id 'p9'" in bad(3, "--db", graph, "evaluate", "q.json")
    bad(2, "--db", graph, "evaluate", "q.json", "-k", "0")


def test_stats(graph):
    found = json.loads(good("--db", graph, "stats", "--json"))
    assert (found["nodes"], found["edges"]) == (6, 4)
    assert found["kinds"] == {"agent": 1, "prompt": 2, "response": 1, "session": 2}
    assert found["path"] == str(Path(graph).resolve())
    assert found["embedder"] == "builtin"
    out = good("--db", graph, "stats")
    assert re.search(r"^kinds +agent 1, prompt 2, response 1, session 2$", out, re.MULTILINE)
    assert re.search(r"^dim +256$", out, re.MULTILINE)


@pytest.mark.parametrize("db", ["graph.json", "graph.db"])
def test_export(db):
    with MemoryGraph(db, embedding_model="builtin") as memory:
        memory.add_interaction({"id": "p1", "text": "Hello"}, {"id": "r1", "text": "Hi"})
    with MemoryGraph(db, namespace="other") as memory:
        memory.add_interaction({"id": "p2", "text": "Bye"})
    printed = json.loads(good("--db", db, "export", "--json"))
    assert [(node["id"], node["text"]) for node in printed["nodes"]] == [("p1", "Hello"), ("r1", "Hi")]

    assert str(Path("~/out.json").expanduser()) in good("--db", db, "export", "-o", "~/out.json")
    assert json.loads(Path("out.json").read_text()) == printed
    both = json.loads(good("--db", db, "export", "--output", "both.json", "--all-namespaces", "--json"))
    assert json.loads(Path("both.json").read_text()) == both
    assert (ids("both.json"), ids("both.json", namespace="other")) == (["p1", "r1"], ["p2"])

    place = Path("graph.json" if db == "graph.json" else "graph.db.json").resolve()
    assert good("--db", db, "export").endswith(f" to {place}\n")
    assert [node["id"] for node in json.loads(place.read_text())["nodes"]] == ["p1", "r1"]
    assert "the memory itself" in bad(2, "--db", db, "export", "--output", f"./{db}")
    assert "missing" in bad(1, "--db", db, "export", "--output", "missing/folder/out.json")


def test_reading_leaves_the_files_alone(graph):
    def files():
        return {entry.name: (entry.stat().st_mtime_ns, entry.stat().st_ino) for entry in os.scandir()}

    before = files()
    for arguments in (
        ["similar", "--text", "x"],
        ["get", "p1"],
        ["thread", "s1"],
        ["facts", "--json"],
        ["why", "r1"],
        ["trace", "r1"],
        ["stats"],
        ["export", "--json"],
        ["export", "--output", "../elsewhere.json"],
    ):
        good("--db", graph, *arguments)
        assert files() == before, arguments


# --- changing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (["--id", "p1", "--id", "p2"], {"p1", "p2", "s1", "s2"}),
        (["--session", "s1"], {"p1", "r1", "s1"}),
        (["--agent", "a1"], {"p1", "r1", "s1"}),
        (["--before", "2025-01-01"], {"p1", "r1", "s1"}),
        (["--where", "topic=account"], {"p1", "r1", "s1"}),
        (["--where", 'stars={"gte": 5}'], {"p1", "r1", "s1"}),
        (["--where", "stars=5", "--where", "topic=account", "--id", "r1"], {"r1"}),
    ],
)
def test_forget(graph, options, gone):
    report = json.loads(good("--db", graph, "forget", *options, "--json"))
    assert set(report["ids"]) == gone
    assert {"p1", "r1", "a1", "s1", "p2", "s2"} - set(ids()) == gone


def test_forget_says_what_went(graph):
    assert good("--db", graph, "forget", "--session", "s1") == (
        "Forgot 1 prompt, 1 response, 1 session; edges: 3, vectors: 2.\n"
    )


@pytest.mark.parametrize(
    ("code", "options"),
    [
        (2, []),
        (2, ["--where", "topic"]),
        (2, ["--where", "=x"]),
        (2, ["--where", "a=1", "--where", "a=2"]),
        (2, ["--where", 'stars={"$gte": 5}']),
        (2, ["--where", 'stars={"gte": 5, "x": 1}']),
        (2, ["--before", "soon"]),
        (3, ["--id", "nobody"]),
        (3, ["--where", "stars=6"]),
        (3, ["--where", 'stars="5"']),
    ],
)
def test_forget_nothing(graph, code, options):
    bad(code, "--db", graph, "forget", *options)
    assert len(ids()) == 6


def test_forget_for_good(graph):
    with MemoryGraph(graph) as memory:
        memory.fact("Password", "is", "hunter2", source="p1", id="f1")
    assert any(b"hunter2" in path.read_bytes() for path in Path().iterdir())
    said = good("--db", graph, "forget", "--session", "s1", "--secure")
    first, written, deleted = said.splitlines()
    assert first == "Forgot 1 fact, 1 prompt, 1 response, 1 session; edges: 4, vectors: 3."
    assert re.fullmatch(r"Written anew: (?:[^,]+, )*[^,]+graph\.json\.journal(?:, [^,]+)*", written)
    assert re.match(r"Deleted: [^,]+graph\.json\.fact\.", deleted)
    assert not any(b"hunter2" in path.read_bytes() for path in Path().iterdir())
    # It is no error that it is gone already: the files are written anew all the same.
    report = json.loads(good("--db", graph, "forget", "--id", "p1", "--secure", "--json"))
    assert report["ids"] == []
    assert str(Path(graph).resolve()) in report["rewritten"]
    again = good("--db", graph, "forget", "--id", "p1", "--secure")
    assert again.startswith("Forgot nothing that was still there; edges: 0, vectors: 0.\nWritten anew: ")


def test_forget_for_good_beside_what_cannot_be_read(graph):
    aside = Path("graph.json.damaged-20260101T000000").resolve()
    aside.write_bytes(b'{"nodes": [torn')
    said = bad(1, "--db", graph, "forget", "--id", "p1", "--secure")
    assert str(aside) in said
    assert "--secure --backups" in said
    result = run("--db", graph, "forget", "--id", "r1", "--secure", "--json")
    assert (result.exit_code, json.loads(result.stdout)["ids"]) == (1, ["r1"])
    assert aside.exists()
    report = json.loads(good("--db", graph, "forget", "--id", "p2", "--secure", "--backups", "--json"))
    assert str(aside) in report["deleted"]
    assert not aside.exists()
    assert "--secure" in bad(2, "--db", graph, "forget", "--id", "p2", "--backups")


def test_forget_nothing_as_json(graph):
    result = run("--db", graph, "forget", "--id", "nobody", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout) == {
        "ids": [],
        "kinds": {},
        "links": 0,
        "vectors": 0,
        "rewritten": [],
        "deleted": [],
    }


def test_reindex_and_reembed(graph):
    assert json.loads(good("--db", graph, "reindex", "--json")) == {"embedded": 0, "indexed": 3, "without": 0}
    assert good("--db", graph, "reembed", "--model", "builtin") == "Vectors made: 3. Searched now: 3.\n"
    with MemoryGraph(graph) as memory:
        memory.add_interaction({"id": "p3", "text": "\u0f40"})  # no letter that the model knows
    assert good("--db", graph, "reindex") == (
        "Vectors made: 0. Searched now: 3. Texts without a vector, because the model knows no word of them: 1.\n"
    )
    assert "no/such/model" in bad(4, "--db", graph, "reembed", "--model", "no/such/model")


# --- which memory ----------------------------------------------------------------------------------------------


def test_which_memory(monkeypatch):
    good("add", "--prompt-text", "home", "--prompt-id", "1")
    monkeypatch.setenv("RAEBURN_DB", "variable.json")
    good("add", "--prompt-text", "variable", "--prompt-id", "2")
    good("--db", "option.json", "add", "--prompt-text", "option", "--prompt-id", "3")
    assert ids("~/.raeburnbrain/graph.json") == ["1"]
    assert ids("variable.json") == ["2"]
    assert ids("option.json") == ["3"]
    assert json.loads(good("get", "2", "--json"))["text"] == "variable"
    monkeypatch.setenv("RAEBURN_DB", "")
    assert json.loads(good("get", "1", "--json"))["text"] == "home"


def test_namespaces(graph):
    good("--db", graph, "--namespace", "ana", "add", "--prompt-id", "p1", "--prompt-text", "Mine")
    assert json.loads(good("--db", graph, "--namespace", "ana", "get", "p1", "--json"))["text"] == "Mine"
    assert json.loads(good("--db", graph, "get", "p1", "--json"))["text"] == "How do I reset my password?"
    assert json.loads(good("--db", graph, "stats", "--json"))["namespaces"] == ["ana", "default"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["similar", "--text", "x"],
        ["get", "x"],
        ["thread", "x"],
        ["stats"],
        ["evaluate", "questions.json"],
        ["export"],
        ["export", "--json"],
        ["export", "--output", "new.json"],
        ["forget", "--id", "x"],
        ["reindex"],
        ["reembed", "--model", "builtin"],
    ],
    ids=" ".join,
)
def test_a_mistyped_path_makes_no_store(arguments):
    line = bad(3, "--db", "my graph.json", *arguments)
    assert "raeburnmemory --db 'my graph.json' add" in line
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("arguments", [["stats"], ["reindex"], ["add", "--prompt-text", "x"]], ids=" ".join)
def test_what_is_no_memory(arguments):
    Path("folder").mkdir()
    Path("torn.json").write_text('{"nodes": [{"id": "p1"')
    Path("notes.txt").write_text("Buy bread.")
    with contextlib.closing(sqlite3.connect("other.db")) as db:
        db.execute("CREATE TABLE songs(title)")
        db.commit()
    before = {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    for name in ("folder", *before):
        assert name in bad(1, "--db", name, *arguments)
        assert all(Path(name).read_bytes() == content for name, content in before.items())
    bad(2, "--db", ":memory:", *arguments)
    assert "secret" not in bad(2, "--db", "nosuch://me:secret@host/db", *arguments)


def test_a_store_of_the_original_in_sqlite_is_brought_up_to_date_to_be_read():
    with contextlib.closing(sqlite3.connect("old.db")) as db:
        db.executescript(
            "CREATE TABLE nodes(id TEXT PRIMARY KEY, type TEXT, data TEXT);"
            "CREATE TABLE edges(src TEXT, dst TEXT, relation TEXT);"
            "CREATE TABLE vectors(id TEXT PRIMARY KEY, vector BLOB);"
        )
        db.execute("INSERT INTO nodes VALUES ('p1', 'prompt', ?)", [json.dumps({"text": "Hello"})])
        db.commit()
    result = run("--db", "old.db", "get", "p1", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["text"] == "Hello"
    assert re.fullmatch(r"Warning: [^\n]+old\.db\.original'\n", result.stderr)  # what the library logs, on one line
    assert good("--db", "old.db", "get", "p1")


# --- exit codes, errors and warnings ---------------------------------------------------------------------------


def test_usage_errors():
    assert bad(2, "similarr").startswith("Error: No such command 'similarr'")
    missing = bad(2, "similar")
    assert missing.startswith("Error: Missing option '--text'")
    assert missing.endswith(". See: raeburnmemory similar --help\n")
    assert bad(2, "stats", "--bogus").endswith(" See: raeburnmemory stats --help\n")
    assert bad(2, "--bogus").endswith(" See: raeburnmemory --help\n")
    assert bad(2, "--db", "x.json").startswith("Error: Missing command")
    bad(2, "similar", "--text", "x", "-k", "-1")
    bad(2, "--timeout", "-1", "stats")


def test_a_lock_held_by_another(graph):
    with MemoryGraph(graph) as memory, memory._store.exclusive():
        line = bad(5, "--db", graph, "--timeout", "0.05", "add", "--prompt-text", "x")
        assert "0.05 s" in line
        good("--db", graph, "get", "p1")
    assert len(ids()) == 6


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, None),
        (BrokenPipeError(32, "Broken pipe"), 141, None),
        (PermissionError(13, "Permission denied", "secret.json"), 1, "Error: 'secret.json': Permission denied.\n"),
        (OSError(28, "No space left on device"), 1, "Error: No space left on device.\n"),
        (raeburnmemory.MemoryGraphError("one\ntwo \x1b[31m"), 1, "Error: one two \\x1b[31m\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_interrupts_a_command(graph, monkeypatch, error, code, says):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(MemoryGraph, "similar", fail)
    monkeypatch.setattr("raeburnmemory._terminal._drop_stdout", lambda: None)  # here it is the test's own
    result = run("--db", graph, "similar", "--text", "x")
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == (says or "")


def test_a_programming_error_is_not_hidden(graph, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(MemoryGraph, "similar", fail)
    assert isinstance(run("--db", graph, "similar", "--text", "x").exception, ZeroDivisionError)


def test_the_default_model_that_is_missing_is_told_once():
    code, out, err = finish(
        start("--db", "a.json", "add", "--prompt-text", "Hello", env={"RAEBURN_EMBED_MODEL": "", "HF_HOME": "hf"})
    )
    assert code == 0
    assert out.startswith("Recorded prompt ")
    assert re.fullmatch(r"Warning: all-MiniLM-L6-v2 is not available; [^\n]+\n", err)


def test_a_reader_that_stops_reading(graph):
    process = start("--db", graph, "stats")
    process.stdout.close()
    process.stdout = None
    assert finish(process) == (141, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_behind_stdout(graph):
    with open("/dev/full", "wb") as full:
        assert finish(start("--db", graph, "stats", stdout=full)) == (1, "", "Error: No space left on device.\n")


def test_any_encoding_of_the_terminal():
    text = "héé → 日本 🙂"
    good("--db", "a.json", "add", "--prompt-id", "p1", "--prompt-text", text)
    for encoding in ("ascii", "latin-1", "utf-8"):
        runner = CliRunner(charset=encoding)
        shown = runner.invoke(app, ["--db", "a.json", "similar", "--text", "héé"])
        assert shown.stdout_bytes.endswith(text.encode(encoding, "backslashreplace") + b"\n")
        shown = runner.invoke(app, ["--db", "a.json", "get", "p1", "--json"])
        assert json.loads(shown.stdout_bytes.decode(encoding))["text"] == text
    code, out, err = finish(start("--db", "a.json", "get", "p1", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}))
    assert (code, err) == (0, "")
    assert text.encode("ascii", "backslashreplace").decode() in out


def test_stored_text_plays_no_tricks_on_the_terminal():
    text = "red \x1b[31m\r\x07 back \u202e\u2066 \x9b1m\nend"
    good("--db", "a.json", "add", "--prompt-id", "\x1b[2J", "--prompt-text", text, "--session-id", "s1")
    unsafe = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
    Path("questions.json").write_text(json.dumps([{"question": text, "expected": ["\x1b[2J"], "session": "none"}]))
    for arguments in (
        ["similar", "--text", "red"],
        ["evaluate", "questions.json"],
        ["get", "\x1b[2J"],
        ["thread", "s1"],
    ):
        out = good("--db", "a.json", *arguments)
        assert not unsafe.search(out), arguments
        assert "red \\x1b[31m" in out
        assert "\\u202e" in out
    assert json.loads(good("--db", "a.json", "get", "\x1b[2J", "--json"))["text"] == text


# --- on a terminal ---------------------------------------------------------------------------------------------


def read_terminal(side):
    """Return what a program wrote to the terminal whose other end it has closed."""
    seen = b""
    with contextlib.suppress(OSError):  # how a terminal that nobody holds any more ends on Linux
        while select.select([side], [], [], 30)[0]:
            if not (some := os.read(side, 65536)):
                break
            seen += some
    os.close(side)
    return seen.decode()


def test_a_progress_bar_on_a_terminal_only():
    pytest.importorskip("pty", reason="there are no pseudo-terminals here")
    ours, theirs = os.openpty()
    process = start("--db", "a.json", "demo", "--json", stderr=theirs)
    os.close(theirs)
    seen = read_terminal(ours)
    code, out, _ = finish(process)
    assert code == 0
    assert "Recording" in seen
    assert "100%" in seen
    assert json.loads(out)["new"] > 0
    for arguments in (["reindex"], ["reembed", "--model", "builtin"], ["demo"]):
        good("--db", "a.json", *arguments)  # without a terminal: nothing on stderr


def test_forget_asks_on_a_terminal(graph, monkeypatch):
    monkeypatch.setattr(cli, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    for answer, code, left in (("n\n", 1, 6), ("", 1, 6), ("y\n", 0, 3)):
        result = run("--db", graph, "forget", "--session", "s1", input=answer)
        assert result.stderr.startswith("Forget session 's1' in ")
        assert result.exit_code == code
        assert ("Forgot 1 prompt, " in result.stdout) == (code == 0)
        assert result.stderr.endswith("Note: Nothing was forgotten.\n") == (answer == "n\n")
        assert len(ids()) == left
    assert good("--db", graph, "forget", "--session", "s2", "--yes")
    assert ids() == ["a1"]


def test_interrupted_at_the_question(graph, monkeypatch):
    def confirm(*_, **__):  # as click does it
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise typer.Abort from None

    monkeypatch.setattr(cli, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setattr(typer, "confirm", confirm)
    assert run("--db", graph, "forget", "--session", "s1").exit_code == 130
    assert len(ids()) == 6


def test_interrupted_while_waiting(graph):
    fcntl = pytest.importorskip("fcntl", reason="it looks at the lock as POSIX systems have it")

    def listen():  # a shell may have had us ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with MemoryGraph(graph) as memory, memory._store.exclusive(), open(f"{graph}.lock.gate", "rb") as gate:
        process = start("--db", graph, "add", "--prompt-text", "x", preexec_fn=listen)
        for _ in range(3000):  # until it waits for us, as the next in line
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                break
            fcntl.flock(gate, fcntl.LOCK_UN)
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert finish(process) == (130, "", "")
    assert len(ids()) == 6


# --- help and starting -----------------------------------------------------------------------------------------


def examples(command):
    text = (command.help or "").partition("Example")[2]
    return [line.strip() for line in text.splitlines() if line.startswith("  ")]


def test_all_commands_are_there():
    assert list(typer.main.get_command(app).commands) == COMMANDS


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_has_examples_that_work(name, graph):
    Path("questions.json").write_text('[["Hello?", ["p1"]]]')
    Path("chat.csv").write_text("From,Message\nuser,Hello\n")
    Path("docs").mkdir()
    Path("notes.txt").write_text("Hello")
    Path(".claude/projects").mkdir(parents=True)
    Path(".claude/projects/s.jsonl").write_text("")
    with zipfile.ZipFile("export.zip", "w") as archive:
        archive.writestr("conversations.json", "[]")
    group = typer.main.get_command(app)
    command = group if name is None else group.commands[name]
    shown = examples(command)
    assert shown
    helped = good(*([] if name is None else [name]), "--help")
    for line in shown:
        assert line in helped
        assert len(line) < 78  # fits a narrow terminal
        program, *arguments = shlex.split(line)
        assert program == "raeburnmemory"
        if name is not None:
            assert name in arguments
        arguments = ["builtin" if argument == "all-MiniLM-L6-v2" else argument for argument in arguments]
        # What serves goes on until it is stopped, and what asks needs a model: these have tests of their own.
        result = run(*arguments, *(["--help"] if name in SERVING else []))
        assert result.exit_code in {0, 3}, result.output  # 3: nothing there to be found
    for parameter in command.params:
        assert parameter.param_type_name == "argument" or parameter.help, parameter.name


def test_help_tells_the_exit_codes_and_comes_without_arguments():
    helped = good("--help")
    assert good() == helped
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert re.search(rf"^ *{code}  [a-z]", helped, re.MULTILINE)
    for word in (
        *COMMANDS,
        "--db",
        "RAEBURN_DB",
        "--namespace",
        "--timeout",
        "--version",
        "~/.raeburnbrain/graph.json",
    ):
        assert word in helped


def test_version():
    assert good("--version") == f"raeburnmemory {raeburnmemory.__version__}\n"
    assert good("--db", "x.json", "--version") == f"raeburnmemory {raeburnmemory.__version__}\n"


def python(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_version_and_import_need_no_package():
    done = python("-X", "importtime", "-m", "raeburnmemory", "--version")
    assert (done.returncode, done.stdout) == (0, f"raeburnmemory {raeburnmemory.__version__}\n")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "raeburnmemory" in imported
    assert not imported & {"typer", "click", "rich", "numpy", "networkx", "faiss", "filelock", "pydantic"}

    code = "import raeburnmemory, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(python("-c", code).stdout.split()) - set(
        python("-c", "import sys; print(*sys.modules)").stdout.split()
    )
    assert not loaded - set(sys.stdlib_module_names) - {"raeburnmemory"}


def test_without_typer_one_sentence_says_what_to_install():
    code = (
        "import sys; sys.modules['typer'] = None; sys.argv = ['raeburnmemory', {!r}]\n"
        "from raeburnmemory.__main__ import main\nmain()"
    )
    done = python("-c", code.format("stats"))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"Error: [^\n]*pip install 'typer'\n", done.stderr)
    done = python("-c", code.format("--version"))
    assert (done.returncode, done.stdout) == (0, f"raeburnmemory {raeburnmemory.__version__}\n")


def test_the_module_itself_runs_too(graph):
    done = python("-m", "raeburnmemory.cli", "--db", graph, "get", "p1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["id"] == "p1"


def test_the_console_script():
    from raeburnmemory.__main__ import main

    found = list(importlib.metadata.entry_points(group="console_scripts", name="raeburnmemory"))
    if not found:
        pytest.skip("only what is installed has a script, and this is a folder")
    assert found[0].load() is main
