"""Writing what an export makes: a file is there whole or not at all, and nothing is overwritten unasked."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from ..errors import InvalidInput, StoreWriteFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["new_file", "new_folder", "replaced"]


@contextlib.contextmanager
def new_file(path: str, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Give a file to write, which is at *path* once the block has ended well; `"-"` is standard output.

    Standard output gets all of it at the end: whoever reads slowly there holds up no writer of the memory, and an
    export that fails prints nothing.

    Raises:
        InvalidInput: There is something at *path*, and *overwrite* is false.
        StoreWriteFailed: The disk or the system refused.
    """
    if path == "-":
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            out = sys.stdout.buffer if hasattr(sys.stdout, "buffer") else None
            if out is None:
                raise InvalidInput("Standard output takes no bytes here. Name a file.")
            sys.stdout.flush()
            shutil.copyfileobj(file, out)
            out.flush()
        return
    replaced(path, overwrite=overwrite)
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        replaced(path, overwrite=overwrite)
        os.replace(temporary, path)
    except StoreWriteFailed:
        raise
    except OSError as exc:
        raise _refused(path, exc) from exc
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


@contextlib.contextmanager
def new_folder(path: str, *, overwrite: bool) -> Iterator[str]:
    """Give a folder to fill, which is at *path* once the block has ended well.

    Raises:
        InvalidInput: There is something at *path*, and *overwrite* is false; or *path* is standard output.
        StoreWriteFailed: The disk or the system refused.
    """
    if path == "-":
        raise InvalidInput("This format makes a folder, which standard output cannot be. Name one.")
    replaced(path, overwrite=overwrite)
    temporary, old = f"{path}.tmp-{os.getpid()}", f"{path}.old-{os.getpid()}"
    try:
        os.mkdir(temporary, 0o700)
        yield temporary
        replaced(path, overwrite=overwrite)
        if os.path.lexists(path):
            os.rename(path, old)
        os.rename(temporary, path)
        if os.path.isdir(old) and not os.path.islink(old):
            shutil.rmtree(old)
        elif os.path.lexists(old):
            os.unlink(old)
    except StoreWriteFailed:
        raise
    except OSError as exc:
        raise _refused(path, exc) from exc
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replaced(path: str, *, overwrite: bool) -> None:
    """Refuse to write where something is, unless it may be overwritten.

    Raises:
        InvalidInput: There is something.
    """
    if os.path.lexists(path) and not overwrite:
        raise InvalidInput(f"There is something at {path!r} already. Choose another place, or overwrite it: --force")


def _refused(path: str, exc: OSError) -> StoreWriteFailed:
    return StoreWriteFailed(exc.errno, f"Could not write {path!r}: {exc.strerror}. Choose another place")
