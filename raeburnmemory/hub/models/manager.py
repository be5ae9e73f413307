"""The façade over local models: their files, their processes, and talking to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .catalogue import Catalogue
from .files import ModelFiles
from .spec import ModelSpec, ModelStatus
from .store import ModelFolder

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

__all__ = ["LlamafileManager"]


class LlamafileManager:
    """Finds, downloads, checks, runs and stops models in *store_dir*, and talks to them.

    *store_dir* is by default the folder that `LLAMAFILES_DIR` names, or else a folder of the user's. *catalogue* takes
    the place of the packaged models. Several managers, in several processes, may share a folder: on one model works one
    of them at a time, and all of them see how it stands.
    """

    def __init__(
        self,
        store_dir: str | os.PathLike[str] | None = None,
        *,
        catalogue: Iterable[ModelSpec] | None = None,
    ) -> None:
        self.folder = ModelFolder(store_dir)
        self._catalogue = Catalogue(self.folder, catalogue)
        self.files = ModelFiles(self.folder, self._catalogue)

    def __enter__(self) -> LlamafileManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- which models there are

    def catalogue(self) -> list[ModelSpec]:
        """Return the models that are known: the packaged ones, and those added to the folder."""
        return list(self._catalogue.all().values())

    def add(self, spec: ModelSpec, *, replace: bool = False) -> None:
        """Add a model to the catalogue of the folder; the same one twice is once.

        Raises:
            InvalidSpec: Another model has its name (unless *replace*) or its file name.
        """
        self._catalogue.add(spec, replace=replace)

    def list(self) -> list[ModelSpec]:
        """Return the models whose files are in the folder, those put there by hand included."""
        return self.files.present()

    def status(self, name: str) -> ModelStatus:
        """Say how it stands with a model: its file, and its process.

        Raises:
            UnknownModel: There is none of that name.
        """
        return self.files.status(name)

    def close(self) -> None:
        """End what belongs to this manager."""
        self.files.close()
        self.folder.close()
