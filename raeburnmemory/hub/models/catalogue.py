"""Which models there are to be had: those that are packaged, and those that were added to a folder."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from .errors import InvalidSpec, UnknownModel
from .spec import ModelSpec
from .store import write_json

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from pathlib import Path

    from .store import ModelFolder

__all__ = ["Catalogue", "packaged", "read_specs"]

_FORMAT = 1  # of the JSON file


def packaged() -> list[ModelSpec]:
    """Return the models that this package knows of."""
    text = resources.files(__package__).joinpath("catalogue.json").read_text(encoding="utf-8")
    return _parsed(text, "The packaged catalogue")


def read_specs(path: str | os.PathLike[str]) -> list[ModelSpec]:
    """Return the models that a JSON file lists.

    Raises:
        InvalidSpec: It is no such file.
    """
    with open(path, encoding="utf-8") as file:
        return _parsed(file.read(), repr(str(path)))


def _parsed(text: str, what: str) -> list[ModelSpec]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidSpec(f"{what} is no JSON: {exc}.", remedy="Mend it, or put it aside.") from exc
    models: Any = data.get("models") if isinstance(data, dict) else None
    if not isinstance(models, list):
        raise InvalidSpec(f"{what} has no list of 'models'.", remedy='Write it as {"format": 1, "models": […]}.')
    if data.get("format") != _FORMAT:
        raise InvalidSpec(f"{what} has the format {data.get('format')!r}; this version reads {_FORMAT}.")
    return _distinct([ModelSpec.from_dict(each) for each in models])


def _distinct(specs: list[ModelSpec]) -> list[ModelSpec]:
    names: dict[str, ModelSpec] = {}
    files: dict[str, ModelSpec] = {}
    for spec in specs:
        if spec.name in names:
            raise InvalidSpec(f"Two models are called {spec.name!r}.", model=spec.name)
        if (other := files.get(spec.filename)) is not None:
            raise InvalidSpec(
                f"The models {other.name!r} and {spec.name!r} have one file name, {spec.filename!r}.", model=spec.name
            )
        names[spec.name] = files[spec.filename] = spec
    return specs


class Catalogue:
    """The models known in a folder: the packaged ones, or those given instead, and those added there.

    What was added wins over a packaged model of the same name. Others may add at the same time: it is read anew
    whenever its file changed.
    """

    def __init__(self, folder: ModelFolder, given: Iterable[ModelSpec] | None = None) -> None:
        self._folder = folder
        self._given = packaged() if given is None else _distinct(list(given))
        self._file: Path = folder.control / "catalogue.json"
        self._seen: tuple[int, int, int] | None = None
        self._added: list[ModelSpec] = []

    def added(self) -> list[ModelSpec]:
        """Return the models that were added to the folder, oldest first."""
        try:
            found = self._file.stat()
        except FileNotFoundError:
            self._seen, self._added = None, []
            return []
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            self._added = read_specs(self._file)
            self._seen = seen
        return list(self._added)

    def all(self) -> dict[str, ModelSpec]:
        """Return all models by their names."""
        return {spec.name: spec for spec in [*self._given, *self.added()]}

    def get(self, name: str) -> ModelSpec:
        """Return the model of that name.

        Raises:
            UnknownModel: There is none.
        """
        known = self.all()
        if name not in known:
            some = ", ".join(sorted(known)[:8]) + (", …" if len(known) > 8 else "")
            raise UnknownModel(
                f"No model is called {name!r}.",
                model=str(name),
                remedy=f"Known are: {some}." if some else "Add one with add(), or bring one in with import_file().",
            )
        return known[name]

    def add(self, spec: ModelSpec, *, replace: bool = False) -> None:
        """Add *spec*; the same one twice is once.

        Raises:
            InvalidSpec: Another one has the name (unless *replace*) or the file name.
            StoreLocked: Another process adds one just now.
        """
        with self._folder.working_on("catalogue", timeout=10.0):
            known = self.all()
            other = known.get(spec.name)
            if other == spec:
                return
            if other is not None and not replace:
                raise InvalidSpec(
                    f"There is a model {spec.name!r} already, and it is another one.",
                    model=spec.name,
                    remedy="Choose another name, or pass replace=True.",
                )
            _distinct([*(each for each in known.values() if each.name != spec.name), spec])
            self._write([*(each for each in self.added() if each.name != spec.name), spec])

    def take_out(self, name: str) -> bool:
        """Take a model that was added out again; False if it was not added here."""
        with self._folder.working_on("catalogue", timeout=10.0):
            kept = [each for each in self.added() if each.name != name]
            if len(kept) == len(self.added()):
                return False
            self._write(kept)
            return True

    def _write(self, specs: list[ModelSpec]) -> None:
        self._folder.make()
        write_json(self._file, {"format": _FORMAT, "models": [spec.to_dict() for spec in specs]})
