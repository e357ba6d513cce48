"""Assesses indexed copies by the members of the newest charter, and by what they declare about their machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from comity.node.copies.index import CopyRow
from comity.node.members import Membership
from comity.trust.charter.document import Member
from comity.trust.copies import AssessedCopy, ClaimedCopy, assess
from comity.trust.encoding import Digest
from comity.trust.places import Place, declared_reach


@dataclass(frozen=True, slots=True)
class _LogWriter:
    """The member and the shown name of the node that writes a log, and the declared place of its machines."""

    member: Digest
    name: str
    place: Place | None


class CopyAssessor:
    """Assesses indexed copies by the members of the newest charter: a removed member's copies and audits do not count.
    Blocking reads of the membership's values only; make one for each answer."""

    def __init__(self, membership: Membership, today: int) -> None:
        body = membership.body
        self._members = {member.id: member for member in (body.members if body else ())}
        self._today = today
        own = membership.seat.record
        self._writers = {str(own.log): _LogWriter(own.member, own.name, own.place)}
        for peer in membership.peers:
            writer = _LogWriter(peer.member.id, membership.shown_name(peer), peer.record.place)
            self._writers.setdefault(str(peer.record.log), writer)

    def assess(self, rows: Iterable[CopyRow]) -> tuple[AssessedCopy, ...]:
        found = []
        for row in rows:
            member = self._member(row.log)
            if member is not None:
                place = self._writers[row.log].place
                reach, cloud = declared_reach(member.jurisdiction, place), place.cloud if place else ""
                copy = ClaimedCopy(member.id, row.node, member.jurisdiction, row.withdrawn, reach, cloud)
                results = [result for result in row.results if result.auditor in self._members]
                found.append(assess(copy, results, self._today))
        return tuple(found)

    def names(self, rows: Iterable[CopyRow]) -> dict[Digest, str]:
        """Display names of the nodes of these copies, and of all members."""
        names = {member.id: member.name for member in self._members.values()}
        return names | {row.node: self._writers[row.log].name for row in rows if row.log in self._writers}

    def _member(self, log: str) -> Member | None:
        return self._members.get(self._writers[log].member) if log in self._writers else None
