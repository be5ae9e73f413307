"""The programs in examples/ run, as whoever copies them would run them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from outside import environment

from raeburnmemory import MemoryGraph

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def talking():
    """A server that answers as a test tells it to, and keeps what it was asked."""
    pytest.importorskip("httpx", reason="a client of models needs httpx")
    spec = importlib.util.spec_from_file_location("scripted_for_examples", ROOT / "tests" / "hub" / "scripted.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.scripted() as server:
        yield server


def run(name, *arguments, typed=None, cwd):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments], input=typed, cwd=cwd, env=environment(),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_the_chatbot_remembers_an_earlier_conversation(talking, tmp_path):
    talking.says("Noted.", "You are allergic to peanuts.", "You just asked about the sauce.")
    model = ["--model", f"openai:{talking.url}"]
    first = run("chatbot.py", *model, typed="I am allergic to peanuts\n", cwd=tmp_path)
    later = run(
        "chatbot.py", *model, typed="Is satay sauce with peanuts safe?\nWhat did I ask?\n\nunread\n", cwd=tmp_path
    )
    assert first == "Noted.\n"
    assert later == "You are allergic to peanuts.\nYou just asked about the sauce.\n"
    asked = [body["messages"] for body in talking.bodies()]
    assert [len(messages) for messages in asked] == [2, 2, 4]
    assert "peanuts" not in asked[0][0]["content"]
    assert "I am allergic to peanuts" in asked[1][0]["content"]  # from the other process
    assert [message["role"] for message in asked[2]] == ["system", "user", "assistant", "user"]
    assert "satay" not in asked[2][0]["content"]  # what goes along word for word is not there twice
    with MemoryGraph(tmp_path / "chat.db") as memory:
        assert [len(memory.thread(node.id)) for node in memory.nodes("session")] == [2, 4]


def test_the_agent_of_langgraph_keeps_what_it_was_told(talking, tmp_path):
    pytest.importorskip("langgraph.graph", reason="the example needs langgraph")
    talking.says("Hello Ana.", "Yes.", "No idea.", "no", "Hello Ben.", "no")
    del talking.asked[:]
    told = ["--model", f"openai:{talking.url}", "--user"]
    assert run("langgraph_agent.py", *told, "ana", typed="I live in Vienna\n", cwd=tmp_path) == "Hello Ana.\n"
    assert run("langgraph_agent.py", *told, "ana", typed="Where do I live?\n", cwd=tmp_path) == "No idea.\n"
    assert run("langgraph_agent.py", *told, "ben", typed="Where do I live?\n", cwd=tmp_path) == "Hello Ben.\n"
    systems = [body["messages"][0]["content"] for body in talking.bodies()]
    assert systems[0].endswith("- nothing")
    assert systems[2].endswith("- I live in Vienna")
    assert systems[4].endswith("- nothing")  # of another user
    with MemoryGraph(tmp_path / "agent.db") as memory:
        assert [node.text for node in memory.nodes("item")] == ["I live in Vienna"]


def test_two_agents_share_a_memory(tmp_path):
    shown = run("shared_memory.py", "notes.db", cwd=tmp_path).splitlines()
    assert len(shown) == 4
    for number, line in enumerate(sorted(shown, key=lambda line: line[-1])):
        assert re.fullmatch(rf"\S.*\.  <- fact-{number} <- line-{number}", line), line
    with MemoryGraph(tmp_path / "notes.db") as memory:
        assert "line-3" in str(memory.trace("fact-3"))
        assert memory.recall("Which food is bad for Ana?", k=1)[0].text.startswith("Ana is allergic to peanuts")


def test_every_example_is_listed_and_tested():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tested = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"`{path.name}`" in listed
        assert f'"{path.name}"' in tested
