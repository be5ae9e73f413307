"""Plugins: what other distributions add to the hub, by entry points of the group `raeburnmemory.hub`.

An entry point names an object, a module or a class that is called without arguments. What it has of these is used:

- `capture(given)`: what was sent to be kept, as a dict, before it is; returns another dict, or None for the same;
- `loads`, pairs of a type and an extension, and `loader(source)`: reads documents of these types, as
  `raeburnmemory.hub.documents.register_loader` wants it;
- `chunker(document)`: returns the parts of a document as `raeburnmemory.hub.chunking.Part`, or None for one that it
  leaves to others;
- `retriever(question, k)`: returns texts, or dicts with `text` and perhaps `title` and `uri`, that go along with a
  chat completion beside what the memory holds;
- `prompt(messages)`: the messages of a model, as they are about to be sent; returns others, or None for the same.

A plugin runs in the hub's process, with the hub's rights. One that fails is named in the log, in `/api/v1/info` and in
the report of what was done, and what it was asked for is done without it. One that hangs holds up what it was asked
for.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...nodes import MEMORY, Node
from ..chunking import register_chunker
from ..chunking.chunks import chosen
from ..chunking.model import Part
from ..documents import register_loader
from ..documents.errors import LoaderError, UnsupportedType
from ..documents.parsing import parse
from ..documents.registry import is_text, loader_of
from ..documents.source import Loaded

if TYPE_CHECKING:
    from ..documents.model import Document
    from ..documents.source import Source

__all__ = ["GROUP", "HOOKS", "Failure", "Plugin", "Plugins"]

GROUP = "raeburnmemory.hub"
HOOKS = ("capture", "loader", "chunker", "retriever", "prompt")

log = logging.getLogger("raeburnmemory.hub")


@dataclass(frozen=True)
class Failure:
    """What a plugin failed in, and with what."""

    plugin: str
    hook: str
    error: str

    def __str__(self) -> str:
        return f"The plugin {self.plugin!r} failed in {self.hook}, and was done without: {self.error}"


@dataclass
class Plugin:
    """A plugin, the distribution that brought it, and how often it failed."""

    name: str
    value: Any = field(default=None, repr=False)
    distribution: str = ""
    version: str = ""
    failures: int = 0
    last_error: str | None = None

    @property
    def hooks(self) -> list[str]:
        """The hooks that it has."""
        return [name for name in HOOKS if callable(getattr(self.value, name, None))]

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "hooks": self.hooks,
            "failures": self.failures,
            "last_error": self.last_error,
        }


_failures: ContextVar[list[Failure] | None] = ContextVar("raeburnmemory_plugin_failures", default=None)


class Plugins:
    """The plugins of a hub, in the order of their names. Nothing that one of them does reaches whoever asks."""

    def __init__(self, plugins: Iterable[Plugin] = ()) -> None:
        self.list = sorted(plugins, key=lambda plugin: plugin.name)
        self._lock = threading.Lock()
        for plugin in self._with("loader"):
            self._register(plugin)
        self.chunker = "auto"
        if found := self._with("chunker"):
            # The name is part of what documents are known by: with other plugins they are cut anew.
            self.chunker = "plugins " + ", ".join(f"{one.name} {one.version}" for one in found)
            register_chunker(self.chunker, self._parts)

    @classmethod
    def installed(cls) -> Plugins:
        """Return the plugins of all distributions that are installed; one that cannot be loaded has failed."""
        plugins, failures = [], []
        for entry in importlib.metadata.entry_points(group=GROUP):
            about = entry.dist
            plugin = Plugin(entry.name, None, about.name if about else "", about.version if about else "")
            try:
                value = entry.load()
                plugin.value = value() if isinstance(value, type) else value
            except Exception as exc:  # noqa: BLE001 - whatever a plugin does, the hub starts
                failures.append((plugin, exc))
            plugins.append(plugin)
        made = cls(plugins)
        for plugin, failure in failures:
            made._failed(plugin, "loading", failure)
        return made

    def to_list(self) -> list[dict[str, Any]]:
        """Return them as JSON objects."""
        return [plugin.to_dict() for plugin in self.list]

    @staticmethod
    @contextlib.contextmanager
    def watched() -> Iterator[list[Failure]]:
        """Give a list that holds what failed within the block, in this thread and those that it waits for."""
        found: list[Failure] = []
        token = _failures.set(found)
        try:
            yield found
        finally:
            _failures.reset(token)

    # --- hooks --------------------------------------------------------------------------------------------------

    def captured(self, given: dict[str, Any], check: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Return what is to be kept of what was sent; *check* raises for what cannot be."""
        for plugin in self._with("capture"):

            def changed(one: Plugin = plugin, now: dict[str, Any] = given) -> dict[str, Any]:
                found = one.value.capture(dict(now))
                if found is not None:
                    check(found)
                return now if found is None else dict(found)

            given = self._done(plugin, "capture", changed, given)
        return given

    def retrieved(self, question: str, k: int) -> list[Node]:
        """Return the texts that plugins have for a question, as nodes that are in no memory."""
        found: list[Node] = []
        for plugin in self._with("retriever"):

            def nodes(one: Plugin = plugin) -> list[Node]:
                return [_node(one, number, text) for number, text in enumerate(one.value.retriever(question, k) or ())]

            found += self._done(plugin, "retriever", nodes, [])
        return found

    def prompt(self, messages: list[Any]) -> list[Any] | None:
        """Return the messages that are sent instead of *messages*; None for the same."""
        result: list[Any] | None = None
        for plugin in self._with("prompt"):

            def changed(one: Plugin = plugin, now: list[Any] | None = result) -> list[Any] | None:
                found = one.value.prompt([dict(each) for each in (messages if now is None else now)])
                if found is None:
                    return now
                found = list(found)
                if not found or not all(isinstance(each, Mapping) for each in found):
                    raise TypeError(f"it returned {found!r:.100} for messages")
                return found

            result = self._done(plugin, "prompt", changed, result)
        return result

    def _parts(self, document: Document) -> list[Part]:
        found: list[Part] | None
        for plugin in self._with("chunker"):

            def parts(one: Plugin = plugin) -> list[Part] | None:
                found = one.value.chunker(document)
                return None if found is None else [_checked(part, document) for part in found]

            found = self._done(plugin, "chunker", parts, None)
            if found is not None:
                return found
        return chosen(document)

    def _register(self, plugin: Plugin) -> None:
        def read(source: Source) -> Loaded | str:
            def loaded() -> Loaded | str:
                found = plugin.value.loader(source)
                if not isinstance(found, (str, Loaded)):
                    raise TypeError(f"it returned {type(found).__name__}, which is no document")
                return found

            before = plugin.failures
            found: Loaded | str | None = self._done(plugin, "loader", loaded, None)
            if found is not None:
                return found
            try:
                return loader_of(source.mime)(source) if is_text(source.mime) else parse(source)
            except UnsupportedType:
                raise LoaderError(
                    f"The plugin {plugin.name!r} could not read it ({plugin.last_error}), and nothing else can.",
                    remedy="See the log of the hub." if plugin.failures > before else "",
                ) from None

        def register() -> None:
            for mime, extension in plugin.value.loads:
                register_loader(mime, extension, read)

        self._done(plugin, "loads", register, None)

    # --- one plugin ---------------------------------------------------------------------------------------------

    def _with(self, hook: str) -> list[Plugin]:
        return [plugin for plugin in self.list if hook in plugin.hooks]

    def _done(self, plugin: Plugin, hook: str, work: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return work()
        except Exception as exc:  # noqa: BLE001 - whatever a plugin does, what was asked for goes on
            self._failed(plugin, hook, exc)
            return otherwise

    def _failed(self, plugin: Plugin, hook: str, exc: Exception) -> None:
        said = " ".join(f"{type(exc).__name__}: {exc}".split())[:500]
        failure = Failure(plugin.name, hook, said)
        with self._lock:
            plugin.failures += 1
            plugin.last_error = f"{hook}: {said}"
        if (told := _failures.get()) is not None and failure not in told:
            told.append(failure)
        log.warning("%s", failure)


def _node(plugin: Plugin, number: int, given: Any) -> Node:
    about: Mapping[str, Any] = {"text": given} if isinstance(given, str) else given
    text = about["text"]
    if not isinstance(text, str):
        raise TypeError(f"it returned {type(text).__name__} for a text")
    told = {name: str(about[name]) for name in ("title", "uri") if about.get(name)}
    return Node(f"plugin:{plugin.name}:{number}", MEMORY, text, told)


def _checked(part: Any, document: Document) -> Part:
    if not isinstance(part, Part) or not 0 <= part.start < part.end <= len(document.text):
        raise ValueError(f"{part!r:.100} is no part of a text of {len(document.text)} characters")
    return part
