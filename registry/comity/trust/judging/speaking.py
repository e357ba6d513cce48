"""Who said it: identities by inceptions and rotations, members by the seats of pinned bodies, nodes by records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from comity.trust.charter import Member
from comity.trust.digest import Digest, short
from comity.trust.judging.reading import Readings
from comity.trust.judging.witnessing import Bound
from comity.trust.rotation import KeyState
from comity.trust.statement import Entry
from comity.trust.statements.claims import signed_by_node


@dataclass(frozen=True, slots=True)
class Speaker:
    """Somebody who is proven to have signed: their id, how rows call them, and the member that it is or belongs to."""

    id: Digest
    name: str
    member: Member | None = None


class Speakers:
    """All who can be proven to speak, by what is at hand.

    Args:
        bound: nodes that pinned bodies prove.
        seats: members of pinned bodies, the latest last.
    """

    def __init__(self, readings: Readings, bound: Iterable[Bound], seats: Iterable[Member]) -> None:
        self._readings = readings
        self._nodes = {node.record.node.id: node for node in bound}
        self._seats = {seat.id: seat for seat in seats}

    def speaker(self, entry: Entry) -> Speaker | None:
        """Who signed it, as it says itself; None where nothing here proves that."""
        by = entry.statement.by
        if by is None:
            return None
        node = self._nodes.get(by.id)
        if by.kind == "node":
            if node is None or not signed_by_node(entry, node.record):
                return None
            return Speaker(by.id, f"{node.record.name}, of {_seat(node.member)}", node.member)
        seat, inception = self._seats.get(by.id), self._readings.inceptions.get(by.id)
        starts = [seat.key_state] if seat else []
        starts += [KeyState.of_inception(inception)] if inception else []
        if not any(self._readings.chains.follow(start).signed(entry.envelope) for start in starts):
            return None
        if seat is not None:
            return Speaker(by.id, _seat(seat), seat)
        return Speaker(by.id, f"{inception.display if inception else ''} [{short(by.id)}]")


def _seat(member: Member) -> str:
    return f"{member.name} ({member.jurisdiction})"
