"""What the bundled hub begins with: it is `raeburnmemory hub`, and the process in which it reads documents."""

import multiprocessing
import os
import sys

_LIBRARIES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LIBPATH")


def _clean() -> None:
    """Let whatever is started from here, a browser above all, find its own libraries instead of the bundle's.

    This process has loaded its own by now. `NAME_ORIG` stays: whoever makes an environment for a model reads it.
    """
    for name in _LIBRARIES:
        before = os.environ.get(f"{name}_ORIG")
        if before:
            os.environ[name] = before
        else:
            os.environ.pop(name, None)


def main() -> None:
    """Be whatever this program was started for."""
    multiprocessing.freeze_support()
    from raeburnmemory.hub.documents import freeze_support

    freeze_support()
    _clean()
    from raeburnmemory import __version__

    if sys.argv[1:] == ["--version"]:
        print(f"memory-cache-hub {__version__}")
        return
    from raeburnmemory.cli import app

    app(["hub", *sys.argv[1:]], prog_name="memory-cache-hub")


if __name__ == "__main__":
    main()
