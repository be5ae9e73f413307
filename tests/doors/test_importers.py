"""Importers: real-shaped files of other programs, made here; what is in them is in the memory, once, and where it belongs."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raeburnmemory import MemoryGraph, Node
from raeburnmemory.compat.mem0 import Memory
from raeburnmemory.entities import Entities
from raeburnmemory.errors import InvalidInput
from raeburnmemory.importers import KINDS, _files, _json_stream, import_file
from raeburnmemory.importers._json_stream import elements
from raeburnmemory.nodes import collected_id
from raeburnmemory.passages import EMBEDDED


@pytest.fixture
def memory():
    with MemoryGraph(":memory:", embedding_model="builtin") as opened:
        yield opened


def said(memory, session):
    """Return role and text of what was said in a session, in order."""
    return [(node.attributes["role"], node.text) for node in memory.thread(session)]


def state(memory):
    """Return everything that a memory holds, and how often each node was rewritten."""
    nodes = {node.id: node.to_dict() for node in memory}
    links = {(e.source, e.target, e.relation) for node_id in nodes for e in memory.links(node_id, direction="out")}
    return nodes, links, {node_id: len(memory.history(node_id)) for node_id in nodes}


def write_lines(path, lines):
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def reasons(report, *, skipped=True):
    return {issue.reason: issue.count for issue in report.issues if issue.skipped == skipped}


# --- ChatGPT ----------------------------------------------------------------------------------------------------


def chatgpt_node(key, parent, children, role=None, parts=None, time=None, **more):
    message = None
    if role is not None:
        content = more.pop("content", {"content_type": "text", "parts": parts})
        message = {
            "id": key,
            "author": {"role": role, "name": more.pop("name", None), "metadata": {}},
            "create_time": time,
            "content": content,
            "status": "finished_successfully",
            "recipient": more.pop("recipient", "all"),
            "metadata": more.pop("metadata", {}),
        }
    assert not more
    return {"id": key, "message": message, "parent": parent, "children": children}


def chatgpt_conversation(own="c-1", title="Tea"):
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-1", "width": 8, "height": 8}
    model = {"model_slug": "gpt-4o"}
    nodes = [
        chatgpt_node("root", None, ["sys"]),
        chatgpt_node("sys", "root", ["u1"], "system", [""], metadata={"is_visually_hidden_from_conversation": True}),
        chatgpt_node("u1", "sys", ["a1", "a1b"], "user", ["Which tea is green?"], 1700000000.5),
        chatgpt_node("a1", "u1", ["u2"], "assistant", ["Sencha."], 1700000010.0, metadata=model),
        chatgpt_node("a1b", "u1", ["u3"], "assistant", ["Matcha, for one."], 1700000020.0, metadata=model),
        chatgpt_node("u2", "a1", ["a2"], "user", ["How hot?"], 1700000030.0),
        chatgpt_node("a2", "u2", [], "assistant", ["70 degrees."], 1700000040.0, metadata=model),
        chatgpt_node("u3", "a1b", ["t1"], "user", content={"content_type": "multimodal_text", "parts": [image, "What is this?"]}, time=1700000050.0),
        chatgpt_node("t1", "u3", ["r1"], "tool", name="python", content={"content_type": "execution_output", "text": "a whisk"}),
        chatgpt_node("r1", "t1", ["a3"], "assistant", content={"content_type": "thoughts", "thoughts": [{"summary": "hm", "content": "a whisk"}]}),
        chatgpt_node("a3", "r1", [], "assistant", ["A chasen."], 1700000060.0, metadata=model),
    ]  # fmt: skip
    return {
        "title": title,
        "create_time": 1700000000.0,
        "update_time": 1700000060.0,
        "mapping": {node["id"]: node for node in nodes},
        "moderation_results": [],
        "current_node": "a3",
        "conversation_id": own,
        "id": own,
        "default_model_slug": "gpt-4o",
        "is_archived": False,
    }


def test_chatgpt_keeps_all_branches_and_what_answers_what(memory, tmp_path):
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([chatgpt_conversation()]))
    report = import_file(memory, "chatgpt", path)
    session = "chatgpt:c-1"
    assert said(memory, session) == [
        ("user", "Which tea is green?"),
        ("assistant", "Sencha."),
        ("user", "How hot?"),
        ("assistant", "70 degrees."),
        ("assistant", "Matcha, for one."),
        ("user", "[image_asset_pointer]\nWhat is this?"),
        ("tool", "a whisk"),
        ("assistant", "A chasen."),
    ]
    answered = {
        (memory.get(e.source).text, memory.get(e.target).text)
        for node in memory.nodes("prompt")
        for e in memory.links(node.id, "responded_with")
    }
    assert answered == {
        ("Which tea is green?", "Sencha."),
        ("Which tea is green?", "Matcha, for one."),
        ("How hot?", "70 degrees."),
        ("[image_asset_pointer]\nWhat is this?", "A chasen."),
    }
    assert [node.id for node in memory.nodes() if node.attributes.get("aside")] == [
        f"{session}:a1",
        f"{session}:u2",
        f"{session}:a2",
    ]
    assert memory.get(f"{session}:a1b").attributes["follows"] == f"{session}:u1"
    assert memory.get(f"{session}:u1").timestamp == "2023-11-14T22:13:20.500000+00:00"
    assert memory.get(f"{session}:t1").timestamp == "2023-11-14T22:14:10+00:00"  # it has none: that before it
    assert memory.get(f"{session}:t1").attributes["name"] == "python"
    assert memory.get(f"{session}:u3").attributes["content"][0]["asset_pointer"] == "file-service://file-1"
    assert memory.get(session).attributes["title"] == "Tea"
    assert [node.id for node in memory.neighbours(f"{session}:a3", "generated_by")] == ["gpt-4o"]
    assert reasons(report) == {"nothing in it": 1, "what the model thought before it answered": 1}
    assert report.kinds == {"agent": 1, "prompt": 3, "response": 4, "session": 1, "tool": 1}
    assert report.new == report.nodes == len(memory)


def test_chatgpt_reads_folders_zips_and_their_parts(tmp_path):
    parts = [json.dumps([chatgpt_conversation("c-1")]), json.dumps([chatgpt_conversation("c-2", "Coffee")])]
    folder = tmp_path / "export"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, part in enumerate(parts):
            (folder / f"conversations-{number:03}.json").write_text(part)
            archive.writestr(f"somebody/conversations-{number:03}.json", part)
        archive.writestr("chat.html", "<html>")
        archive.writestr("../../conversations.txt", "up and away")
        archive.writestr("__MACOSX/._conversations-000.json", b"\0\1")
    (tmp_path / "whole.json").write_text(
        json.dumps({"exported": {"by": [1]}, "conversations": [json.loads(p)[0] for p in parts]})
    )
    states = []
    for place in ("export", "export.zip", "whole.json"):
        with MemoryGraph(":memory:", embedding_model="builtin") as memory:
            assert import_file(memory, "chatgpt", tmp_path / place).kinds["session"] == 2
            states.append(state(memory))
    assert states[0] == states[1] == states[2]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["export", "export.zip", "whole.json"]


def test_chatgpt_loses_nothing_of_a_mapping_that_makes_no_tree(memory, tmp_path):
    conversation = chatgpt_conversation()
    mapping = conversation["mapping"]
    mapping["root"]["parent"] = "sys"  # in a circle
    mapping["a2"]["parent"] = "gone"
    mapping["u1"]["children"] = ["nobody"]
    mapping["x"] = None
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([conversation, 5, {"mapping": {}}, {"id": "e", "mapping": {}, "current_node": None}]))
    report = import_file(memory, "chatgpt", path)
    told = [text for _, text in said(memory, "chatgpt:c-1")]
    assert sorted(told) == sorted(
        ["Which tea is green?", "Sencha.", "How hot?", "70 degrees.", "Matcha, for one.", "[image_asset_pointer]\nWhat is this?", "a whisk", "A chasen."]
    )  # fmt: skip
    assert reasons(report)["an entry of a mapping that is no object"] == 1
    assert reasons(report)["no conversation with a mapping of messages"] == 1
    assert reasons(report)["a conversation without an id"] == 1


def test_an_archive_that_would_unpack_to_far_more_is_refused(memory, tmp_path, monkeypatch):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", "[" + " " * (8 << 20) + "]")
    monkeypatch.setattr(_files, "_SMALL", 1 << 20)
    with pytest.raises(InvalidInput, match=r"conversations\.json.*would unpack from \d+ to 8388610 bytes"):
        import_file(memory, "chatgpt", path)
    damaged = tmp_path / "damaged.zip"
    with zipfile.ZipFile(damaged, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("conversations.json", json.dumps([chatgpt_conversation()]))
    raw = bytearray(damaged.read_bytes())
    raw[raw.index(b"Sencha")] ^= 1
    damaged.write_bytes(raw)
    with pytest.raises(InvalidInput, match="is damaged: Bad CRC-32"):
        import_file(memory, "chatgpt", damaged)
    assert len(memory) == 0


# --- Claude -----------------------------------------------------------------------------------------------------


def claude_message(uuid, sender, text, time, content=None, **more):
    return {
        "uuid": uuid,
        "text": text,
        "content": [{"type": "text", "text": text}] if content is None else content,
        "sender": sender,
        "created_at": time,
        "updated_at": time,
        "attachments": [],
        "files": [],
        **more,
    }


def claude_export():
    calls = [
        {"type": "thinking", "thinking": "search it"},
        {"type": "text", "text": "I looked it up."},
        {"type": "tool_use", "id": "toolu_1", "name": "web_search", "input": {"query": "kettle"}},
        {"type": "tool_result", "tool_use_id": "toolu_1", "name": "web_search", "content": [{"type": "text", "text": "Boils at 100."}]},
    ]  # fmt: skip
    attached = [
        {"file_name": "manual.txt", "file_type": "txt", "file_size": 9, "extracted_content": "Fill to the mark."}
    ]
    return [
        {
            "uuid": "k1",
            "name": "Kettle",
            "created_at": "2025-03-01T10:00:00.000000Z",
            "updated_at": "2025-03-01T10:05:00.000000Z",
            "account": {"uuid": "me"},
            "chat_messages": [
                claude_message("m1", "human", "How does it work?", "2025-03-01T10:00:00Z", attachments=attached, files=[{"file_name": "photo.png"}]),
                claude_message("m2", "assistant", "I looked it up.", "2025-03-01T10:01:00Z", calls),
                claude_message("m3", "human", "", "2025-03-01T10:02:00Z", []),
                claude_message("m4", "nobody", "x", "2025-03-01T10:02:00Z"),
            ],
        },
        {"uuid": "k2", "name": "", "created_at": "2025-03-02T10:00:00Z", "chat_messages": []},
    ]  # fmt: skip


def test_claude(memory, tmp_path):
    with zipfile.ZipFile(tmp_path / "claude.zip", "w") as archive:
        archive.writestr("conversations.json", json.dumps(claude_export()))
        archive.writestr("users.json", "[]")
    report = import_file(memory, "claude", tmp_path / "claude.zip")
    assert said(memory, "claude:k1") == [
        ("user", "How does it work?"),
        ("assistant", "I looked it up."),
        ("tool", '{"query": "kettle"}'),
        ("tool", "Boils at 100."),
    ]
    document = memory.get(collected_id("fragment", "claude", "m1/0"))
    assert (document.text, document.attributes["file_name"]) == ("Fill to the mark.", "manual.txt")
    assert [node.id for node in memory.neighbours(document.id, "part_of")] == ["claude:k1:m1"]
    assert [hit.id for hit in memory.recall("fill mark", collection="claude")] == [document.id]
    assert [one["file_name"] for one in memory.get("claude:k1:m1").attributes["attachments"]] == [
        "manual.txt",
        "photo.png",
    ]
    assert memory.get("claude:k1:m2/0").attributes["name"] == "web_search"
    assert memory.get("claude:k1").attributes == {
        "title": "Kettle",
        "start_time": "2025-03-01T10:00:00+00:00",
        "source": "claude",
    }
    assert reasons(report) == {
        "what the model thought before it answered": 1,
        "nothing in it": 1,
        "a sender that is none of a conversation": 1,
    }


# --- session logs of coding agents ------------------------------------------------------------------------------


def claude_code_line(kind, uuid, parent, content, **more):
    message = {"role": kind, "content": content}
    if kind == "assistant":
        message |= {"id": "msg_1", "model": "claude-opus-4", "usage": {"input_tokens": 1}}
    return {
        "parentUuid": parent,
        "isSidechain": False,
        "userType": "external",
        "cwd": "/home/ana/tea",
        "sessionId": "s-1",
        "version": "2.1.12",
        "gitBranch": "main",
        "type": kind,
        "message": message,
        "uuid": uuid,
        "timestamp": f"2026-02-01T10:00:{len(uuid):02}.000Z",
        **more,
    }


def claude_code_lines():
    return [
        {"type": "summary", "summary": "Fixing the kettle", "leafUuid": "x"},
        claude_code_line("user", "u", None, "Fix the kettle"),
        claude_code_line("assistant", "aa", "u", [{"type": "thinking", "thinking": "hm", "signature": "x"}]),
        claude_code_line("assistant", "aab", "aa", [{"type": "text", "text": "Let me look."}]),
        claude_code_line("assistant", "aabb", "aab", [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}]),
        claude_code_line("user", "aabbc", "aabb", [{"type": "tool_result", "tool_use_id": "t1", "content": "kettle.py", "is_error": False}], toolUseResult={"stdout": "kettle.py"}),
        {"type": "system", "subtype": "info", "uuid": "sys123", "parentUuid": "aabbc", "sessionId": "s-1"},
        claude_code_line("assistant", "aabbccc", "sys123", [{"type": "text", "text": "Fixed."}]),
        claude_code_line("user", "aabbcccd", "aabbccc", "<command-name>/clear</command-name>", isMeta=True),
        claude_code_line("user", "aabbccccc", "aabbcccd", "So far: a kettle.", isCompactSummary=True),
        claude_code_line("user", "side-1", None, "Look for kettles", isSidechain=True, agentId="a7"),
        claude_code_line("assistant", "side-22", "side-1", [{"type": "text", "text": "Two."}], isSidechain=True, agentId="a7"),
    ]  # fmt: skip


def test_claude_code(memory, tmp_path):
    project = tmp_path / "projects" / "-home-ana-tea"
    (project / "s-1" / "subagents").mkdir(parents=True)
    lines = claude_code_lines()
    write_lines(project / "s-1.jsonl", lines[:-2])
    write_lines(project / "s-1" / "subagents" / "agent-a7.jsonl", lines[-2:])
    with (project / "s-1.jsonl").open("a") as file:
        file.write('{"type": "user", "message": {"cont')
    report = import_file(memory, "claude-code", tmp_path / "projects")
    assert said(memory, "claude-code:s-1") == [
        ("user", "Fix the kettle"),
        ("assistant", "Let me look."),
        ("tool", '{"command": "ls"}'),
        ("tool", "kettle.py"),
        ("assistant", "Fixed."),
        ("system", "So far: a kettle."),
    ]
    assert said(memory, "claude-code:s-1:a7") == [("user", "Look for kettles"), ("assistant", "Two.")]
    fixed = memory.get("claude-code:s-1:aabbccc")
    assert [node.text for node in memory.neighbours(fixed.id, "responded_with", "in")] == ["Fix the kettle"]
    assert "follows" not in fixed.attributes
    assert memory.get("claude-code:s-1").attributes["cwd"] == "/home/ana/tea"
    assert fixed.timestamp == "2026-02-01T10:00:07+00:00"
    found = reasons(report)
    assert found == {
        "a line of the type 'summary', which is no message": 1,
        "what the model thought before it answered": 1,
        "a line of the type 'system', which is no message": 1,
        "what the program told the model, marked isMeta": 1,
        "cut short, perhaps still being written": 1,
    }
    (cut,) = [issue for issue in report.issues if issue.reason.startswith("cut short")]
    assert cut.examples == [f'{project / "s-1.jsonl"}, line 11 (\'{{"type": "user", "message": {{"cont\')']


def codex_lines():
    def line(kind, payload, second=0):
        return {"timestamp": f"2025-12-08T00:39:{second:02}.000Z", "type": kind, "payload": payload}

    def message(role, text):
        kind = "output_text" if role == "assistant" else "input_text"
        return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}

    return [
        line("session_meta", {"id": "019b-1", "timestamp": "2025-12-08T00:39:00.000Z", "cwd": "/tea", "cli_version": "0.65.0"}),
        line("response_item", message("user", "<environment_context>\n<cwd>/tea</cwd>\n</environment_context>"), 1),
        line("turn_context", {"cwd": "/tea", "model": "gpt-5-codex"}, 2),
        line("event_msg", {"type": "user_message", "message": "List it"}, 2),
        line("response_item", message("user", "List it"), 3),
        line("response_item", {"type": "reasoning", "summary": [], "encrypted_content": "gA"}, 4),
        line("response_item", {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "call_1"}, 5),
        line("response_item", {"type": "function_call_output", "call_id": "call_1", "output": '{"output":"tea.py\\n","metadata":{"exit_code":0}}'}, 6),
        line("response_item", message("assistant", "There is tea.py."), 7),
        line("compacted", {"message": "Listed."}, 8),
        line("world_state", {}, 9),
    ]  # fmt: skip


def test_codex(memory, tmp_path):
    day = tmp_path / "sessions" / "2025" / "12" / "08"
    day.mkdir(parents=True)
    write_lines(day / "rollout-2025-12-08T00-39-00-019b-1.jsonl", codex_lines())
    old = [
        {"id": "old-1", "timestamp": "2025-06-01T00:00:00.000Z", "instructions": None},
        {"record_type": "state"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]},
    ]
    write_lines(day / "rollout-2025-06-01T00-00-00-old-1.jsonl", old)
    (day / "other.jsonl").write_text("not a log")
    report = import_file(memory, "codex", tmp_path)
    assert said(memory, "codex:019b-1") == [
        ("system", "<environment_context>\n<cwd>/tea</cwd>\n</environment_context>"),
        ("user", "List it"),
        ("tool", '{"command":["ls"]}'),
        ("tool", "tea.py\n"),
        ("assistant", "There is tea.py."),
        ("system", "Listed."),
    ]
    assert said(memory, "codex:old-1") == [("user", "Hello"), ("assistant", "Hi.")]
    assert memory.get("codex:019b-1:9").attributes["model"] == "gpt-5-codex"
    assert memory.get("codex:019b-1:9").timestamp == "2025-12-08T00:39:07+00:00"
    assert memory.get("codex:old-1:3").timestamp == "2025-06-01T00:00:00+00:00"
    assert reasons(report) == {
        "events, which repeat what the messages say": 1,
        "what the model thought before it answered": 1,
        "a line of the type 'world_state', which is no message": 1,
        "a line of the type 'state', which is no message": 1,
    }


# --- the log of llm ---------------------------------------------------------------------------------------------

OLD_LLM = """
CREATE TABLE conversations (id TEXT PRIMARY KEY, name TEXT, model TEXT);
CREATE TABLE responses (id TEXT PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, prompt_json TEXT, options_json TEXT,
  response TEXT, response_json TEXT, conversation_id TEXT, duration_ms INTEGER, datetime_utc TEXT,
  input_tokens INTEGER, output_tokens INTEGER, token_details TEXT);
CREATE TABLE attachments (id TEXT PRIMARY KEY, type TEXT, path TEXT, url TEXT, content BLOB);
CREATE TABLE prompt_attachments (response_id TEXT, attachment_id TEXT, "order" INTEGER);
CREATE TABLE fragments (id INTEGER PRIMARY KEY, hash TEXT, content TEXT, datetime_utc TEXT, source TEXT);
CREATE TABLE prompt_fragments (response_id TEXT, fragment_id INTEGER, "order" INTEGER);
CREATE TABLE tool_calls (id INTEGER PRIMARY KEY, response_id TEXT, tool_id INTEGER, name TEXT, arguments TEXT, tool_call_id TEXT);
CREATE TABLE tool_results (id INTEGER PRIMARY KEY, response_id TEXT, tool_id INTEGER, name TEXT, output TEXT, tool_call_id TEXT);
INSERT INTO conversations VALUES ('c1', 'Tea talk', 'fake');
INSERT INTO responses VALUES ('r1', 'fake', 'Which tea?', 'Be brief', NULL, '{}', 'Sencha.', NULL, 'c1', 1, '2024-05-01T10:00:00', 3, 4, NULL);
INSERT INTO responses VALUES ('r2', 'fake', 'How hot?', NULL, NULL, '{}', '', NULL, 'c1', 1, '2024-05-01T10:01:00', 3, 4, NULL);
INSERT INTO responses VALUES ('r3', 'fake', '', NULL, NULL, '{}', '70.', NULL, 'c1', 1, '2024-05-01T10:01:30', 3, 4, NULL);
INSERT INTO responses VALUES ('r4', 'fake', 'Alone', NULL, NULL, '{}', 'Yes.', NULL, NULL, 1, '2024-05-02T10:00:00', NULL, NULL, NULL);
INSERT INTO attachments VALUES ('at1', 'image/png', NULL, 'https://example.org/cup.png', NULL);
INSERT INTO prompt_attachments VALUES ('r2', 'at1', 0);
INSERT INTO fragments VALUES (1, 'h', 'A long note on water.', '2024-05-01', NULL);
INSERT INTO prompt_fragments VALUES ('r2', 1, 0);
INSERT INTO tool_calls VALUES (1, 'r2', NULL, 'thermometer', '{"of": "tea"}', 'call1');
INSERT INTO tool_results VALUES (1, 'r3', NULL, 'thermometer', '70', 'call1');
"""


def test_llm_with_a_row_for_each_response(memory, tmp_path):
    with sqlite3.connect(tmp_path / "logs.db") as db:
        db.executescript(OLD_LLM)
    db.close()
    import_file(memory, "llm", tmp_path / "logs.db")
    assert said(memory, "llm:c1") == [
        ("system", "Be brief"),
        ("user", "Which tea?"),
        ("assistant", "Sencha."),
        ("user", "A long note on water.\nHow hot?"),
        ("tool", '{"of": "tea"}'),
        ("tool", "70"),
        ("assistant", "70."),
    ]
    assert said(memory, "llm:r4") == [("user", "Alone"), ("assistant", "Yes.")]
    assert memory.get("llm:c1:r2/prompt").attributes["attachments"][0]["url"] == "https://example.org/cup.png"
    assert memory.get("llm:c1:r1").timestamp == "2024-05-01T10:00:00+00:00"
    assert memory.get("llm:c1:r1").attributes["usage"] == {"input": 3, "output": 4}
    assert memory.get("llm:c1").attributes["title"] == "Tea talk"
    assert [node.id for node in memory.neighbours("llm:c1:r3", "responded_with", "in")] == ["llm:c1:r2/prompt"]


def test_llm_itself(memory, tmp_path):
    llm = pytest.importorskip("llm", reason="its own log is written by llm")
    sqlite_utils = pytest.importorskip("sqlite_utils", reason="its own log is written by llm")
    from llm.migrations import migrate

    class Echo(llm.Model):
        model_id = "echo"
        attachment_types = frozenset({"image/png"})

        def execute(self, prompt, stream, response, conversation):
            yield "You said: "
            yield prompt.prompt

    db = sqlite_utils.Database(tmp_path / "logs.db")
    migrate(db)
    conversation = Echo().conversation()
    image = llm.Attachment(type="image/png", content=b"123")
    for response in (
        conversation.prompt("Which tea?", system="Be brief"),
        conversation.prompt("How hot?", attachments=[image], fragments=["A long note."]),
    ):
        response.text()
        response.log_to_db(db)
    db.conn.close()
    import_file(memory, "llm", tmp_path / "logs.db")
    (session,) = memory.nodes("session")
    told = said(memory, session.id)
    assert told == [
        ("system", "Be brief"),
        ("user", "Which tea?"),
        ("assistant", "You said: Which tea?"),
        ("user", "A long note.\nHow hot?"),
        ("assistant", "You said: A long note.\nHow hot?"),
    ]
    assert [node.attributes.get("attachments", [{}])[0].get("type") for node in memory.nodes("prompt")] == [
        None,
        "image/png",
    ]
    assert {node.attributes["model"] for node in memory.nodes("response")} == {"echo"}


def test_a_database_of_something_else_is_refused(memory, tmp_path):
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(InvalidInput, match="no log of llm"):
        import_file(memory, "llm", tmp_path / "other.db")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at as one" * 20)
    with pytest.raises(InvalidInput, match="file is not a database"):
        import_file(memory, "llm", tmp_path / "text.db")


# --- LangChain, OpenAI ------------------------------------------------------------------------------------------


def langchain_history():
    return [
        {"type": "system", "data": {"content": "Be brief", "additional_kwargs": {}, "type": "system", "id": None}},
        {"type": "human", "data": {"content": [{"type": "text", "text": "Which tea?"}, {"type": "image_url", "image_url": {"url": "x"}}], "type": "human", "id": "h1"}},
        {"type": "ai", "data": {"content": "", "type": "ai", "id": "run-1", "tool_calls": [{"name": "shop", "args": {"q": "tea"}, "id": "c1", "type": "tool_call"}]}},
        {"type": "tool", "data": {"content": "sencha", "type": "tool", "tool_call_id": "c1", "name": "shop"}},
        {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "AIMessage"], "kwargs": {"content": "Sencha.", "type": "ai", "id": "run-2", "tool_calls": [], "invalid_tool_calls": []}},
        {"type": "chat", "data": {"content": "Indeed.", "role": "Zoe", "type": "chat"}},
    ]  # fmt: skip


def test_langchain_histories_come_back_as_messages(memory, tmp_path):
    path = tmp_path / "history.json"
    path.write_text(json.dumps([*langchain_history(), {"type": "human"}]))
    report = import_file(memory, "langchain", path, session="s1")
    assert said(memory, "s1") == [
        ("system", "Be brief"),
        ("user", "Which tea?\n[image_url]"),
        ("assistant", ""),
        ("tool", "sencha"),
        ("assistant", "Sencha."),
        ("user", "Indeed."),
    ]
    assert reasons(report) == {"no message of LangChain": 1}
    (tmp_path / "more.json").write_text(json.dumps({"a": langchain_history()[:2], "b": langchain_history()}))
    import_file(memory, "langchain", tmp_path / "more.json")
    assert [len(memory.thread(f"langchain:{name}")) for name in "ab"] == [2, 6]
    (tmp_path / "one.json").write_text(json.dumps({"messages": langchain_history()}))
    import_file(memory, "langchain", tmp_path / "one.json")
    assert len(memory.thread("langchain:one")) == 6


def test_langchain_itself_reads_what_was_imported(memory, tmp_path):
    messages = pytest.importorskip("langchain_core.messages", reason="the LangChain door needs langchain-core")
    from langchain_core.load import dumpd

    from raeburnmemory.langchain import RaeburnChatMessageHistory

    told = messages.messages_from_dict([one for one in langchain_history() if "lc" not in one])
    for number, form in enumerate((messages.messages_to_dict(told), [dumpd(one) for one in told])):
        (tmp_path / "h.json").write_text(json.dumps(form))
        import_file(memory, "langchain", tmp_path / "h.json", session=f"s{number}")
        assert RaeburnChatMessageHistory(f"s{number}", memory).messages == told


def openai_lines():
    call = {"id": "call_1", "type": "function", "function": {"name": "shop", "arguments": '{"q": "tea"}'}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    return [
        {"messages": [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": "Which tea?"}, {"role": "assistant", "content": "Sencha.", "weight": 1}], "tag": "x"},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "This?"}, picture], "name": "ana"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": "A cup."},
                {"role": "assistant", "content": "A cup."},
                {"role": "owl", "content": "Hoo"},
            ]
        },
        {"prompt": "old form"},
    ]  # fmt: skip


def test_openai_messages(memory, tmp_path):
    lines = openai_lines()
    path = write_lines(tmp_path / "train.jsonl", [*lines, lines[0]])
    report = import_file(memory, "openai", path)
    first, second, again = memory.nodes("session")
    assert said(memory, first.id) == [("system", "Be brief"), ("user", "Which tea?"), ("assistant", "Sencha.")]
    assert said(memory, again.id) == said(memory, first.id)  # it stands there twice
    assert again.id == f"{first.id}-2"
    assert said(memory, second.id) == [
        ("user", "This?\n[image_url]"),
        ("tool", '{"q": "tea"}'),
        ("tool", "A cup."),
        ("assistant", "A cup."),
    ]
    assert first.attributes["metadata"] == {"tag": "x"}
    assert memory.get(f"{second.id}:0").attributes["content"][1]["type"] == "image_url"
    assert memory.get(f"{second.id}:0").attributes["name"] == "ana"
    assert reasons(report) == {"a role that is none of a conversation": 1, "no list of messages": 1}
    moved = write_lines(tmp_path / "elsewhere.jsonl", [lines[1], lines[0]])
    assert import_file(memory, "openai", moved).new == 0


def test_openai_lines_that_are_messages_are_one_conversation(memory, tmp_path):
    path = write_lines(tmp_path / "chat.jsonl", openai_lines()[0]["messages"])
    import_file(memory, "openai", path, session="mine")
    assert [role for role, _ in said(memory, "mine")] == ["system", "user", "assistant"]


# --- CSV --------------------------------------------------------------------------------------------------------


def test_csv_by_the_names_of_its_columns(memory, tmp_path):
    rows = [
        ["Conversation ID", "Sender", "Message", "Created At", "Mood"],
        ["a", "Human", 'Which tea,\n"please"?', "2024-05-01 10:00", "calm"],
        ["a", "AI", "Sencha.", "1714557700", ""],
        ["b", "Zoë", "Grüße", "1714557800000", ""],
        ["b", "", "", "", ""],
        ["b", "user", "When?", "yesterday", ""],
    ]  # fmt: skip
    out = io.StringIO()
    csv.writer(out, delimiter=";").writerows(rows)
    (tmp_path / "t.csv").write_text("\ufeff" + out.getvalue() + "b;user\n", encoding="utf-8")
    report = import_file(memory, "csv", tmp_path / "t.csv")
    assert said(memory, "csv:a") == [("user", 'Which tea,\n"please"?'), ("assistant", "Sencha.")]
    asked, answered = memory.thread("csv:a")
    assert asked.attributes["metadata"] == {"Mood": "calm"}
    assert (asked.timestamp, answered.timestamp) == ("2024-05-01T10:00:00+00:00", "2024-05-01T10:01:40+00:00")
    zoe, when = memory.thread("csv:b")
    assert (zoe.text, zoe.attributes["name"], zoe.timestamp) == ("Grüße", "Zoë", "2024-05-01T10:03:20+00:00")
    assert when.timestamp == zoe.timestamp
    assert reasons(report) == {"nothing in it": 1, "a row that has not 5 columns": 1}
    assert reasons(report, skipped=False) == {"a time that is none was left away": 1}


def test_csv_of_prompts_and_responses_with_named_columns(memory, tmp_path):
    (tmp_path / "qa.csv").write_text("n,Frage,Antwort\n1,Which tea?,Sencha.\n1,Which tea?,Sencha.\n2,Alone,\n")
    with pytest.raises(InvalidInput, match="no column that is known to hold the text, among 'n', 'Frage', 'Antwort'"):
        import_file(memory, "csv", tmp_path / "qa.csv")
    columns = {"text": "Frage", "response": "Antwort"}
    with pytest.raises(InvalidInput, match="has no column 'Fragen'"):
        import_file(memory, "csv", tmp_path / "qa.csv", columns={"text": "Fragen"})
    assert import_file(memory, "csv", tmp_path / "qa.csv", columns=columns).kinds == {
        "prompt": 3,
        "response": 2,
        "session": 1,
    }
    texts = [
        (memory.get(e.source).text, memory.get(e.target).text)
        for p in memory.nodes("prompt")
        for e in memory.links(p.id, "responded_with")
    ]
    assert texts == [("Which tea?", "Sencha.")] * 2


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"text\ncaf\xe9\n", "is no UTF-8"),
        (b'text\n"open', "is damaged at line 2"),
        (b"", "is empty"),
        (b"te\0xt\nx\n", "NUL"),
    ],
)
def test_csv_that_cannot_be_read_is_refused_as_a_whole(memory, tmp_path, raw, message):
    (tmp_path / "t.csv").write_bytes(raw)
    with pytest.raises(InvalidInput, match=message):
        import_file(memory, "csv", tmp_path / "t.csv")
    assert len(memory) == 0


# --- memories of others -----------------------------------------------------------------------------------------


def mem0_export():
    return {
        "results": [
            {"id": "m-1", "memory": "Likes tea", "hash": "h", "metadata": {"topic": "drinks"}, "created_at": "2025-01-01T10:00:00-08:00", "updated_at": None, "user_id": "ana"},
            {"memory": "Has a cat", "user_id": "ana"},
            {"id": "m-3"},
        ],
        "relations": [{"source": "ana", "relationship": "owns", "target": "cat"}, {"source": "ana"}],
    }  # fmt: skip


@pytest.mark.parametrize("form", ["get_all", "list", "memories", "pages"])
def test_mem0(memory, tmp_path, form):
    given = mem0_export()
    whole = {
        "get_all": given,
        "list": given["results"],
        "memories": {"memories": given["results"]},
        "pages": {"count": 3, "next": None, "results": given["results"]},
    }[form]
    (tmp_path / "mem0.json").write_text(json.dumps(whole))
    report = import_file(memory, "mem0", tmp_path / "mem0.json", collection="old")
    first, second = memory.nodes("memory")
    assert first.id == collected_id("memory", "old", "m-1")
    assert (first.text, first.timestamp) == ("Likes tea", "2025-01-01T18:00:00+00:00")
    assert first.attributes["metadata"] == {"topic": "drinks"}
    assert (second.text, second.attributes["user_id"]) == ("Has a cat", "ana")
    assert reasons(report)["no memory with a text"] == 1
    if form == "get_all":
        ana, cat = (collected_id("entity", "old", name) for name in ("ana", "cat"))
        assert [link.relation for link in memory.links(ana)] == ["owns"]
        assert [node.id for node in memory.neighbours(ana)] == [cat]
        assert reasons(report)["a relation without its ends or its type"] == 1


def mcp_lines():
    return [
        {"type": "relation", "from": "Ana", "to": "Kettle", "relationType": "owns"},
        {"type": "entity", "name": "Ana", "entityType": "person", "observations": ["likes tea", "likes tea", "lives in Graz"]},
        {"type": "entity", "name": "Kettle", "entityType": "thing", "observations": []},
        {"type": "relation", "from": "Ana", "to": "Nobody", "relationType": "knows"},
        {"type": "entity", "name": "half"},
    ]  # fmt: skip


def test_the_memory_of_the_mcp_server(memory, tmp_path):
    report = import_file(memory, "mcp", write_lines(tmp_path / "memory.jsonl", mcp_lines()), collection="kitchen")
    ana, kettle = (collected_id("entity", "kitchen", name) for name in ("Ana", "Kettle"))
    assert memory.get(ana).text == "Ana (person)"
    assert {key: memory.get(ana).attributes[key] for key in ("collection", "key", "entity_type")} == {
        "collection": "kitchen",
        "key": "Ana",
        "entity_type": "person",
    }
    assert [node.id for node in memory.neighbours(ana, "owns")] == [kettle]
    told = [node.id for node in memory.neighbours(ana, "part_of", "in")]
    assert {memory.get(one).text for one in told} == {"likes tea", "lives in Graz"}
    assert {(memory.get(one).kind, memory.get(one).attributes["name"]) for one in told} == {("observation", "Ana")}
    assert reasons(report) == {
        "a relation to an entity that is not in the file": 1,
        "neither an entity nor a relation": 1,
    }


def test_the_mcp_server_reads_what_was_imported(memory, tmp_path):
    path = write_lines(tmp_path / "memory.jsonl", mcp_lines())
    import_file(memory, "mcp", path)
    graph = Entities(memory)
    ana, kettle = list(graph.all())
    assert graph.read([ana, kettle]) == [
        {"name": "Ana", "entityType": "person", "observations": ["likes tea", "lives in Graz"]},
        {"name": "Kettle", "entityType": "thing", "observations": []},
    ]
    assert graph.relations(["Ana"]) == [{"from": "Ana", "to": "Kettle", "relationType": "owns"}]
    assert graph.observe([("Ana", ["likes tea", "sings"])]) == [{"entityName": "Ana", "addedObservations": ["sings"]}]
    assert graph.create([{"name": "Kettle", "entityType": "other", "observations": []}]) == []
    before = state(memory)
    assert import_file(memory, "mcp", path).new == 0
    assert state(memory) == before


def test_mem0_reads_what_was_imported(memory, tmp_path):
    (tmp_path / "mem0.json").write_text(json.dumps(mem0_export()))
    import_file(memory, "mem0", tmp_path / "mem0.json")
    first, second = sorted(
        Memory(memory).get_all(user_id="ana")["results"], key=lambda one: one["memory"], reverse=True
    )
    assert (first["id"], first["memory"], first["metadata"]) == ("m-1", "Likes tea", {"topic": "drinks"})
    assert first["created_at"] == "2025-01-01T18:00:00+00:00"
    assert (second["memory"], second["user_id"]) == ("Has a cat", "ana")


# --- what holds for all -----------------------------------------------------------------------------------------


def every_source(folder):
    """Write a file of each kind, and return kinds with paths."""
    folder = Path(folder)
    (folder / "conversations.json").write_text(json.dumps([chatgpt_conversation()]))
    (folder / "claude.json").write_text(json.dumps(claude_export()))
    write_lines(folder / "s.jsonl", claude_code_lines())
    write_lines(folder / "rollout-1.jsonl", codex_lines())
    (folder / "t.csv").write_text("text,role\nHello,user\nHi,assistant\nHello,user\n")
    (folder / "h.json").write_text(json.dumps(langchain_history()))
    with sqlite3.connect(folder / "logs.db") as db:
        db.executescript(OLD_LLM)
    db.close()
    write_lines(folder / "memory.jsonl", mcp_lines())
    (folder / "mem0.json").write_text(json.dumps(mem0_export()))
    write_lines(folder / "o.jsonl", openai_lines())
    return {
        "chatgpt": folder / "conversations.json",
        "claude": folder / "claude.json",
        "claude-code": folder / "s.jsonl",
        "codex": folder / "rollout-1.jsonl",
        "csv": folder / "t.csv",
        "langchain": folder / "h.json",
        "llm": folder / "logs.db",
        "mcp": folder / "memory.jsonl",
        "mem0": folder / "mem0.json",
        "openai": folder / "o.jsonl",
    }


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"jsonl", "node-link"}))
@pytest.mark.parametrize("suffix", ["json", "db"])
def test_twice_is_once_and_a_dry_run_is_nothing(tmp_path, kind, suffix):
    path = every_source(tmp_path)[kind]
    with MemoryGraph(tmp_path / f"memory.{suffix}", embedding_model="builtin") as memory:
        planned = import_file(memory, kind, path, dry_run=True)
        assert len(memory) == 0
        first = import_file(memory, kind, path)
        once = state(memory)
        assert (planned.kinds, planned.links, planned.new, planned.issues) == (
            first.kinds,
            first.links,
            first.new,
            first.issues,
        )
        assert first.new == first.nodes == len(memory) > 0
        version = memory.stats().version
        assert import_file(memory, kind, path, dry_run=True).new == 0
        again = import_file(memory, kind, path)
        assert (again.new, again.kinds, again.issues) == (0, first.kinds, first.issues)
        assert state(memory) == once
        assert memory.stats().version == version  # nothing was written at all
        assert memory.stats().unembedded == sum(node.kind in EMBEDDED and not node.text for node in memory)


def test_namespaces_are_apart(tmp_path):
    sources = every_source(tmp_path)
    path = tmp_path / "memory.db"
    with MemoryGraph(path, embedding_model="builtin", namespace="ana") as ana:
        for kind, source in sources.items():
            import_file(ana, kind, source)
        assert len(ana) > 40
        assert ana.recall("tea").ids
    with MemoryGraph(path) as other:
        assert len(other) == 0
        assert not other.recall("tea")
        assert import_file(other, "chatgpt", sources["chatgpt"]).new == 10


def test_what_is_said_looks_like_what_add_messages_makes(memory, tmp_path):
    told = [("user", "Hello"), ("assistant", "Hi"), ("system", "Be brief"), ("tool", "x"), ("assistant", "Again")]
    write_lines(tmp_path / "o.jsonl", [{"messages": [{"role": role, "content": text} for role, text in told]}])
    import_file(memory, "openai", tmp_path / "o.jsonl")
    memory.add_messages([{"role": role, "text": text} for role, text in told], "by hand")

    def shape(session):
        ids = {node.id: f"{number}" for number, node in enumerate(memory.thread(session))} | {session: "session"}
        nodes = [(n.kind, n.text, n.attributes.keys()) for n in memory.thread(session)]
        links = {(ids[e.source], ids[e.target], e.relation) for one in ids for e in memory.links(one, direction="out")}
        return nodes, links

    (imported,) = (node.id for node in memory.nodes("session") if node.id != "by hand")
    assert shape(imported) == shape("by hand")


def test_a_longer_export_adds_only_what_is_new(memory, tmp_path):
    path = tmp_path / "rollout-1.jsonl"
    write_lines(path, codex_lines()[:5])
    before = import_file(memory, "codex", path)
    write_lines(path, codex_lines())
    after = import_file(memory, "codex", path)
    with MemoryGraph(":memory:", embedding_model="builtin") as fresh:
        import_file(fresh, "codex", path)
        assert state(memory) == state(fresh)
    assert before.new + after.new == len(memory)


def test_halves_of_surrogate_pairs_and_bad_times_are_kept_otherwise(memory, tmp_path):
    conversation = chatgpt_conversation()
    conversation["mapping"]["u1"]["message"]["content"]["parts"] = ["half \ud83d!"]
    conversation["mapping"]["a1"]["message"]["create_time"] = "soon"
    conversation["title"] = "\ud83d"
    (tmp_path / "conversations.json").write_text(json.dumps([conversation]))
    report = import_file(memory, "chatgpt", tmp_path / "conversations.json")
    assert memory.get("chatgpt:c-1:u1").text == "half \ufffd!"
    assert reasons(report, skipped=False) == {
        "half of a surrogate pair was replaced": 1,
        "a time that is none was left away": 1,
    }


def test_an_attribute_that_cannot_be_stored_costs_no_message(memory, tmp_path):
    deep = "x"
    for _ in range(150):
        deep = [deep]
    told = [{"type": "image", "of": deep}, {"type": "text", "text": "Deep"}]
    line = {"messages": [{"role": "user", "content": told}, {"role": "assistant", "content": "Answer"}]}
    report = import_file(memory, "openai", write_lines(tmp_path / "o.jsonl", [line]))
    (session,) = memory.nodes("session")
    assert said(memory, session.id) == [("user", "[image]\nDeep"), ("assistant", "Answer")]
    (issue,) = report.issues
    assert (issue.reason, issue.skipped) == ("an attribute that cannot be stored was left away", False)
    assert "line 1, message 0: 'content' of a message is nested more than 100 deep" in issue.examples[0]


def test_what_cannot_be_stored_is_left_out_alone(memory, tmp_path):
    memory.put([Node("csv:t:2", "thing", None, {})])
    (tmp_path / "t.csv").write_text("id,text\n" + "".join(f"{n},message {n}\n" for n in range(5)))
    report = import_file(memory, "csv", tmp_path / "t.csv")
    assert [node.id for node in memory.nodes("prompt")] == [f"csv:t:{n}" for n in (0, 1, 3, 4)]
    (issue,) = report.issues
    assert (issue.reason, issue.skipped, report.kinds["prompt"], report.new) == ("it cannot be stored", True, 4, 5)
    assert f"{tmp_path / 't.csv'}, line 4: 'csv:t:2' is the id of a thing already" in issue.examples[0]


@pytest.mark.parametrize("kind", ["chatgpt", "claude", "langchain", "mem0"])
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ('[{"a": 1}, {"b": tru', r"line 1, character 17.*element 1"),
        ('[{"a": 1}\n {"b": 2}]', r"line 2.*after element 0 there is '\{'"),
        ('[{"a": 1},\n', r"element 1"),
        ("", "it is empty"),
        ('"text"', "neither a JSON list nor an object"),
        ('[{"a": 1}] x', "more after its end"),
        (b'[{"a": "\xff"}]', "no UTF-8"),
        ("[" * 100000, "nested too deeply"),
    ],
)
def test_a_damaged_document_is_refused_before_anything_is_written(memory, tmp_path, kind, raw, message):
    path = tmp_path / "conversations.json"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    with pytest.raises(InvalidInput, match=message) as caught:
        import_file(memory, kind, path)
    assert "Nothing was imported" in str(caught.value)
    assert len(memory) == 0


def test_a_document_that_is_damaged_at_its_end_changes_nothing(memory, tmp_path):
    whole = json.dumps([chatgpt_conversation(f"c-{n}") for n in range(200)])
    (tmp_path / "conversations.json").write_text(whole[:-100])
    with pytest.raises(InvalidInput, match="element 199"):
        import_file(memory, "chatgpt", tmp_path / "conversations.json")
    assert len(memory) == 0


def test_wrong_arguments_are_named(memory, tmp_path):
    path = every_source(tmp_path)["chatgpt"]
    for arguments, more, message in (
        (("gpt", path), {}, "'gpt' is nothing that can be imported. Choose one of: chatgpt"),
        (("chatgpt", path), {"session": "s"}, "session is not for 'chatgpt'"),
        (("csv", tmp_path / "t.csv"), {"columns": {"mood": "x"}}, "'mood' is nothing that a column can be"),
        (("chatgpt", tmp_path / "empty"), {}, "no conversations.json"),
        (("csv", tmp_path), {}, "is a folder"),
        (("openai", tmp_path / "o.jsonl"), {"session": ""}, "session"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InvalidInput, match=message):
            import_file(memory, *arguments, **more)
    with pytest.raises(FileNotFoundError):
        import_file(memory, "csv", tmp_path / "missing.csv")


def test_progress_ends_with_all(memory, tmp_path):
    told = []
    import_file(
        memory, "chatgpt", every_source(tmp_path)["chatgpt"], progress=lambda done, whole: told.append((done, whole))
    )
    assert told[-1] == (8, 8)


def test_the_report_can_be_read(memory, tmp_path):
    report = import_file(memory, "mcp", write_lines(tmp_path / "m.jsonl", mcp_lines()))
    assert str(report).splitlines() == [
        f"Imported 2 entity, 2 observation from {tmp_path / 'm.jsonl'}; edges: 3, new nodes: 4.",
        f"Left out: neither an entity nor a relation: 1 ({tmp_path / 'm.jsonl'}, line 5 ({{'type': 'entity', 'name': 'half'}}))",
        f"Left out: a relation to an entity that is not in the file: 1 ({tmp_path / 'm.jsonl'}, line 4 ('Nobody'))",
    ]
    told = json.loads(json.dumps(report.to_dict()))
    assert (told["nodes"], told["skipped"], told["kinds"]) == (4, 2, {"entity": 2, "observation": 2})


# --- one element at a time --------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    values=st.lists(JSON, max_size=8),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    chunk=st.integers(1, 40),
    under=st.sampled_from([None, "items"]),
)
@settings(max_examples=60)
def test_elements_are_those_of_the_whole(values, indent, ascii_only, chunk, under):
    whole = values if under is None else {"about": [1, {"x": "]"}], under: values, "more": 1}
    raw = json.dumps(whole, indent=indent, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_json_stream, "_CHUNK", chunk)
        patch.setattr(_json_stream, "_TAIL", 400)  # longer than what any of these numbers and escapes is cut to
        found = list(elements(io.BytesIO(raw), "f.json", under))
    assert found == list(enumerate(values))


@given(st.lists(st.dictionaries(st.text(), st.text(), max_size=3), min_size=1, max_size=4), st.data())
def test_what_is_cut_short_is_never_taken_for_whole(values, data):
    raw = json.dumps(values).encode()
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(InvalidInput):
        list(elements(io.BytesIO(raw[:cut]), "f.json"))


def test_a_large_file_is_not_held_in_memory(tmp_path):
    path = tmp_path / "conversations.json"
    one = chatgpt_conversation()
    one["mapping"]["a1"]["message"]["content"]["parts"] = ["word " * 20_000]
    with path.open("w") as file:
        for number in range(200):
            file.write("[" if number == 0 else ",")
            json.dump({**one, "conversation_id": f"c-{number}"}, file)
        file.write("]")
    assert path.stat().st_size > 20_000_000
    tracemalloc.start()
    with path.open("rb") as file:
        count = sum(1 for _ in elements(file, "f"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 200
    assert most < 12_000_000
