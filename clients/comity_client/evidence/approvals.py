"""Gather the approvals of the officers whom a policy names, and add carried ones to an evidence pack.

Nodes are asked for the statements of each officer about one artifact by a subject that only this officer can use, so
that no number of statements of others displaces them. Whatever arrives is proven later, as every line of a pack is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.evidence_pack import read_pack
from comity.trust.approvals import ApprovalEnded, Approved, approval_key, officer_key
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound
from comity.trust.evidence import PACK, STATEMENTS
from comity.trust.frozen import frozen
from comity.trust.officers import ProvenApproval, prove_approvals
from comity.trust.policy import ApprovalRule, Policy
from comity.trust.statement import MAX_LINE, Entry, SideObject, parse_entry
from comity.trust.statement_kinds import ADVISORY, APPROVAL_ENDED, APPROVED, INCEPTION, ROTATED

from comity_client.evidence.inquiry import Inquiry

MAX_LINES: Final = 4_096
"""Lines of a file of approvals."""
_KEYS: Final = (INCEPTION, ROTATED, ADVISORY)


async def gather_approvals(inquiry: Inquiry, artifact: Digest | None = None) -> tuple[bytes, ...]:
    """Return what the officers of the policy signed about one artifact or any, and the lines about their keys, as far
    as reachable nodes have them. Nothing is raised if none has any."""
    officers = tuple(dict.fromkeys(inquiry.policy.approvals.officers.values()))
    subjects = [key for who in officers for key in (approval_key(who, artifact) if artifact else officer_key(who), who)]

    async def entries(subject: Digest) -> list[Entry]:
        said = await inquiry.ask(lambda node, held: node.claims_beside(held, subject, officers))
        return inquiry.chosen(said.proven, (*officers, *inquiry.policy.named))[0]

    found = await asyncio.gather(*map(entries, subjects))
    return tuple(dict.fromkeys(entry.line for some in found for entry in some if _is_of(entry, frozenset(officers))))


def _is_of(entry: Entry, officers: frozenset[Digest]) -> bool:
    by, predicate = entry.statement.by, entry.statement.predicate
    return by is not None and by.id in officers and predicate in (APPROVED, APPROVAL_ENDED, *_KEYS)


def officer_entries(entries: Iterable[Entry], rule: ApprovalRule) -> list[Entry]:
    """Return the approvals that name an officer of the policy as their author."""
    officers = frozenset(rule.officers.values())
    return [
        entry
        for entry in entries
        if entry.statement.predicate == APPROVED
        and entry.statement.by is not None
        and entry.statement.by.id in officers
    ]


@frozen
class CarriedApprovals:
    """The lines of a file of approvals, one envelope a line, and those of them that approve or end an approval. The
    signatures are not verified."""

    lines: tuple[bytes, ...]
    entries: tuple[Entry, ...]

    @classmethod
    def parse(cls, data: bytes) -> CarriedApprovals:
        """Raises Malformed."""
        lines = tuple(dict.fromkeys(line for line in data.split(b"\n") if line))
        if not 1 <= len(lines) <= MAX_LINES:
            raise Malformed("not a file of approvals", why=f"{len(lines)} lines, 1 to {MAX_LINES} are expected")
        entries = [parse_entry(line) for line in lines]
        for entry in entries:
            if entry.statement.predicate == APPROVED:
                Approved.parse(entry.statement)
            elif entry.statement.predicate == APPROVAL_ENDED:
                ApprovalEnded.parse(entry.statement)
        own = tuple(e for e in entries if e.statement.predicate in (APPROVED, APPROVAL_ENDED))
        if not own:
            raise Malformed("not a file of approvals", why="no line approves an artifact or ends an approval")
        return cls(lines, own)

    @classmethod
    def read(cls, path: Path) -> CarriedApprovals:
        """Read a file. Raises NotFound, Malformed."""
        return cls.parse(read_bounded(path, MAX_LINES * (MAX_LINE + 1)))


def write_approvals(path: Path, lines: Sequence[bytes]) -> None:
    """Write a file of approvals. Raises OutOfSpace, Unavailable."""
    durable.write_file(path, b"".join(line + b"\n" for line in lines), mode=0o644, point="carried")


def add_to_pack(folder: Path, lines: Iterable[bytes], texts: Iterable[bytes]) -> int:
    """Add lines, and texts that they name, to the evidence pack of the artifact in `folder`. Returns the number of new
    lines. Nothing in the pack is changed or removed.

    Raises NotFound without a pack, Malformed (CONDITIONS) for a text that no approval names, OutOfSpace, Unavailable.
    """
    pack = folder / PACK
    before = read_pack(folder)
    if before.manifest is None:
        raise NotFound(f"{folder} has no evidence pack", hint="comity pull REF --out DIR", code="NO-PACK")
    new = [line for line in dict.fromkeys(lines) if line not in set(before.claims)]
    named = {item.digest for line in (*before.claims, *new) for item in _conditions_of(line)}
    objects = {sha256(text): text for text in texts}
    if strangers := [digest for digest in objects if digest not in named]:
        why = f"no approval here names a text with the SHA-256 {strangers[0]}"
        raise Malformed("the conditions do not belong to an approval", why=why, code="CONDITIONS")
    with durable.disk_errors(f"{pack} was not written"):
        durable.make_folders(pack / "objects")
        known = (pack / STATEMENTS).read_bytes() if (pack / STATEMENTS).exists() else b""
    for digest, text in objects.items():
        durable.write_file(pack / "objects" / digest, text, mode=0o644, point="pack")
    if known and not known.endswith(b"\n"):
        known += b"\n"
    added = b"".join(line + b"\n" for line in new)
    durable.write_file(pack / STATEMENTS, known + added, mode=0o644, point="pack")
    return len(new)


def _conditions_of(line: bytes) -> tuple[SideObject, ...]:
    entry = _readable(line)
    return entry.statement.objects if entry is not None and entry.statement.predicate == APPROVED else ()


@frozen
class ListedApproval:
    """A proven approval as a list shows it; `officer` is the name that the policy gives."""

    officer: str
    proven: ProvenApproval

    @property
    def until(self) -> int:
        """The last second in which it counts, POSIX."""
        approved, end = self.proven.approved, self.proven.end
        return min(approved.until, end.since - 1) if end else approved.until

    def state(self, at: int) -> str:
        """Its state at a time in POSIX seconds."""
        approved, end = self.proven.approved, self.proven.end
        if end is not None and end.since <= at:
            return "ended"
        if approved.until < at:
            return "ran out"
        return "in force" if approved.since <= at else "not begun"


def listed_approvals(lines: Iterable[bytes], rule: ApprovalRule, policy: Policy) -> tuple[ListedApproval, ...]:
    """Return the approvals of the officers of `rule` among the lines whose signatures are valid, those that run out
    first at the beginning. `policy` pins the members who may be officers."""
    known = tuple(lines)
    members = [member for body in policy.pins for member in body.members]
    entries = officer_entries((e for e in map(_readable, known) if e is not None), rule)
    found: list[ListedApproval] = []
    for artifact in dict.fromkeys(entry.statement.subject for entry in entries):
        proven, _ = prove_approvals(read_claims(known, artifact), artifact, rule, members)
        found += [ListedApproval(rule.names[each.approved.by], each) for each in proven]
    return tuple(sorted(found, key=lambda each: (each.until, each.officer, each.proven.entry.digest)))


def _readable(line: bytes) -> Entry | None:
    try:
        return parse_entry(line)
    except Malformed:
        return None
