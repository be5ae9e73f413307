"""Plugins of the hub: found as distributions are, each hook used, and whatever they do, what was asked for is done."""

import importlib.metadata
import sys

import pytest
from hub_server import running
from ingesting import write
from scripted import scripted

from raeburnmemory.hub.server.plugins import HOOKS, Plugin, Plugins

SAMPLE = '''
"""A sample: notes of the kind `.birds`, one bird a line, and what is said about them."""

from raeburnmemory.hub.chunking import Part


class Birds:
    loads = [("application/x-birds", ".birds")]

    def capture(self, given):
        if "text" in given:
            return {**given, "text": given["text"].replace("teh", "the")}

    def loader(self, source):
        names = source.data.decode().split()
        return "\\n".join(f"A {name} was seen." for name in names)

    def chunker(self, document):
        if document.mime != "application/x-birds":
            return None
        at, parts = 0, []
        for number, line in enumerate(document.text.splitlines(keepends=True)):
            parts.append(Part(at, at + len(line), group=number))
            at += len(line)
        return parts

    def retriever(self, question, k):
        if "heron" in question:
            return ["Herons stand still.", {"text": "Herons eat eels.", "title": "A book", "uri": "book:1"}]

    def prompt(self, messages):
        return [{"role": "system", "content": "Speak of birds."}, *messages]
'''


def install(folder, name, code, attribute):
    """Put a distribution into a folder, as pip would."""
    write(folder / f"{name}.py", code)
    about = folder / f"raeburn_{name}-1.5.dist-info"
    write(about / "METADATA", f"Metadata-Version: 2.1\nName: raeburn-{name}\nVersion: 1.5\n")
    write(about / "entry_points.txt", f"[raeburnmemory.hub]\n{name} = {name}{attribute}\n")
    write(about / "RECORD", "")


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("birds", "broken", "worse"):
        sys.modules.pop(name, None)


def ours():
    """Return the plugins of this test alone, whatever else is installed."""
    names = {"birds", "broken", "worse"}
    made = Plugins.installed()
    return Plugins([one for one in made.list if one.name in names]), [one for one in made.list if one.name in names]


def test_a_plugin_is_found_and_every_hook_of_it_used(tmp_path, site):
    install(site, "birds", SAMPLE, ":Birds")
    plugins, _ = ours()
    with scripted() as server, running(tmp_path, url=server.url, plugins=plugins) as hub:
        [told] = hub.ask("GET", "/api/v1/info").json()["plugins"]
        assert told == {
            "name": "birds", "distribution": "raeburn-birds", "version": "1.5", "hooks": list(HOOKS), "failures": 0,
            "last_error": None,
        }  # fmt: skip
        kept = hub.ask("POST", "/api/v1/capture", {"text": "teh wren sings"}).json()
        assert kept["notes"] == []
        assert hub.ask("GET", f"/api/v1/sources/{kept['id']}/content").json()["text"] == "the wren sings"

        write(tmp_path / "notes" / "seen.birds", "dunlin\nknot\nredshank\n")
        write(tmp_path / "notes" / "other.md", "# Other\n\nNo bird.\n")
        hub.ask("POST", "/api/v1/projects", {"name": "A"})
        hub.ask("POST", "/api/v1/projects/1/directories", {"path": str(tmp_path / "notes")})
        job = hub.hub.ingest(1)
        assert job.wait(30)
        assert (job.result["added"], job.result["notes"]) == (2, [])
        fragments = sorted(node.text for node in hub.hub.memory.nodes("fragment") if "seen" in node.text)
        assert fragments == ["A dunlin was seen.", "A knot was seen.", "A redshank was seen."]

        server.says("Hello.")
        message = {"messages": [{"role": "user", "content": "What does a heron do?"}]}
        assert hub.ask("POST", "/v1/chat/completions", message).status == 200
        system, user = server.bodies()[-1]["messages"]
        assert system == {"role": "system", "content": "Speak of birds."}
        assert "Herons stand still." in user["content"]
        assert "Herons eat eels." in user["content"]
        [prompt] = [node for node in hub.hub.memory.nodes("prompt") if "heron" in node.text]
        assert prompt.text == "What does a heron do?"


FAILING = """
loads = [("application/x-broken", ".broken"), ("text/x-known", ".known")]

def capture(given): return {"url": 5}
def loader(source): raise KeyError("loader fell over")
def chunker(document): return [(0, 10**9)]
def retriever(question, k): return [{"no": "text"}]
def prompt(messages): return ["not a message"]
"""


def test_a_failing_plugin_is_named_and_breaks_nothing(tmp_path, site, caplog):
    install(site, "broken", FAILING, "")
    install(site, "worse", "raise RuntimeError('it does not even load')", ":Worse")
    plugins, found = ours()
    assert [one.last_error for one in found] == [None, "loading: RuntimeError: it does not even load"]
    with scripted() as server, running(tmp_path, url=server.url, plugins=plugins) as hub:
        kept = hub.ask("POST", "/api/v1/capture", {"text": "The dipper walks under water."})
        assert kept.status == 201
        assert [note.split(", ")[0] for note in kept.json()["notes"]] == [
            "The plugin 'broken' failed in capture", "The plugin 'broken' failed in chunker",
        ]  # fmt: skip
        content = hub.ask("GET", f"/api/v1/sources/{kept.json()['id']}/content").json()
        assert content["text"] == "The dipper walks under water."
        assert hub.hub.memory.recall("dipper under water", kinds="fragment")[0].text == content["text"]

        write(tmp_path / "notes" / "a.broken", "abc")
        write(tmp_path / "notes" / "b.md", "Plain text.\n")
        hub.ask("POST", "/api/v1/projects", {"name": "A"})
        hub.ask("POST", "/api/v1/projects/1/directories", {"path": str(tmp_path / "notes")})
        job = hub.hub.ingest(1)
        assert job.wait(30)
        assert (job.state, job.result["added"], job.result["failed"]) == ("done", 1, 1)
        assert any("'broken' failed in loader" in note and "loader fell over" in note for note in job.result["notes"])
        [item] = [one for one in job.result["items"] if one["outcome"] == "failed"]
        assert "'broken'" in item["reason"]

        server.says("Fine.")
        message = {"messages": [{"role": "user", "content": "Is anybody there?"}]}
        answer = hub.ask("POST", "/v1/chat/completions", message, headers={"X-Raeburn-Memory": "on"})
        assert answer.json()["choices"][0]["message"]["content"] == "Fine."
        assert server.bodies()[-1] == {**message, "model": "scripted"}
        told = {one["name"]: one for one in hub.ask("GET", "/api/v1/info").json()["plugins"]}
        assert told["broken"]["failures"] >= 6
        assert told["broken"]["last_error"].startswith("prompt: TypeError")
    logged = caplog.text
    for hook in HOOKS:
        assert f"The plugin 'broken' failed in {hook}" in logged
    assert "The plugin 'worse' failed in loading" in logged


def test_plugins_come_in_the_order_of_their_names_and_hear_each_other():
    class First:
        def prompt(self, messages):
            return [*messages, {"role": "user", "content": "first"}]

    class Second:
        def prompt(self, messages):
            assert messages[-1]["content"] == "first"
            messages[0]["content"] = "changed in place, which changes nothing"

    plugins = Plugins([Plugin("b", Second()), Plugin("a", First())])
    given = [{"role": "user", "content": "x"}]
    assert plugins.prompt(given) == [{"role": "user", "content": "x"}, {"role": "user", "content": "first"}]
    assert given == [{"role": "user", "content": "x"}]
    assert [one.failures for one in plugins.list] == [0, 0]
    assert (Plugins().chunker, Plugins().prompt(given), Plugins().retrieved("x", 1)) == ("auto", None, [])


def test_the_group_is_the_one_that_is_documented(site):
    install(site, "birds", SAMPLE, ":Birds")
    assert "birds" in {entry.name for entry in importlib.metadata.entry_points(group="raeburnmemory.hub")}
