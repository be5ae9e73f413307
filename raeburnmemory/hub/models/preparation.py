"""What is run for a model: the program, the weights for it, the settings that they ask for, a file with the key."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from . import formats, gguf
from .errors import InvalidSpec, PlatformUnsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .dialect import Settings, Traits
    from .running import Launch

__all__ = ["key_file", "key_for", "program_of", "settings_for"]

_CONTEXT = 8192  # tokens of an embedding model's context at most, unless one is named: memory grows with it


def program_of(job: Launch) -> tuple[str, str | None, formats.Magic]:
    """Return the program, the weights for it if it has none in it, and what the program is.

    Raises:
        LlamafileError: As `check_runnable` does, and if the file is not as long as the one that was checked.
        PlatformUnsupported: Bare weights, and no program for them.
    """
    file, name = job.file, job.file.spec.name
    magic = formats.check_runnable(file.path, model=name)
    if (size := os.stat(file.path).st_size) != file.size:
        raise InvalidSpec(
            f"{file.path!r} has {size} bytes, and had {file.size} when it was checked.", model=name, remedy="Verify it."
        )
    if magic != "gguf":
        return file.path, None, magic
    if not job.runtime:
        raise PlatformUnsupported(
            f"Model {name!r} is a GGUF file, which has no server in it.",
            model=name,
            remedy="Name one with runtime=: a llamafile without weights, or llama-server.",
        )
    program = os.path.abspath(os.path.expanduser(job.runtime))
    magic = formats.check_runnable(program, model=name)
    if magic == "gguf":
        raise InvalidSpec(f"The runtime {program!r} is itself a GGUF file.", model=name)
    return program, file.path, magic


def settings_for(job: Launch, traits: Traits, weights: str | None) -> Settings:
    """Return the settings of *job* with what the dialect and the weights ask for."""
    name = job.file.spec.name
    # Where no key tells who answers, a name that nobody else has does.
    alias = {"llama-server": name, "v1": f"{name}-{secrets.token_hex(4)}", "v2": ""}[traits.dialect]
    settings = replace(job.settings, args=(*job.file.spec.args, *job.settings.args), alias=alias)
    if settings.kind == "embedding" and weights is not None:
        header = gguf.check_gguf(weights, model=name)
        if settings.context is None and header.context:
            settings = replace(settings, context=min(header.context, _CONTEXT))
        if settings.pooling is None and not header.pools:
            settings = replace(settings, pooling="mean")
    return settings


def key_for(job: Launch, traits: Traits) -> str | None:
    """Return the key that the server is to ask for: a new one for `"auto"`.

    Raises:
        PlatformUnsupported: One was named, and the dialect has none.
    """
    if not traits.has_key:
        if job.key not in {"auto", None}:
            name = job.file.spec.name
            raise PlatformUnsupported(
                f"The server of model {name!r} has no API key.", model=name, remedy="Leave the key out."
            )
        return None
    return secrets.token_urlsafe(32) if job.key == "auto" else job.key


@contextlib.contextmanager
def key_file(path: str, key: str | None) -> Iterator[str | None]:
    """Lend the server a file with the key, at *path*: its arguments are shown to all users of the machine."""
    if key is None:
        yield None
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(f"{key}\n")
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
