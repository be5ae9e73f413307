"""The command that runs the hub."""

from __future__ import annotations

import contextlib
import os
import webbrowser
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._target import Target, option
from ._terminal import print_text, tell
from .errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .hub.server.pages import Pages
    from .memory_graph import MemoryGraph

__all__ = ["register"]

_TOKEN, _HOSTS = "RAEBURN_HUB_TOKEN", "RAEBURN_ALLOWED_HOSTS"
_CODE_MINUTES = 1440.0  # that the first address is good for
_LEAST_TOKEN = 20  # letters


def hub(
    ctx: typer.Context,
    host: Annotated[
        str, option("The address to answer at; one beyond this machine needs a token.", envvar="RAEBURN_HUB_HOST")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, option("The port.", envvar="RAEBURN_HUB_PORT", min=0, max=65_535, show_default="4444")
    ] = None,
    home: Annotated[
        str | None,
        option("The folder of what the hub keeps.", envvar="RAEBURN_HUB_HOME", metavar="PATH", show_default="yours"),
    ] = None,
    browser: Annotated[bool, option("Open a browser at the start, or print the address only.")] = True,
    file_store_path: Annotated[
        str | None, option("The folder of uploads and summaries.", metavar="PATH", show_default="HOME/files")
    ] = None,
    llamafile_store_path: Annotated[
        str | None, option("The folder of the models; before LLAMAFILES_DIR.", metavar="PATH")
    ] = None,
    sqlite_db_path: Annotated[
        str | None, option("The memory; --db if left out.", metavar="PATH", show_default="HOME/memory.db")
    ] = None,
    chroma_db_path: Annotated[str | None, option("Of the original; there is no such database.", hidden=True)] = None,
    completions_url: Annotated[
        str | None,
        option(
            "A server to ask instead of a local model, such as http://127.0.0.1:8888/v1; its key is OPENAI_API_KEY.",
            envvar="RAEBURN_HUB_COMPLETIONS_URL",
            metavar="URL",
        ),
    ] = None,
    completions_model: Annotated[
        str | None, option("Its model.", envvar="RAEBURN_HUB_COMPLETIONS_MODEL", metavar="NAME")
    ] = None,
    memory_budget: Annotated[
        int,
        option(
            "Tokens of the memory that go along with a chat completion; 0 for none.",
            envvar="RAEBURN_HUB_MEMORY_BUDGET",
            metavar="TOKENS",
            min=0,
            max=100_000,
        ),
    ] = 500,
    embedding_model: Annotated[str | None, option("The embedding model, for a new memory.", metavar="NAME")] = None,
    embedding_device: Annotated[str, option("Where it computes: cpu or cuda.")] = "cpu",
    _normalize: Annotated[
        bool, option("Of the original: vectors have the length 1 here.", "--normalize-embeddings", hidden=True)
    ] = False,
    client_path: Annotated[
        str | None, option("The folder of a browser client.", envvar="RAEBURN_HUB_CLIENT_PATH", metavar="PATH")
    ] = None,
    trust_origin: Annotated[
        list[str] | None,
        option("A page that may use the original's calls without a token; may be repeated.", metavar="ORIGIN"),
    ] = None,
    legacy_open: Annotated[
        bool, option("Let programs of this machine use the original's calls without a token.", "--legacy-open")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        option("A host of this network that pages may be fetched from; may be repeated.", metavar="HOST"),
    ] = None,
    idle_timeout: Annotated[
        float | None, option("Seconds after which a model that nobody asks is stopped.", min=1, show_default="never")
    ] = None,
    plugins: Annotated[bool, option("Use the plugins that are installed, or none.")] = True,
    selftest: Annotated[
        bool, option("Do one of everything on a temporary folder, say what was done, and end.", "--selftest")
    ] = False,
    new_code: Annotated[
        bool, option("Print an address that lets one more browser in, and a code for pairing, and end.", "--new-code")
    ] = False,
) -> None:
    """Run the hub: local models, documents, search and chat for the browser client, extensions and other programs.

    It prints an address that lets one browser in, once, and opens it. Ctrl-C ends it, and the models with it.

    [bold]Examples[/bold]

      raeburnmemory hub
      raeburnmemory hub --no-browser --port 4500
      raeburnmemory hub --new-code
      raeburnmemory hub --no-browser --selftest
    """
    from .hub.errors import NotThere
    from .hub.server.credentials import Credentials
    from .hub.server.running import PORT, access_file, address_of, default_home, entrance

    place = os.path.abspath(os.path.expanduser(home)) if home else str(default_home())
    credentials = Credentials(access_file(place))
    if new_code:
        address = address_of(place)
        if address is None:
            raise NotThere(f"No hub runs on {place!r}.", remedy="Start one: raeburnmemory hub")
        print_text(f"Open, once:   {entrance(credentials, address, 10.0)}")
        print_text(f"Or pair with: {credentials.new_code(('read', 'write'))}")
        return
    if chroma_db_path is not None:
        raise InvalidInput("--chroma-db-path has no meaning here: the memory holds the fragments. Leave it out; sync.")
    if embedding_device not in {"cpu", "cuda"}:
        raise InvalidInput(f"--embedding-device is cpu or cuda, not {embedding_device!r}.")
    if selftest:
        _selftest(
            pages=client_path,
            completions_url=completions_url,
            completions_model=completions_model,
            embedder=_embedder(embedding_model or "builtin", embedding_device),
            plugins=plugins,
        )
        return
    number = PORT if port is None else port
    if client_path is not None and number != PORT:
        raise InvalidInput(f"A client that was built elsewhere asks port {PORT}, so --client-path needs that port.")
    target: Target = ctx.obj
    chosen = sqlite_db_path or (target.db if target.db is not None else os.path.join(place, "memory.db"))
    _run(
        Target(chosen, target.namespace, target.timeout, by_option=True),
        place,
        credentials,
        host=host,
        port=number,
        browser=browser,
        pages=client_path,
        embedder=_embedder(embedding_model, embedding_device),
        manager={"store_dir": llamafile_store_path, "idle_timeout": idle_timeout},
        hub={
            "files": file_store_path,
            "completions_url": completions_url,
            "completions_model": completions_model,
            "memory_budget": memory_budget,
            "plugins": plugins,
            "allow_host": allow_host or (),
        },
        trust_origin=trust_origin or (),
        legacy_open=legacy_open,
    )


def _run(
    target: Target,
    home: str,
    credentials: Any,
    *,
    host: str,
    port: int,
    browser: bool,
    pages: str | None,
    embedder: dict[str, Any],
    manager: dict[str, Any],
    hub: dict[str, Any],
    trust_origin: Any,
    legacy_open: bool,
) -> None:
    from .hub.models.manager import LlamafileManager
    from .hub.server import Access, Hub, create_app
    from .hub.server.plugins import Plugins
    from .hub.server.running import alone, checked_origin, entrance, is_local, listening, serve
    from .hub.web_pages import UrlPolicy

    fixed = os.environ.pop(_TOKEN, None)  # models are started from here, and need not know it
    _check_token(fixed, host)
    trusted = frozenset(checked_origin(one) for one in [*trust_origin, *_listed("RAEBURN_HUB_ORIGINS")])
    client = _pages(pages)
    policy = UrlPolicy(allow_hosts=tuple(hub.pop("allow_host")))
    hub["plugins"] = Plugins.installed() if hub["plugins"] else Plugins()
    with contextlib.ExitStack() as stack:
        told = stack.enter_context(alone(home))
        sockets = listening(host, port)
        for each in sockets:
            stack.callback(each.close)
        number = sockets[0].getsockname()[1]
        memory: MemoryGraph = stack.enter_context(_opened(target, embedder))
        made = Hub(memory, LlamafileManager(**manager), home, url_policy=policy, **hub)
        stack.callback(made.close)
        access = Access(credentials, number, trusted=trusted, legacy_open=legacy_open, fixed=fixed)
        app = create_app(made, access, client, hosts=frozenset(_listed(_HOSTS)), start=made.jobs.resume)
        address = f"http://localhost:{number}"
        told(address)
        for origin in sorted(trusted):
            tell("Note", f"{origin} may use the original's calls without a token.")
        if legacy_open:
            tell("Note", "Any program of this machine may use the original's calls without a token.")
        opened = entrance(credentials, address, _CODE_MINUTES)
        print_text(f"The hub runs at {address}")
        print_text(f"Open, once: {opened}")
        if browser and is_local(host):
            webbrowser.open(opened)
        serve(app, sockets, made.events)


def _selftest(*, pages: str | None, plugins: bool, **given: Any) -> None:
    from .hub.server.plugins import Plugins
    from .hub.server.selftest import Failed, selftest

    def say(name: str, done: str) -> None:
        print_text(f"ok      {name}: {done}")

    try:
        selftest(say, pages=_pages(pages), plugins=Plugins.installed() if plugins else None, **given)
    except Failed as exc:
        print_text(f"failed  {exc}")
        raise typer.Exit(1) from exc
    print_text("All of it works.")


def _pages(folder: str | None) -> Pages:
    from pathlib import Path

    from .hub.server.pages import Pages

    if folder is not None:
        return Pages(folder, foreign=True)
    packaged = Path(__file__).parent / "hub" / "client"
    return Pages(packaged if (packaged / "index.html").is_file() else None)


@contextlib.contextmanager
def _opened(target: Target, embedder: dict[str, Any]) -> Iterator[MemoryGraph]:
    if "://" not in target.path:
        os.makedirs(os.path.dirname(os.path.abspath(os.path.expanduser(target.path))), exist_ok=True)
    with target.open(**embedder) as memory:
        yield memory


def _embedder(model: str | None, device: str) -> dict[str, Any]:
    """Return what opens a memory with a model and a device."""
    if device == "cpu":
        return {} if model is None else {"embedding_model": model}
    from .embed.sentence_transformers import SentenceTransformersEmbedder

    return {"embedding_model": SentenceTransformersEmbedder(model or "all-MiniLM-L6-v2", device=device)}


def _listed(name: str) -> list[str]:
    return [part.strip().lower() for part in os.environ.get(name, "").split(",") if part.strip()]


def _check_token(token: str | None, host: str) -> None:
    from .hub.server.running import is_local

    if token is not None and (len(token) < _LEAST_TOKEN or not token.isprintable() or " " in token):
        raise InvalidInput(
            f"{_TOKEN} is shorter than {_LEAST_TOKEN} letters, or has spaces. Set it to a long random text."
        )
    if not is_local(host) and token is None:
        raise InvalidInput(
            f"--host {host} lets others than this machine in, so it needs a token: set {_TOKEN} to a long random text, "
            f"and the names that it is asked under in {_HOSTS}."
        )


def register(app: typer.Typer, panel: str) -> None:
    """Add the command to *app*."""
    app.command(rich_help_panel=panel)(hub)
