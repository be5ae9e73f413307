"""Documents that are archives of XML: Office, OpenDocument, EPUB. An archive is checked before it is unpacked."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

from ...._optional import extra
from ..errors import ArchiveBomb, EncryptedDocument, LoaderError, UnsupportedType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from ..model import Limits
    from ..source import Loaded, Source

__all__ = ["Archive", "packed"]

_SMALL = 1_000_000  # bytes below which a member may be packed as tightly as it likes
_PIECE = 1 << 16
_LOCAL = struct.Struct("<4s5H3I2H")


class Archive:
    """The members of a ZIP archive, none of which is unpacked beyond what `Limits` allow.

    The sizes that an archive states are checked at once, and what really comes out is counted, because they may lie.
    """

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data, self._limits = data, limits
        self._unpacked = 0
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            self._members = {info.filename: info for info in self._zip.infolist()}
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as exc:
            raise LoaderError(
                f"The archive is damaged: {exc}.", remedy="Check how the file was copied or downloaded."
            ) from exc
        self._check()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> list[str]:
        """The names of the members, in their order."""
        return list(self._members)

    def read(self, name: str) -> bytes:
        """Return a member.

        Raises:
            LoaderError: There is none of that name, or it is damaged.
            ArchiveBomb: It unpacks into more than the limits allow, whatever the archive says of it.
            EncryptedDocument: It has a password.
        """
        info = self._members.get(name)
        if info is None:
            raise LoaderError(f"The archive has no {name!r}, which a document of its type must have.")
        if info.flag_bits & 1:
            raise EncryptedDocument("The document is encrypted.", remedy="Save it without a password.")
        most = self._limits.unpacked - self._unpacked
        found = bytearray()
        try:
            with self._zip.open(info) as member:
                while piece := member.read(_PIECE):
                    found += piece
                    if len(found) > most:
                        raise _bomb(f"its members unpack into more than {self._limits.unpacked:,} bytes")
                    if len(found) > _SMALL and len(found) > self._limits.ratio * max(info.compress_size, 1):
                        raise _bomb(f"{name!r} unpacks into more than {self._limits.ratio:g} times its size")
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as exc:
            if isinstance(exc, ArchiveBomb):
                raise
            raise LoaderError(f"The member {name!r} of the archive is damaged: {exc}.") from exc
        self._unpacked += len(found)
        return bytes(found)

    def xml(self, name: str) -> Element:
        """Return a member as XML; one that declares entities or a document type is refused.

        Raises:
            LoaderError: It is not well-formed, or would be expanded.
            MissingDependency: defusedxml is not installed.
        """
        return parsed_xml(self.read(name), name)

    def _check(self) -> None:
        infos = self._zip.infolist()
        if len(infos) > self._limits.members:
            raise _bomb(f"it has {len(infos):,} members; the limit is {self._limits.members:,}")
        if len(self._members) < len(infos):
            raise LoaderError("The archive has two members of one name, so that nobody can tell which is meant.")
        stated = sum(info.file_size for info in infos)
        if stated > self._limits.unpacked:
            raise _bomb(f"it would unpack into {stated:,} bytes; the limit is {self._limits.unpacked:,}")
        for info in infos:
            if info.file_size > _SMALL and info.file_size > self._limits.ratio * max(info.compress_size, 1):
                times = info.file_size / max(info.compress_size, 1)
                raise _bomb(f"{info.filename!r} would unpack into {times:.0f} times its size")
        if not self._data.startswith(b"PK") or (infos and min(info.header_offset for info in infos) != 0):
            raise LoaderError("The file is two things at once: an archive with something else before it.")
        self._check_places(infos)

    def _check_places(self, infos: list[zipfile.ZipInfo]) -> None:
        """Refuse an archive in which members lie upon each other: one packed megabyte could stand for thousands."""
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise _bomb(f"{info.filename!r} lies upon another member")
            try:
                head = _LOCAL.unpack_from(self._data, info.header_offset)
            except struct.error as exc:
                raise LoaderError(f"The archive is damaged: {info.filename!r} lies outside of it.") from exc
            end = info.header_offset + _LOCAL.size + head[9] + head[10] + info.compress_size


def parsed_xml(data: bytes, name: str = "document", *, forbid_dtd: bool = True) -> Element:
    """Return XML without entities of its own, which is what bombs and references to other files are made of."""
    with extra("hub", module="defusedxml"):
        from defusedxml.common import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    try:
        root: Element = fromstring(data, forbid_dtd=forbid_dtd)
    except DefusedXmlException as exc:
        raise LoaderError(f"The XML of {name!r} declares a document type or entities, which is refused.") from exc
    except (ParseError, ValueError, LookupError) as exc:
        raise LoaderError(f"The XML of {name!r} is damaged: {exc}.") from exc
    return root


def packed(source: Source) -> Loaded:
    """Read an archive as the document that it is, which its members tell."""
    archive = Archive(source.data, source.limits)
    from . import epub, odf, ooxml

    for module in (ooxml, epub, odf):
        reader: Any = module.reader_of(archive)
        if reader is not None:
            loaded: Loaded = reader(archive, source)
            return loaded
    raise UnsupportedType(
        f"The file is an archive, of {len(archive.names)} members, and no document.",
        mime="application/zip",
        remedy="Unpack it, and add the files that are in it.",
    )


def local(tag: str) -> str:
    """Return the name of an element without its namespace."""
    return tag.rpartition("}")[2]


def children(element: Element, name: str) -> Iterator[Element]:
    """Yield the children of an element that have this name, in whatever namespace."""
    return (child for child in element if local(child.tag) == name)


def attribute(element: Element, name: str) -> str | None:
    """Return an attribute by its name, in whatever namespace."""
    return next((value for key, value in element.attrib.items() if local(key) == name), None)


def _bomb(why: str) -> ArchiveBomb:
    return ArchiveBomb(
        f"The archive is refused: {why}.", remedy="Raise the limits if you trust it: Limits(unpacked=…, ratio=…)."
    )
