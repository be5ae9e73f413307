"""The files of the models in a folder: which are there, whether they are whole, bringing them in, taking them out."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from .errors import (
    ChecksumMismatch,
    InsufficientDisk,
    InvalidSpec,
    NotDownloaded,
    SizeMismatch,
    UnknownModel,
    UnsafePath,
)
from .inspect_file import checked_beginning, digest_of, magic_of, open_file
from .spec import ModelSpec, ModelStatus, RunnableFile, checked_name
from .store import FULL, sync_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from .catalogue import Catalogue
    from .store import ModelFolder

__all__ = ["ModelFiles"]

_ENDINGS: dict[str, Literal["llamafile", "gguf"]] = {".llamafile": "llamafile", ".gguf": "gguf"}


class ModelFiles:
    """The files of the models in *folder*."""

    def __init__(self, folder: ModelFolder, catalogue: Catalogue) -> None:
        self.folder = folder
        self.catalogue = catalogue

    # --- which are there

    def spec(self, name: str) -> ModelSpec:
        """Return what is known about a model: of the catalogue, or of a file that was put into the folder by hand.

        Raises:
            UnknownModel: There is none of that name.
        """
        try:
            return self.catalogue.get(name)
        except UnknownModel:
            for spec in self._by_hand():
                if spec.name == name:
                    return spec
            raise

    def _by_hand(self) -> list[ModelSpec]:
        """Return a description of each model that lies in the folder and in no catalogue, named by its file."""
        try:
            names = sorted(os.listdir(self.folder.root))
        except (FileNotFoundError, NotADirectoryError):
            return []
        known = self.catalogue.all()
        taken = {spec.filename for spec in known.values()}
        found = []
        for filename in names:
            stem, ending = os.path.splitext(filename)
            if ending in _ENDINGS and filename not in taken and stem not in known:
                with contextlib.suppress(InvalidSpec):  # such a name could not be asked for
                    found.append(ModelSpec(stem, filename, format=_ENDINGS[ending]))
        return found

    def known(self) -> list[ModelSpec]:
        """Return all models: of the catalogue, and those put into the folder by hand."""
        return [*self.catalogue.all().values(), *self._by_hand()]

    def present(self) -> list[ModelSpec]:
        """Return those models whose files are in the folder."""
        return [spec for spec in self.known() if self.folder.file(spec.filename).exists()]

    def path(self, name: str) -> Path:
        """Return where the whole file of a model lies.

        Raises:
            UnknownModel: There is none of that name.
            NotDownloaded: The file is not there, or not whole yet.
        """
        spec = self.spec(name)
        path = self.folder.file(spec.filename)
        if not path.exists():
            raise _not_there(spec, self.folder)
        return path

    def status(self, name: str) -> ModelStatus:
        """Say how it stands with the file of a model, whoever works on it.

        Raises:
            UnknownModel: There is none of that name.
        """
        spec = self.spec(name)
        path = self.folder.file(spec.filename)
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            record = self._record(spec, found)
            verified = record.get("verified")
            return ModelStatus(
                name,
                file_state="corrupt" if verified is False else "ready",
                bytes_done=found.st_size,
                bytes_total=found.st_size,
                sha256_verified=verified,
                last_error=record.get("error"),
            )
        sidecar = self.sidecar(spec)
        with contextlib.suppress(FileNotFoundError):
            done = self.folder.partial(spec.filename).stat().st_size
            error = sidecar.get("error")
            if self.folder.worked_on(name):
                state = "verifying" if sidecar.get("verifying") else "downloading"
            else:
                state = "paused" if error is None else "failed"
            total = sidecar.get("size") or spec.size
            return ModelStatus(name, file_state=state, bytes_done=done, bytes_total=total, last_error=error)  # type: ignore[arg-type]
        if sidecar.get("error") is not None:
            return ModelStatus(name, file_state="failed", bytes_total=spec.size, last_error=sidecar["error"])
        return ModelStatus(name, bytes_total=spec.size)

    def sidecar(self, spec: ModelSpec) -> dict[str, Any]:
        """Return what is written down about the download of a model; empty where there is nothing, or nonsense."""
        return _read_object(self.folder.sidecar(spec.filename))

    def discard_partial(self, spec: ModelSpec) -> None:
        """Remove what there is of a file that is not whole."""
        with self.folder.working_on(spec.name):
            for path in (self.folder.partial(spec.filename), self.folder.sidecar(spec.filename)):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    # --- whether they are whole

    def verify(
        self, name: str, *, timeout: float = 0.5, progress: Callable[[int, int], None] | None = None
    ) -> ModelStatus:
        """Read the whole file of a model, and compare it with the size and the digest that are known of it.

        Raises:
            ChecksumMismatch: It has another digest; the file stays where it is, and is not run.
            InvalidSpec: It is no file of a model.
            NotDownloaded: It is not there.
            SizeMismatch: It has another length.
            StoreLocked: Somebody else works on it.
        """
        spec = self.spec(name)
        with self.folder.working_on(name, timeout), self._opened(spec) as file:
            self._checked(spec, file, progress)
        return self.status(name)

    def runnable(self, name: str) -> RunnableFile:
        """Return the file of a model to be run: checked, and so that nobody can put another one in its place.

        A file that was read before and has not changed since is not read again. The path is another name, in a folder
        that its owner alone may enter, of the very inode that was checked.

        Raises:
            ChecksumMismatch: It has another digest than the one that is known.
            NotDownloaded: It is not there.
            UnsafePath: It could be exchanged by somebody else on this machine.
        """
        spec = self.spec(name)
        with self.folder.working_on(name, 60.0), self._opened(spec) as file:
            found = os.fstat(file.fileno())
            record = self._record(spec, found)
            if record.get("verified") is False or "sha256" not in record:
                record = self._checked(spec, file, None)
            programs = spec.format == "llamafile" and hasattr(os, "fchmod")
            if programs and not found.st_mode & stat.S_IXUSR and not record.get("linked"):
                os.fchmod(file.fileno(), found.st_mode | stat.S_IXUSR)  # as a browser leaves what it fetched
            path = self._same_inode(spec, found)
            return RunnableFile(spec, str(path), record["magic"], record["sha256"], found.st_size)

    def _opened(self, spec: ModelSpec) -> BinaryIO:
        path = self.folder.file(spec.filename)
        linked = bool(_read_object(self.folder.record(spec.name)).get("linked"))
        try:
            there = os.lstat(path)
            if stat.S_ISLNK(there.st_mode) and not linked:  # somebody's own link, in a folder filled by hand
                linked = not hasattr(os, "getuid") or there.st_uid == os.getuid()
            file = open_file(path, follow=linked)
        except FileNotFoundError as exc:
            raise _not_there(spec, self.folder) from exc
        except OSError as exc:
            raise UnsafePath(
                f"The file of model {spec.name!r} cannot be opened: {exc.strerror}.",
                model=spec.name,
                remedy=f"See what lies at {str(path)!r}.",
            ) from exc
        if file is None:
            raise UnsafePath(
                f"{str(path)!r} is no file.", model=spec.name, remedy="Put it aside, and download the model."
            )
        return file

    def _checked(self, spec: ModelSpec, file: BinaryIO, progress: Callable[[int, int], None] | None) -> dict[str, Any]:
        """Compare what *file* holds with what is known, and write the outcome down."""
        found = os.fstat(file.fileno())
        before = _read_object(self.folder.record(spec.name))
        expected = spec.sha256 or before.get("expected")
        record: dict[str, Any] = {
            "inode": found.st_ino,
            "size": found.st_size,
            "mtime_ns": found.st_mtime_ns,
            "linked": bool(before.get("linked")),
            "expected": expected,
            "checked_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        wrong: Exception | None = None
        if spec.size is not None and found.st_size != spec.size:
            wrong = SizeMismatch(
                f"The file of model {spec.name!r} has {found.st_size} bytes instead of {spec.size}.",
                expected=spec.size,
                actual=found.st_size,
                model=spec.name,
                remedy="Remove it, and download it again.",
            )
        else:
            file.seek(0)
            try:
                record["magic"] = checked_beginning(spec.name, spec.format, file.read(16))
            except InvalidSpec as exc:
                wrong = exc
        if wrong is None:
            file.seek(0)
            whole = found.st_size
            digest = digest_of(file, None, progress and (lambda done: progress(done, whole)))
            record["sha256"] = digest.hexdigest()
            if expected is not None and record["sha256"] != expected:
                wrong = mismatch(spec, expected, record["sha256"])
        record["verified"] = False if wrong is not None else (True if expected is not None else None)
        record["error"] = None if wrong is None else str(wrong)
        self.write_record(spec, record)
        if wrong is not None:
            raise wrong
        return record

    def _same_inode(self, spec: ModelSpec, found: os.stat_result) -> Path:
        """Return a path of the inode *found* that nobody else can point elsewhere."""
        folder = self.folder.part("runnable") / spec.name
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / spec.filename
        with contextlib.suppress(FileNotFoundError):
            if _same(os.lstat(path), found):
                return path
        target = os.path.realpath(self.folder.file(spec.filename))
        for old in folder.iterdir():
            old.unlink()
        try:
            os.link(target, path)
        except OSError:
            # Another disk, or one that knows no links: then the folder it lies in must be ours alone.
            return self._alone(spec, Path(target), found)
        if not _same(os.lstat(path), found):
            path.unlink()
            raise UnsafePath(
                f"The file of model {spec.name!r} was exchanged while it was checked.",
                model=spec.name,
                remedy="Find out by whom, and verify it again.",
            )
        return path

    def _alone(self, spec: ModelSpec, target: Path, found: os.stat_result) -> Path:
        folder = target.parent.stat()
        ours = not hasattr(os, "getuid") or folder.st_uid == os.getuid()
        if not ours or stat.S_IMODE(folder.st_mode) & 0o022 or not _same(target.stat(), found):
            raise UnsafePath(
                f"The file of model {spec.name!r} lies in {str(target.parent)!r}, where others can exchange it.",
                model=spec.name,
                remedy="Let its owner alone write there, or bring the file in with import_file().",
            )
        return target

    # --- what was found out before

    def _record(self, spec: ModelSpec, found: os.stat_result) -> dict[str, Any]:
        """Return what was found out about a file, if it is still that file and the same is expected of it."""
        record = _read_object(self.folder.record(spec.name))
        same = (record.get("inode"), record.get("size"), record.get("mtime_ns")) == (
            found.st_ino, found.st_size, found.st_mtime_ns,
        )  # fmt: skip
        if not same or (spec.sha256 is not None and record.get("expected") != spec.sha256):
            return {}
        return record

    def write_record(self, spec: ModelSpec, record: dict[str, Any]) -> None:
        """Write down what was found out about the file of a model."""
        self.folder.part("records")
        write_json(self.folder.record(spec.name), record)

    # --- bringing them in, taking them out

    def import_file(
        self, path: str | os.PathLike[str], name: str | None = None, *, mode: str = "copy", kind: str = "chat"
    ) -> ModelSpec:
        """Bring a file in from elsewhere, and add it to the catalogue under *name*, by default that of the file.

        With *mode* `"link"` it stays where it is, and the folder has a symbolic link to it.

        Raises:
            InsufficientDisk: There is no room for a copy.
            InvalidSpec: It is no file of a model, or another model has its name or its file name.
            StoreLocked: Somebody else works on a model of that name.
        """
        if mode not in {"copy", "link"}:
            raise InvalidSpec(f"A file is brought in by 'copy' or 'link', not by {mode!r}.")
        source = Path(path).expanduser().absolute()
        with contextlib.ExitStack() as stack:
            try:
                opened = open_file(source, follow=True)
            except OSError as exc:
                raise NotDownloaded(
                    f"{str(source)!r} cannot be read: {exc.strerror}.", remedy="Check the path."
                ) from exc
            if opened is None:
                raise InvalidSpec(f"{str(source)!r} is no file.")
            file = stack.enter_context(opened)
            spec = self._spec_of(source, file, name, kind)
            stack.enter_context(self.folder.working_on(spec.name))
            target = self.folder.file(spec.filename)
            before = self.catalogue.all().get(spec.name)
            if target.exists() and not _same(target.stat(), os.fstat(file.fileno())) and before != spec:
                raise InvalidSpec(
                    f"{str(target)!r} is there already.", model=spec.name, remedy="Remove it first, or rename the file."
                )
            self.catalogue.add(spec)
            if not target.exists():
                _linked(source, target) if mode == "link" else _copied(spec, file, target)
            found = target.stat()
            self.write_record(
                spec,
                {
                    "inode": found.st_ino, "size": found.st_size, "mtime_ns": found.st_mtime_ns,
                    "linked": mode == "link", "expected": spec.sha256, "magic": magic_of(_beginning(target)),
                    "sha256": spec.sha256, "verified": True, "error": None,
                    "checked_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                },
            )  # fmt: skip
        return spec

    def _spec_of(self, source: Path, file: BinaryIO, name: str | None, kind: str) -> ModelSpec:
        magic = magic_of(file.read(16))
        filename = source.name
        spec = ModelSpec(
            checked_name(os.path.splitext(filename)[0] if name is None else name),
            filename,
            kind=kind,  # type: ignore[arg-type]  # checked by ModelSpec
            format="gguf" if magic == "gguf" else "llamafile",
        )
        file.seek(0)
        checked_beginning(spec.name, spec.format, file.read(16))
        file.seek(0)
        digest = digest_of(file).hexdigest()
        known = self.catalogue.all().get(spec.name)
        if known is not None and known.sha256 == digest:
            return known  # downloaded in another way: it is what the catalogue means
        return replace(spec, size=os.fstat(file.fileno()).st_size, sha256=digest)

    def remove(self, name: str, *, forget: bool = False) -> bool:
        """Remove the file of a model, what there is of it, and what is known of it; False if nothing was there.

        With *forget* a model that was added to the catalogue is taken out of that, too.

        Raises:
            StoreLocked: Somebody else works on it.
            UnknownModel: There is none of that name.
        """
        spec = self.spec(name)
        gone = False
        with self.folder.working_on(name):
            folder = self.folder
            for path in (
                folder.file(spec.filename), folder.partial(spec.filename), folder.sidecar(spec.filename),
                folder.record(name), folder.control / "runnable" / name / spec.filename,
            ):  # fmt: skip
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    path.unlink()
                    gone = True
            with contextlib.suppress(OSError):
                (folder.control / "runnable" / name).rmdir()
        if forget:
            gone = self.catalogue.take_out(name) or gone
        return gone


def mismatch(spec: ModelSpec, expected: str, actual: str) -> ChecksumMismatch:
    """Return the error for a file of another digest."""
    return ChecksumMismatch(
        f"The file of model {spec.name!r} has the SHA-256 {actual} instead of {expected}.",
        expected=expected,
        actual=actual,
        model=spec.name,
        remedy="Remove it and download it again; if that does not help, the server has another file by now.",
    )


def _not_there(spec: ModelSpec, folder: ModelFolder) -> NotDownloaded:
    if folder.partial(spec.filename).exists():
        state, remedy = "is not whole yet", "Go on with download()."
    else:
        state = f"is not in {str(folder)!r}"
        remedy = "Fetch it with download()." if spec.url else "Bring it in with import_file()."
    return NotDownloaded(f"The file of model {spec.name!r} {state}.", model=spec.name, remedy=remedy)


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of ours; empty where there is none: what it held can be found out again."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _beginning(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(16)


def _linked(source: Path, target: Path) -> None:
    os.symlink(os.path.realpath(source), target)
    sync_folder(target.parent)


def _copied(spec: ModelSpec, file: BinaryIO, target: Path) -> None:
    """Copy *file*, which appears at *target* whole or not at all."""
    temporary = target.with_name(f"{target.name}.partial")
    file.seek(0)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with open(fd, "wb") as new:
            shutil.copyfileobj(file, new, 1 << 20)
            new.flush()
            os.fsync(fd)
        os.chmod(temporary, mode_for(spec))
        os.replace(temporary, target)
    except OSError as exc:
        if exc.errno in FULL:
            need = os.fstat(file.fileno()).st_size
            free = shutil.disk_usage(target.parent).free
            raise InsufficientDisk(
                f"There is no room for a copy of {need} bytes in {str(target.parent)!r}.",
                need=need, free=free, model=spec.name, remedy="Free some space, or bring it in with mode='link'.",
            ) from exc  # fmt: skip
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    sync_folder(target.parent)


def mode_for(spec: ModelSpec) -> int:
    """Return the mode of a model's file: its owner's alone, and a llamafile is a program."""
    return 0o700 if spec.format == "llamafile" else 0o600
