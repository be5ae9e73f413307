"""What the doctor says: findings, and reports that hold them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Compacted", "Copied", "FileFormat", "Finding", "Report", "Schema", "Severity"]

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    `severity` is `"error"` where something cannot be read or an answer could be wrong, `"warning"` where something
    ought to be mended, `"note"` where there is nothing to do. `code` names the kind of finding, for programs; `ids`
    are the nodes and `file` is the file that it is about, as far as that is known.
    """

    severity: Severity
    code: str
    message: str
    ids: tuple[str, ...] = ()
    file: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "ids": list(self.ids)}

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}"


@dataclass
class Report:
    """What `verify` found, or what `repair` did and what is left.

    `counts` says how many nodes, edges, vectors and words there are, `digests` is a SHA-256 sum over each of these
    that is the same for the same content in any order and any store. `done` tells what was mended, or with a dry run
    what would be; `lost` what could not be read any more; `kept` where the files of before are.
    """

    path: str
    backend: str | None = None
    version: int | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    dry_run: bool = False

    @property
    def sound(self) -> bool:
        """Whether there is nothing to mend: no errors and no warnings."""
        return all(finding.severity == "note" for finding in self.findings)

    def add(
        self, severity: Severity, code: str, message: str, ids: tuple[str, ...] = (), file: str | None = None
    ) -> None:
        """Add a finding."""
        found = Finding(severity, code, message, ids, file)
        if found not in self.findings:
            self.findings.append(found)

    def codes(self, *severities: str) -> set[str]:
        """Return the codes of the findings, of errors and warnings unless *severities* are named."""
        wanted = severities or ("error", "warning")
        return {finding.code for finding in self.findings if finding.severity in wanted}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        data = asdict(self)
        data["findings"] = [finding.to_dict() for finding in self.findings]
        return {**data, "sound": self.sound}

    def __str__(self) -> str:
        lines = [f"{self.path} ({self.backend or 'unknown'}, version {'-' if self.version is None else self.version})"]
        for name, value in self.counts.items():
            shown = ", ".join(f"{key} {n}" for key, n in value.items()) if isinstance(value, dict) else value
            lines.append(f"  {name:<8}  {shown or 0}")
        rank = {"error": 0, "warning": 1, "note": 2}
        lines += [str(finding) for finding in sorted(self.findings, key=lambda found: rank[found.severity])]
        would = "would be done" if self.dry_run else "done"
        lines += [f"{would}: {text}" for text in self.done]
        lines += [f"lost: {text}" for text in self.lost]
        lines += [f"kept: {name}" for name in self.kept]
        lines.append("sound" if self.sound else "not sound")
        return "\n".join(lines)


@dataclass(frozen=True)
class Copied:
    """What `backup` and `restore` did: from where to where, bytes, nodes, the version, and what was kept of before."""

    source: str
    target: str
    bytes: int
    nodes: int
    version: int
    kept: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Compacted:
    """How many bytes the files of a memory had before and after."""

    path: str
    before: int
    after: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class FileFormat:
    """One file of a memory, and the version of its format; None for one that knows none."""

    file: str
    what: str
    format: int | None
    reads: str
    writes: int | None


@dataclass(frozen=True)
class Schema:
    """The formats of a memory's files.

    `state` is `"current"`, `"older"` (a file of the original or of another program, brought up to date by the first
    write) or `"newer"` (refused). `kept` is where the older files are after they were migrated.
    """

    path: str
    backend: str
    state: Literal["current", "older", "newer"]
    files: list[FileFormat]
    kept: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)
