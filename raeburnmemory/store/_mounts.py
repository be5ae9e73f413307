"""Which file system a folder lies on, and whether its locks and syncs can be relied on."""

from __future__ import annotations

import logging
import os
import re

__all__ = ["file_system", "warn_of_network"]

log = logging.getLogger("raeburnmemory")

_MOUNTS = "/proc/self/mountinfo"

# Of these, locks hold between some computers, or not at all, and a sync may end in somebody else's memory.
_NETWORK = re.compile(
    r"nfs4?|cifs|smb\w*|9p|afs|ceph|lustre|gfs2?|glusterfs|gpfs|ncpfs|coda|beegfs|davfs"
    r"|fuse\.(sshfs|s3fs|rclone|glusterfs|gcsfuse|davfs2?|gvfsd-fuse|ceph\w*|juicefs|goofys|mount-s3|smbnetfs|onedriver)"
)

_warned: set[str] = set()


def file_system(folder: str) -> str:
    """Return the type of the file system that *folder* lies on, `""` where the system does not say.

    The kernel lists every mount; the one with the longest path above *folder*, and of several on one path the last,
    is the one that counts (man 5 proc_pid_mountinfo).
    """
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    found, longest = "", -1
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        # Blanks and backslashes in paths are written as octal numbers.
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            found, longest = after.split(" ")[0], len(point)
    return found


def warn_of_network(path: str) -> None:
    """Say once per folder and process that the store at *path* lies on a file system that keeps no promises."""
    folder = os.path.dirname(path)
    if folder in _warned:
        return
    _warned.add(folder)
    kind = file_system(folder)
    if _NETWORK.fullmatch(kind):
        log.warning(
            "%r lies on a network file system (%s). Locks between computers and syncs cannot be relied on there: a "
            "memory that several of them write to can be damaged, and a power cut can lose what was added. Keep it on "
            "a local disk, and copy it from there.",
            path,
            kind,
        )
