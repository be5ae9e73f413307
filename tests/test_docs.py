"""The documentation is true: what it shows runs and prints what it says, what exists is in it, links lead somewhere.

A page's ```python blocks run one after the other in one folder. A ```text block under `<!-- prints -->` is what the
block before it printed, "…" standing for anything. ```console blocks run too: `$ command`, then its output. A block
with `title="NAME"` is a file. A block under `<!-- not run: reason -->` is left alone.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dataclasses
import doctest
import functools
import importlib
import importlib.util
import inspect
import io
import json
import logging
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

import raeburnmemory
import raeburnmemory.memory_graph
from raeburnmemory import MemoryGraph, errors
from raeburnmemory._optional import installed
from raeburnmemory.ranking import OBSERVED, Weights

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "raeburnmemory"
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")]
PAGES = [*FRONT, *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

# Pages that are about another package, which is not everywhere.
NEEDED = {"docs/how-to/use-with-langchain.md": "langchain_core"}
NEEDED |= {"docs/how-to/use-with-mcp.md": "mcp"}
NEEDED |= {"docs/how-to/coming-from-langchain-memory.md": "langchain_core"}
NEEDED |= {"docs/how-to/ask-your-documents.md": "langchain_core"}
NEEDED |= {"docs/how-to/use-with-langgraph.md": "langgraph"}
NEEDED |= {"docs/how-to/local-models.md": "platformdirs"}
NEEDED |= {"docs/how-to/serve-over-http.md": "fastapi"}
HUB_PACKAGES = ("documents", "chunking", "fetching")  # whose public names the reference documents from the source

every_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


# --- reading a page --------------------------------------------------------------------------------------------

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
FENCE_LINE = re.compile(r"^ *(?:`{3,}|~{3,})", re.MULTILINE)
COMMAND = re.compile(
    r"^(?:\$ )?(?:curl|docker|export|git|mkdocs|pip|pytest|python3?|raeburnmemory|uvicorn) ", re.MULTILINE
)
COMMENT = re.compile(r"<!-- ((?:(?!-->).)+) -->\s*\Z")


@dataclasses.dataclass(frozen=True)
class Block:
    line: int
    language: str
    title: str | None
    body: str
    comment: str | None  # the HTML comment right above it

    @property
    def left_alone(self) -> bool:
        return self.comment is not None and self.comment.startswith("not run: ")

    @property
    def printed(self) -> bool:
        return self.comment == "prints"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        above = COMMENT.search(text[: match.start()])
        title = re.search(r'title="([^"]+)"', match["info"])
        found.append(
            Block(
                text.count("\n", 0, match.start()) + 1,
                match["language"],
                title[1] if title else None,
                inspect.cleandoc("\n" + match["body"]) + "\n",
                above[1] if above else None,
            )
        )
    return found


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def code_of(page: Path) -> str:
    """Return what a page shows as code, in blocks and in lines, and the names it has documented from the source."""
    text = page.read_text(encoding="utf-8")
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return "\n".join(
        [*(match["body"] for match in FENCE.finditer(text)), *spans, *re.findall(r"^::: (\S+)", text, re.MULTILINE)]
    )


def all_code() -> str:
    return "\n".join(code_of(page) for page in PAGES)


def holds_word(code: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", code) is not None


def agrees(expected: str, printed: str) -> bool:
    """Compare line by line: "…" stands for anything within a line, and alone on one for any lines or none."""
    lines = [line.rstrip() for line in expected.strip().splitlines()]
    pattern = "".join(
        r"(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n" for line in lines
    )
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in printed.strip().splitlines())) is not None


# --- running a page --------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working folder and a home of its own, and none of this machine's settings."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    for name in [name for name in os.environ if name.startswith(("RAEBURN_", "LLAMAFILES_"))]:
        monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # no page may wait for a network, or need one
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(work)
    for name in ("pyarrow", "raeburnmemory.exporters.parquet"):  # a page does as if it were not installed
        if name in sys.modules:
            monkeypatch.delitem(sys.modules, name)
    log = logging.getLogger("raeburnmemory")
    level = log.level
    yield work
    log.setLevel(level)


@every_page
def test_page_runs_and_prints_what_it_says(page, elsewhere, monkeypatch):
    name, scope, printed = page.relative_to(ROOT).as_posix(), {"__name__": "__main__"}, None
    passed_over = ""
    if name in NEEDED:
        pytest.importorskip(NEEDED[name], reason=f"the page is about {NEEDED[name]}")
    for block in blocks_of(page):
        where = f"{name}:{block.line}"
        if block.left_alone:
            printed = None
        elif block.title is not None:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.body, encoding="utf-8")
        elif block.language == "python" and (lacking := lacks(block.body)):
            passed_over, printed = lacking, None
        elif block.language == "python":
            out = io.StringIO()
            source = compile("\n" * block.line + block.body, name, "exec")
            with contextlib.redirect_stdout(out):
                exec(source, scope)
            printed = out.getvalue()
        elif block.language == "console" and "$ raeburnmemory " in block.body and not installed("typer"):
            pytest.skip(f"the page ran up to line {block.line}, which needs typer; what follows goes on from there")
        elif block.language == "console":
            for command, expected in sessions(block.body):
                shown = run_command(command, where, monkeypatch)
                assert agrees(expected, shown), f"{where}: {command!r} printed\n{shown}\nand not\n{expected}"
            printed = None
        elif block.printed and passed_over and printed is None:
            pass
        elif block.printed:
            assert printed is not None, f"{where}: no block before it printed anything"
            assert agrees(block.body, printed), f"{where}: printed was\n{printed}\nand not\n{block.body}"
            printed = None
    if passed_over:
        pytest.skip(f"the rest of the page ran; some of it needs {passed_over}")


def lacks(body: str) -> str:
    """Return the package that a block of Python needs and that is not installed here, of those in extras."""
    needed = {"qdrant": "qdrant_client", "pgvector": "pgvector", ".png": "resvg_py"}
    return next((module for word, module in needed.items() if word in body and not installed(module)), "")


def sessions(body: str) -> list[tuple[str, str]]:
    """Split a console block into commands and what they print."""
    body = body.replace("\\\n", "")
    parts = re.split(r"^\$ ", body, flags=re.MULTILINE)
    assert not parts[0].strip(), "a console block begins with '$ '"
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts[1:]]


def run_command(command: str, where: str, monkeypatch) -> str:
    """Return what a command prints, errors included; ours run in this process, which is faster."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if words[:1] == ["raeburnmemory"] and not set("|&;<>$~") & set(command):
        return run_ours(words[1:])
    if os.name != "posix":
        pytest.skip(f"{where} shows commands of a POSIX shell")
    ours = f'python() {{ "{sys.executable}" "$@"; }}; raeburnmemory() {{ python -m raeburnmemory "$@"; }}'
    done = subprocess.run(
        ["/bin/sh", "-c", f"{ours}\n{command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def run_ours(words: list[str]) -> str:
    from typer.testing import CliRunner

    from raeburnmemory.cli import app

    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@every_page
def test_blocks_are_what_the_tests_understand(page):
    for block in blocks_of(page):
        where = f"{page.name}:{block.line}"
        assert block.language in {"python", "console", "bash", "text", "json", "sql"}, where
        if block.language == "bash":
            assert block.left_alone, f"{where}: use console for what can be run, or say why it is not run"
        if block.comment is not None:
            assert block.left_alone or (block.printed and block.language == "text"), f"{where}: {block.comment!r}"
        if block.language == "text" and not block.printed and block.title is None:
            assert not COMMAND.search(block.body), f"{where}: a command is console, or bash with the reason why not run"
        if block.language == "json" and block.title is None:
            json.loads(block.body)
    text = page.read_text(encoding="utf-8")
    assert len(FENCE_LINE.findall(text)) == 2 * len(blocks_of(page)), f"{page.name}: a block that is none for the tests"


def test_every_tool_of_mcp_is_documented():
    pytest.importorskip("mcp", reason="the MCP door needs mcp")
    from raeburnmemory.mcp import _tools

    source = ast.parse(inspect.getsource(_tools))
    calls = [node for node in ast.walk(source) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Tool"]
    there = {ast.literal_eval(node.args[0]) for node in calls}
    rows = table_after("docs/how-to/use-with-mcp.md", "## The tools")
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])} == there


def test_every_kind_of_import_and_format_of_export_is_documented():
    from raeburnmemory.exporters import FORMATS
    from raeburnmemory.importers import KINDS

    code = code_of(ROOT / "docs" / "how-to" / "import-and-export.md")
    assert [name for name in [*KINDS, *FORMATS] if not holds_word(code, name)] == []


def test_doctests():
    results = doctest.testmod(raeburnmemory.memory_graph)
    assert results.attempted > 0
    assert results.failed == 0


# --- what exists is documented ---------------------------------------------------------------------------------


def test_every_public_name_is_documented():
    code = all_code()
    assert [name for name in raeburnmemory.__all__ if not holds_word(code, name)] == []


def test_every_public_name_about_documents_is_documented():
    page = (
        code_of(ROOT / "docs" / "reference" / "documents.md")
        + "\n"
        + code_of(ROOT / "docs" / "reference" / "errors.md")
    )
    for package in HUB_PACKAGES:
        module = importlib.import_module(f"raeburnmemory.hub.{package}")
        assert [name for name in module.__all__ if not holds_word(page, name)] == []


# What may be imported from these packages is public, whatever it is; elsewhere it is what the reference names.
OPEN_PACKAGES = (
    "api", "compat.mem0", "doctor", "exporters", "hub", "hub.server", "importers", "langchain", "langgraph", "mcp", "picture",
    "recording", "testing",
)  # fmt: skip
OPEN_MODULES = ("client",)


def referenced() -> set[str]:
    """Return the full names that the reference documents from the source, or writes out."""
    code = "\n".join(code_of(page) for page in PAGES if page.parent.name == "reference")
    return set(re.findall(r"raeburnmemory(?:\.\w+)+", code))


@pytest.mark.parametrize("name", [*OPEN_PACKAGES, *OPEN_MODULES])
def test_every_name_of_an_open_package_is_in_the_reference(name):
    path = PACKAGE / name.replace(".", "/")
    tree = ast.parse((path.with_suffix(".py") if name in OPEN_MODULES else path / "__init__.py").read_text("utf-8"))
    ((listed),) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "__all__"
    ]
    there = {full.rpartition(".")[2] for full in referenced()} | set(errors_of_the_hub())
    assert listed
    assert [one for one in listed if one not in there] == []


def test_what_a_documented_name_takes_and_gives_is_in_the_reference():
    """A class of ours in a signature is a dead end, unless it can be looked up as well."""
    there = sorted(referenced())
    named = {full: found for full in there if (found := looked_up(full)) is not None}
    known = {id(found) for found in named.values()}
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = {}
    for full in named.keys() & set(re.findall(r"^::: (\S+)", text, re.MULTILINE)):
        for where, module, annotation in annotations_of(full, named[full]):
            for cls in classes_in(module, annotation):
                if id(cls) not in known and not issubclass(cls, Exception):
                    missing.setdefault(f"{cls.__module__}.{cls.__qualname__}", where)
        for name in re.findall(r"`(raeburnmemory(?:\.\w+)+)`", "\n".join(docstrings_of(named[full]))):
            if not any(other == name or other.startswith(f"{name}.") for other in there):
                missing.setdefault(name, full)
    assert len(named) > 60
    assert missing == {}


def docstrings_of(found: object) -> list[str]:
    """Return what the reference shows of an object and of what is in it."""
    members = vars(found).items() if inspect.isclass(found) else ()
    shown = [found, *(member for name, member in members if not name.startswith("_"))]
    return [inspect.getdoc(one) or "" for one in shown if isinstance(getattr(one, "__doc__", None), str)]


def looked_up(full: str) -> object | None:
    """Return what has this name, None where what it needs is not installed."""
    value, path = raeburnmemory, "raeburnmemory"
    try:
        for part in full.split(".")[1:]:
            path = f"{path}.{part}"
            if inspect.ismodule(value) and not hasattr(value, part):
                importlib.import_module(path)
            value = getattr(value, part)
    except ImportError:
        return None
    return value


def annotations_of(full: str, found: object):
    """Yield what the public functions, methods and fields of an object say about their types."""
    if inspect.isfunction(found):
        yield from ((full, found.__module__, annotation) for annotation in found.__annotations__.values())
    for cls in found.__mro__ if inspect.isclass(found) else ():
        if not cls.__module__.startswith("raeburnmemory"):
            continue
        for name, value in [*vars(cls).items(), *vars(cls).get("__annotations__", {}).items()]:
            if name.startswith("_") and name not in {"__enter__", "__getitem__", "__iter__"}:
                continue
            function = getattr(value, "fget", getattr(value, "__func__", value))  # of a property; of a classmethod
            told = function.__annotations__.values() if inspect.isfunction(function) else [value]
            yield from ((f"{full}.{name}", cls.__module__, one) for one in told if isinstance(one, str))


def classes_in(module: str, annotation: str):
    """Yield the classes of ours that an annotation names, those that are imported for the type checker included."""
    for name in re.findall(r"\b[A-Z]\w*", annotation):
        if (home := homes_of(module).get(name)) is not None:
            found = looked_up(".".join(home))
            if inspect.isclass(found):
                yield found


@functools.cache
def homes_of(module: str) -> dict[str, tuple[str, str]]:
    """Return where the names come from that a module of ours takes from others of ours, or defines."""
    homes = {}
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if isinstance(node, ast.ClassDef):
            homes[node.name] = (module, node.name)
        elif isinstance(node, ast.ImportFrom):
            package = sys.modules[module].__spec__.parent
            home = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if home.partition(".")[0] == "raeburnmemory":
                homes |= {one.asname or one.name: (home, one.name) for one in node.names}
    return homes


def test_every_name_of_memory_graph_is_documented():
    memory = MemoryGraph(":memory:", embedding_model="builtin")
    shown = "\n".join(row for row in table_after("docs/reference/api.md", "## MemoryGraph at a glance"))
    assert [name for name in dir(memory) if not name.startswith("_") and f"`{name}`" not in shown] == []
    memory.close()


def test_every_page_about_errors_agrees_with_the_source():
    page = ROOT / "docs" / "reference" / "errors.md"
    ours = [getattr(errors, name) for name in errors.__all__]
    code = code_of(page)
    assert [error.__name__ for error in ours if not holds_word(code, error.__name__)] == []
    (tree,) = [block.body for block in blocks_of(page) if block.body.startswith("MemoryGraphError\n")]
    assert tree.splitlines() == tree_of(errors.MemoryGraphError)
    rows = set(re.findall(r"^\| `(\w+)` \| (?!`\w+` \|)", page.read_text(encoding="utf-8"), re.MULTILINE))
    leaves = {error.__name__ for error in ours} - {"MemoryGraphError", "StoreError", "EmbedderFallbackWarning"}
    assert rows == leaves


HUB_ERRORS = ("raeburnmemory.hub.errors", "raeburnmemory.hub.models.errors", "raeburnmemory.hub.documents.errors")


def errors_of_the_hub() -> list[str]:
    """Return the names of the errors that the page about errors is compared with."""
    return [name for module in HUB_ERRORS for name in importlib.import_module(module).__all__]


def test_the_page_about_errors_agrees_with_the_hub():
    page = ROOT / "docs" / "reference" / "errors.md"
    modules = [importlib.import_module(name) for name in HUB_ERRORS]
    theirs = {getattr(module, name) for module in modules for name in module.__all__}
    (tree,) = [block.body for block in blocks_of(page) if block.body.startswith("HubError\n")]
    assert tree.splitlines() == tree_of(modules[0].HubError, HUB_ERRORS)
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    roots = {"HubError", "LlamafileError", "DocumentError"}
    assert sorted(rows) == sorted((error.__name__, error.code) for error in theirs if error.__name__ not in roots)
    assert all(holds_word(code_of(page), name) for name in roots)


def tree_of(error: type, modules: tuple[str, ...] = (errors.__name__,), indent: str = "") -> list[str]:
    """Draw a class and those under it, of *modules*, as the page draws them."""
    lines = [error.__name__ + built_in(error)]
    below = [child for child in error.__subclasses__() if child.__module__ in modules]
    for number, child in enumerate(below, 1):
        first, *rest = tree_of(child, modules)
        lines.append(f"{'└' if number == len(below) else '├'}── {first}")
        lines += [f"{'   ' if number == len(below) else '│  '} {line}" for line in rest]
    return [indent + line for line in lines]


def built_in(error: type) -> str:
    """Return the builtin that a class names as its base besides one of ours, in brackets."""
    named = [
        base.__name__ for base in error.__bases__ if base.__module__ == builtins.__name__ and base is not Exception
    ]
    return f" ({', '.join(named)})" if named else ""


def test_every_variable_of_the_environment_is_documented():
    read = set()
    for path in PACKAGE.rglob("*.py"):
        read |= set(
            re.findall(
                r"\bRAEBURN_[A-Z_]+|\bHF_HUB_OFFLINE\b|\bOPENAI_API_KEY\b|\bLLAMAFILES_DIR\b|\bSSL_CERT_FILE\b",
                path.read_text(encoding="utf-8"),
            )
        )
    page = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE))
    assert documented == read


def commands() -> dict[str, object]:
    typer = pytest.importorskip("typer", reason="the command line needs typer")
    from raeburnmemory.cli import app

    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_every_command_and_option_is_documented():
    typer = pytest.importorskip("typer", reason="the command line needs typer")
    from raeburnmemory.cli import app

    root = typer.main.get_command(app)
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    _, *sections = re.split(r"^## ", page, flags=re.MULTILINE)
    by_title = {section.partition("\n")[0]: section for section in sections}
    assert names_of(root) - documented_options(by_title["Options before the command"]) == set()
    for name, command in root.commands.items():
        assert name in by_title, f"docs/reference/cli.md has no section about {name!r}"
        assert documented_options(by_title[name]) == names_of(command), name
        assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    everything_else = {"Options before the command", "Completion", "Exit codes", "Output"}
    assert set(by_title) - everything_else == set(root.commands), "a section about a command that does not exist"


GROUPS = {"models"}  # commands that are made of commands


def names_of(command) -> set[str]:
    """Return the options of a command; of a group also those of the commands in it."""
    below = command.commands.values() if command.name in GROUPS else []
    return own_names_of(command).union(*map(own_names_of, below))


def own_names_of(command) -> set[str]:
    names = {name for param in command.params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")}
    return names - {"--help", "--install-completion", "--show-completion"}


def documented_options(section: str) -> set[str]:
    return {
        name
        for cell in re.findall(r"^\| (`-[^|]+) \|", section, re.MULTILINE)
        for name in re.findall(r"`(-[\w-]+)", cell)
    }


def test_every_exit_code_is_documented():
    pytest.importorskip("typer", reason="the command line needs typer")
    from raeburnmemory import cli

    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    section = page.partition("## Exit codes")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| (\d+) \|", section, re.MULTILINE))
    assert documented == set(re.findall(r"(?:: |; )(\d+) ", (cli.__doc__ or "").partition("Exit codes")[2]))


def table_after(page: str, heading: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"{heading}\n")[2].partition("\n## ")[0]
    return [line for line in text.splitlines() if line.startswith("|")]


# --- the files are as they are described ------------------------------------------------------------------------


@pytest.fixture
def files_page():
    return (ROOT / "docs" / "reference" / "files.md").read_text(encoding="utf-8")


def test_every_file_of_a_memory_is_described(files_page, elsewhere):
    documented = re.findall(r"^\| (`[^|]+) \|", files_page, re.MULTILINE)
    patterns = [
        re.compile(re.escape(name).replace("NAME", r"graph\.(json|db)").replace("FIELD", r"[a-z.]+").replace("…", ".+"))
        for cell in documented
        for name in re.findall(r"`(\S+)`", cell)
    ]
    for name in ("graph.json", "graph.db"):
        with MemoryGraph(name, embedding_model="builtin") as memory:
            memory.add_many([f"Question {number}"] for number in range(1500))
            memory.similar("a question")
            assert_described(patterns)
            memory.export()
        assert_described(patterns)
    assert {"graph.json.journal", "graph.db.prompt.index", "graph.db.json"} <= set(os.listdir())


def assert_described(patterns):
    assert [name for name in os.listdir() if not any(pattern.fullmatch(name) for pattern in patterns)] == []


def test_the_schema_is_as_described(files_page, elsewhere):
    MemoryGraph("schema.db", embedding_model="builtin").close()
    section = files_page.partition("| Table | Column |")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`\w+`)? ?\| (`[^|]+) \|", section, re.MULTILINE)
    described, table = set(), ""
    for first, columns in rows:
        table = first.strip("`") or table
        described |= {(table, column) for column in re.findall(r"`(\w+)`", columns)}
    with contextlib.closing(sqlite3.connect("file:schema.db?mode=ro", uri=True)) as db:
        there = set(
            db.execute(
                "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c "
                "WHERE m.type = 'table' AND m.name != 'sqlite_sequence'"
            )
        )
        made = db.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql NOT NULL")
        indexes = {name for (name,) in made}
    assert described == there
    assert set(re.findall(r"`(\w+)`", files_page.partition("\nIndexes: ")[2].partition("\n")[0])) == indexes


def test_the_keys_of_the_json_files_are_as_described(files_page, elsewhere):
    memory = MemoryGraph("graph.json", embedding_model="builtin")
    memory.add_interaction({"id": "p1", "text": "one"}, {"id": "r1", "text": "two"})
    memory.update("p1", text="one more")
    memory.link("p1", "r1", "cites")
    with MemoryGraph("graph.json", namespace="work") as work:
        work.add_interaction("elsewhere")
    memory.add_interaction("three", "four")
    memory.unlink("p1", "r1", "cites")
    memory.forget("p1")
    quick = MemoryGraph("graph.json", durability="process")
    with quick._store.exclusive():  # so that they share a sync
        quick.add_interaction("five", "six")
        quick.add_interaction("seven", "eight")
    changes = [json.loads(line[9:]) for line in Path("graph.json.journal").read_text().splitlines()[1:]]
    memory.close()
    quick.close()
    graph = json.loads(Path("graph.json").read_text())
    header = json.loads(Path("graph.json.vectors.json").read_text())
    sections = dict(re.findall(r"^###? ([^\n]+)\n(.*?)(?=^###? )", files_page, re.MULTILINE | re.DOTALL))
    graph_keys = described_keys(sections["The graph"])
    assert set(graph) | set(graph["graph"]["raeburnmemory"]) | {"raeburnmemory_history"} == graph_keys
    assert {key for change in changes for key in change} | {"staged", "meta"} == described_keys(sections["The journal"])
    (description,) = header["fields"]["prompt"][:1]
    assert set(header) | set(description) == described_keys(sections["The vectors"])


def described_keys(section: str) -> set[str]:
    return {
        name for cell in re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }


# --- links, names, commands ------------------------------------------------------------------------------------


@every_page
def test_links_lead_somewhere(page):
    for text, target in re.findall(r"\[([^\]\n]+)\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.is_file(), f"{page.name}: [{text}]({target})"
        if anchor:
            assert anchor in anchors_of(other), f"{page.name}: [{text}]({target})"


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#{1,6} (.+)$", prose_of(page), re.MULTILINE)
    return {*map(slug, headings), *re.findall(r"^::: (\S+)", prose_of(page), re.MULTILINE)}


def slug(heading: str) -> str:
    """Return the anchor that Python-Markdown, and GitHub for such headings, make of a heading."""
    plain = unicodedata.normalize("NFKD", heading.replace("`", "")).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=[*NAMES, "CHANGELOG.md"])
def test_names_of_ours_exist(page):
    for name in re.findall(r"(?:`|^::: )(raeburnmemory(?:\.\w+)+)", page.read_text(encoding="utf-8"), re.MULTILINE):
        found, *rest = name.split(".")
        value, path = importlib.import_module(found), found
        for part in rest:
            path = f"{path}.{part}"
            try:
                if not hasattr(value, part):
                    assert importlib.util.find_spec(path) is not None, f"{page.name}: {name}"
                    if path == "raeburnmemory.cli":
                        pytest.importorskip("typer", reason="the command line needs typer")
                    if path == "raeburnmemory.langchain":
                        pytest.importorskip("langchain_core", reason="the LangChain door needs langchain-core")
                    if path == "raeburnmemory.mcp":
                        pytest.importorskip("mcp", reason="the MCP door needs mcp")
                    if path == "raeburnmemory.langgraph":
                        pytest.importorskip("langgraph", reason="the LangGraph door needs langgraph-checkpoint")
                    if path == "raeburnmemory.index.qdrant":
                        pytest.importorskip("qdrant_client", reason="the qdrant index needs qdrant-client")
                    importlib.import_module(path)
                value = getattr(value, part)
            except errors.MissingDependency as exc:  # of a module that others have imported already
                pytest.skip(str(exc))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=[*NAMES, "CHANGELOG.md"])
def test_nothing_is_left_to_do(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX|TBD|lorem ipsum)\b", text, re.IGNORECASE)
    assert not re.search(r"[ \t]+$", text, re.MULTILINE), "white space at the end of a line"


def section_of(name: str) -> str:
    """Return a table of pyproject.toml as text; Python 3.10 cannot parse it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return text.partition(f"\n[{name}]\n")[2].partition("\n[")[0]


def extras() -> set[str]:
    return set(re.findall(r"^([\w-]+) = \[", section_of("project.optional-dependencies"), re.MULTILINE))


def test_readme_commands_name_what_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for named in re.findall(r"(?:\.|raeburnmemory)\[([\w,-]+)\]'", text):
        assert set(named.split(",")) <= extras(), named
    listed = text.partition("## What is optional\n")[2].partition("\n## ")[0].partition("\n- ")[2]
    assert set(re.findall(r"`([\w-]+)`", listed)) == extras()
    for module in re.findall(r"python -m ([\w.]+)", text):
        if module.partition(".")[0] in {"benchmarks", "raeburnmemory"}:
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    assert ".venv/bin/raeburnmemory demo" in text
    assert section_of("project.scripts").startswith("raeburnmemory = ")
    assert "demo" in commands()


def test_readme_names_the_core_dependencies():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    sentence = text.partition("`pip install .` brings ")[2].partition(".")[0]
    listed = section_of("project").partition("\ndependencies = [")[2].partition("\n]")[0]
    required = set(re.findall(r'^ +"([\w-]+)', listed, re.MULTILINE))
    assert set(re.split(r", | and | or ", sentence)) == required


def test_requirements_are_the_test_environment():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["-e .[test]"]
    assert "test" in extras()


def test_the_tests_that_a_page_names_are_there():
    for name in ("durability", "security"):
        page = (ROOT / "docs" / "explanation" / f"{name}.md").read_text(encoding="utf-8")
        named = set(re.findall(r"`(?:tests/)?((?:doors/|hub/|service/)?test_\w+)`", page))
        assert len(named) > 10
        assert [test for test in named if not (ROOT / "tests" / f"{test}.py").is_file()] == []


def test_the_schema_of_an_export_is_as_described():
    from raeburnmemory.exporters import schema

    page = (ROOT / "docs" / "reference" / "export-format.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (`[^|]+) \|", page.partition("| `record` |")[2], re.MULTILINE))
    told = {record: set(re.findall(r"`(\w+)`", keys)) for record, keys in list(rows.items())[:6]}
    records = {name: found["properties"] for name, found in schema()["$defs"].items() if "properties" in found}
    assert told == {name: set(properties) - {"record"} for name, properties in records.items()}
    assert {properties["record"]["const"] for properties in records.values()} == set(told)


# --- the site ---------------------------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": (\S+\.md)$", config.partition("\nnav:\n")[2], re.MULTILINE))
    notebooks = [path.with_suffix(".md") for path in (ROOT / "docs").rglob("*.ipynb")]  # as the site shows them
    pages = [page for page in PAGES if page not in FRONT]
    assert listed == {page.relative_to(ROOT / "docs").as_posix() for page in [*pages, *notebooks]}


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    for module in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(module, reason="building the site needs the extra 'docs'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= len(PAGES) - len(FRONT)
    for path in pages:
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"?(https?:[^\" >]+)", text)
        loaded += re.findall(r"<link[^>]+rel=\"?stylesheet\"?[^>]+href=\"?(https?:[^\" >]+)", text)
        assert loaded == [], path.name
    api = (tmp_path / "reference" / "api" / "index.html").read_text(encoding="utf-8")
    assert 'id="raeburnmemory.MemoryGraph.get_similar_prompts"' in api


def test_the_weights_of_recall_are_those_of_the_table():
    page = (ROOT / "docs" / "explanation" / "recall.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`: .* \| (\w+) \| (\S*) ?\| (\S*) ?\| (\S*) ?\|$", page, re.MULTILINE)
    kinds = ("people", "chat", "lone")
    told = {
        kind: {name: abs(float(cells[at])) for name, _, *cells in rows if cells[at]} for at, kind in enumerate(kinds)
    }
    assert told == Weights().to_dict()
    assert [(name, leg) for name, leg, *_ in rows] == [(name, observed.leg) for name, observed in OBSERVED.items()]
    signs = {name: {float(cell) < 0 for cell in cells if cell} for name, _, *cells in rows}
    assert signs == {name: {observed.sign < 0} for name, observed in OBSERVED.items()}
