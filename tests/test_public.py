"""What is promised to those who import the package: names, signatures, errors. A change here is a change for them."""

from __future__ import annotations

import ast
import asyncio
import builtins
import copy
import importlib
import inspect
import json
import pickle
import re
from pathlib import Path

import pytest
from outside import fake

import raeburnmemory
from raeburnmemory import errors, memory_graph, nodes
from raeburnmemory.memory_graph import MemoryGraph

MODULES = ["raeburnmemory", "raeburnmemory.errors", "raeburnmemory.memory_graph", "raeburnmemory.nodes"]
MODULES += [
    "raeburnmemory.context",
    "raeburnmemory.tokens",
    "raeburnmemory.testing",
    "raeburnmemory.embed",
    "raeburnmemory.index",
    "raeburnmemory.store",
]

PUBLIC = [
    "Agent",
    "Context",
    "Edge",
    "Hit",
    "Hits",
    "Link",
    "MemoryGraph",
    "MemoryGraphError",
    "Node",
    "Prompt",
    "Response",
    "Session",
]

METHODS = {
    "__bool__": "(self)",
    "__contains__": "(self, node_id)",
    "__enter__": "(self)",
    "__exit__": "(self, kind, error, trace)",
    "__init__": (
        "(self, db_path=None, embedding_model='all-MiniLM-L6-v2', storage_backend=None, vector_backend=None, "
        "qdrant_url=':memory:', *, namespace='default', read_only=False, timeout=30.0, language='english', "
        "durability='full', vector_format=None)"
    ),
    "__iter__": "(self)",
    "__len__": "(self)",
    "add_interaction": (
        "(self, prompt, response=None, agent=None, session_id=None, *, metadata=None, timestamp=None, vector=None, "
        "allow_unembedded=False)"
    ),
    "add_interaction_async": "async (self, *args, **kwargs)",
    "add_many": "(self, interactions, *, progress=None, allow_unembedded=False)",
    "add_message": (
        "(self, text, role='user', session_id=None, *, name=None, id=None, timestamp=None, metadata=None, "
        "vector=None, allow_unembedded=False)"
    ),
    "add_messages": "(self, messages, session_id=None, *, progress=None, allow_unembedded=False)",
    "backup": "(self, target, *, overwrite=False)",
    "batch_add": "async (self, interactions)",
    "close": "(self)",
    "change": "(self, plan, *, allow_unembedded=False)",
    "context": "(self, query, budget=1000, tokenizer=None, *, k=20, neighbours=1, order='conversation', **search)",
    "db_path": "property",
    "fact": (
        "(self, subject, predicate, object, *, valid_from=None, valid_to=None, source=None, id=None, timestamp=None, "
        "metadata=None, allow_unembedded=False)"
    ),
    "facts": "(self, subject=None, predicate=None, object=None, *, as_of=None, include_superseded=False)",
    "evaluate": "(self, questions, k=10)",
    "exclusive": "(self)",
    "export": "(self, path=None, *, all_namespaces=False)",
    "export_async": "async (self, *args, **kwargs)",
    "forget": "(self, ids=None, *, session=None, agent=None, before=None, where=None, secure=False, backups=False)",
    "get": "(self, node_id)",
    "get_many": "(self, ids)",
    "get_similar_prompts": "(self, text, top_k=5)",
    "graph": "property",
    "history": "(self, node_id)",
    "link": "(self, source, target, relation, **data)",
    "matching": (
        "(self, words, k=10, *, every=False, kinds=None, session=None, agent=None, speaker=None, collection=None, "
        "since=None, until=None, where=None)"
    ),
    "link_similar_prompts": "(self, threshold=0.85, *, progress=None)",
    "links": "(self, node_id, relation=None, direction='both')",
    "load": "(self)",
    "model": "property",
    "neighbours": "(self, node_id, relation=None, direction='out')",
    "nodes": "(self, kind=None, *, session=None, since=None, before=None, where=None, limit=None, after=None)",
    "put": "(self, nodes, links=(), *, vectors=None, progress=None, allow_unembedded=False)",
    "read_only": "property",
    "record": "(self, function=None, *, prompt=None, argument=None, session_id=None, agent=None, metadata=None)",
    "recall": (
        "(self, query, k=10, *, kinds=None, session=None, agent=None, speaker=None, collection=None, since=None, until=None, "
        "where=None, legs=None, min_similarity=None, min_coverage=None, recency=0.0, half_life=30.0, diversity=0.0, fold=False, "
        "now=None, explain=False)"
    ),
    "reembed": "(self, model, progress=None)",
    "reindex": "(self, progress=None)",
    "retract": "(self, fact_id, at=None, *, allow_unembedded=False)",
    "similar": (
        "(self, text, k=5, *, kinds='prompt', session=None, agent=None, speaker=None, collection=None, since=None, "
        "until=None, where=None)"
    ),
    "show": "(self, about=None, **how)",
    "single_valued": "(self, predicate=None, *, withdraw=False, allow_unembedded=False)",
    "snapshot": "(self)",
    "stats": "(self)",
    "storage_backend": "property",
    "thread": "(self, session_id)",
    "to_networkx": "(self)",
    "trace": "(self, node_id, depth=None)",
    "tune": "(self, labelled)",
    "undo": "(self, fact_id=None, *, allow_unembedded=False)",
    "unlink": "(self, source, target, relation=None)",
    "update": "(self, node_id, *, text=None, metadata=None, remove=(), allow_unembedded=False)",
    "vector_backend": "property",
    "vector_index": "property",
    "vectors": "(self, ids)",
    "version": "property",
    "visualise_prompt_chain": "(self, prompt_id, depth=3)",
    "why": "(self, node_id)",
    "wrap": "(self, client, *, session_id=None, agent=None, context=None, metadata=None)",
    "within": "(self, namespace)",
}


def shape(member):
    """Return how a method is called: the names and defaults of what it takes."""
    if isinstance(member, property):
        return "property"
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parts, starred = [], False
    for parameter in inspect.signature(member).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
        starred = starred or parameter.kind in {parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL}
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parts.append(marks.get(parameter.kind, "") + parameter.name + default)
    return ("async " if inspect.iscoroutinefunction(member) else "") + f"({', '.join(parts)})"


def test_the_memory_is_called_as_it_always_was():
    found = {name: shape(member) for name, member in vars(MemoryGraph).items() if not name.startswith("_")}
    special = {name for name in METHODS if name.startswith("_")}
    found |= {name: shape(vars(MemoryGraph)[name]) for name in special}
    assert found == METHODS


def test_the_names_of_the_package():
    assert raeburnmemory.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(raeburnmemory))
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        raeburnmemory.nothing_of_that_name  # noqa: B018
    assert raeburnmemory.MemoryGraph is memory_graph.MemoryGraph
    assert raeburnmemory.Prompt is memory_graph.Prompt is nodes.Prompt
    assert re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", raeburnmemory.__version__)
    assert (Path(raeburnmemory.__file__).parent / "py.typed").exists()


def test_the_version_is_that_of_the_project():
    project = Path(raeburnmemory.__file__).parents[1] / "pyproject.toml"
    if not project.exists():
        pytest.skip("installed as a package, without its project file")
    assert f'\nversion = "{raeburnmemory.__version__}"\n' in project.read_text()


def test_what_type_checkers_see_is_what_there_is():
    """The names are loaded lazily; those who read the source find the same ones from the same modules."""
    tree = ast.parse(Path(raeburnmemory.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    seen.pop("Any", None)
    assert set(seen) == set(PUBLIC)
    for name, module in seen.items():
        assert getattr(importlib.import_module(f"raeburnmemory.{module}"), name) is getattr(raeburnmemory, name)


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_importable_and_documented(module):
    module = importlib.import_module(module)
    # As ruff sorts it: constants first, then classes, then functions.
    kinds = [(0 if name.isupper() else 1 if name[0].isupper() else 2, name) for name in module.__all__]
    assert kinds == sorted(kinds)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        member = getattr(module, name)
        if inspect.isclass(member) or inspect.isfunction(member):
            # A dataclass without a docstring is given one that only repeats its fields.
            assert member.__doc__, name
            assert not member.__doc__.startswith(f"{name}("), name
        if inspect.isclass(member):
            for own, method in vars(member).items():
                if not own.startswith("_") and (inspect.isfunction(method) or isinstance(method, property)):
                    assert method.__doc__, f"{name}.{own}"


# --- errors -----------------------------------------------------------------------------------------------------


def drawn():
    """Parse the tree at the top of errors.py: the name of each error, its parent and the builtins in brackets."""
    found, parents = {}, []
    for line in errors.__doc__.splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?: \(([\w, ]+)\))?(?:  +(.*))?$", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        del parents[depth:]
        found[match[2]] = (parents[-1] if parents else None, (match[3] or "").split(", ") if match[3] else [], match[4])
        parents.append(match[2])
    return found


def test_the_tree_that_is_drawn_is_the_tree_that_grows():
    tree = drawn()
    classes = {n: c for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, errors.MemoryGraphError)}
    assert set(tree) == set(classes) == set(errors.__all__) - {"EmbedderFallbackWarning"}
    assert len(tree) >= 19
    for name, (parent, brackets, says) in tree.items():
        bases = [base.__name__ for base in classes[name].__bases__]
        assert bases == ([parent] if parent else ["Exception"]) + brackets, name
        assert says or name == "MemoryGraphError"
        for builtin in brackets:
            assert issubclass(classes[name], getattr(builtins, builtin))


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "EmbedderFallbackWarning"])
def test_errors_are_raised_caught_copied_and_sent_to_other_processes(name):
    kind = getattr(errors, name)
    given = (28, "what, which, and what to do") if issubclass(kind, OSError) and name.startswith("Store") else ("what",)
    error = kind(*given)
    assert str(error) == given[-1]
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind
        assert str(other) == str(error)
        assert getattr(other, "errno", None) == getattr(error, "errno", None)
    with pytest.raises(errors.MemoryGraphError):
        raise error
    for builtin in drawn()[name][1]:
        with pytest.raises(getattr(builtins, builtin)):
            raise error


def test_the_warning_can_be_filtered():
    assert issubclass(errors.EmbedderFallbackWarning, UserWarning)
    assert not issubclass(errors.EmbedderFallbackWarning, errors.MemoryGraphError)


# --- the async twins --------------------------------------------------------------------------------------------

BATCH = [
    ({"id": f"p{n}", "text": f"thing {n}"}, {"id": f"r{n}", "text": "x"}, {"id": "a", "name": "A"}, "s")
    for n in range(5)
]
OPTIONS = {"metadata": {"mood": "good"}, "timestamp": "2026-11-20T09:30:00Z", "vector": list(range(16))}


@pytest.mark.parametrize("name", ["g.json", "g.db", ":memory:"])
def test_async_twins_do_the_same(tmp_path, name):
    def opened(which):
        (tmp_path / which).mkdir()
        return MemoryGraph(name if name == ":memory:" else tmp_path / which / name, fake)

    def without_times(data):
        text = json.dumps({key: data[key] for key in ("nodes", "edges", "links")})
        return re.sub(r'"timestamp": "[^"]*"', '"timestamp": 0', text)

    async def everything(memory):
        one = await memory.add_interaction_async(*BATCH[0], **OPTIONS)
        more = await memory.batch_add(BATCH)
        return one, more, await memory.export_async(False)

    with opened("sync") as sync, opened("async") as asynchronous:
        expected = (sync.add_interaction(*BATCH[0], **OPTIONS), sync.add_many(BATCH), sync.export(False))
        found = asyncio.run(everything(asynchronous))
        assert found[:2] == expected[:2]
        assert without_times(found[2]) == without_times(expected[2])
        assert [(h.id, h.score) for h in sync.similar("thing 3")] == [
            (h.id, h.score) for h in asynchronous.similar("thing 3")
        ]
        assert asyncio.run(asynchronous.export_async(path=str(tmp_path / "a.json"))) == asynchronous.export(False)
        assert json.loads((tmp_path / "a.json").read_text()) == asynchronous.export(False)


def test_every_async_method_has_a_sync_one():
    twins = {name for name, member in vars(MemoryGraph).items() if inspect.iscoroutinefunction(member)}
    assert twins == {"add_interaction_async", "batch_add", "export_async"}
    for name in twins - {"batch_add"}:
        assert hasattr(MemoryGraph, name.removesuffix("_async"))


def test_what_is_returned_can_be_printed_and_turned_into_json():
    with MemoryGraph(":memory:", fake) as memory:
        recorded = memory.add_interaction(*BATCH[0])
        assert (recorded.prompt, recorded.response, recorded.agent, recorded.session) == ("p0", "r0", "a", "s")
        hits = memory.similar("thing 0")
        assert "p0" in repr(hits)
        for value in (hits[0], memory.get("p0"), memory.stats(), memory.reindex(), memory.forget("p0")):
            assert json.loads(json.dumps(value.to_dict()))
            assert repr(value)
        assert hits.ids == ["p0"]
        assert hits == [hits[0]]
        assert hits[:1].ids == ["p0"]
        assert "MemoryGraph(':memory:')" in repr(memory)
