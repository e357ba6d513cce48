"""Is this the newest charter? What members' home logs say, and how fresh that is; no newer one can be ruled out.

Whoever is cut off sees nothing wrong: an old charter, old logs, and everything verifies. What betrays it is the age of
the cosignatures, and that fewer members than the charter asks for confirm it. So a newcomer, and a node that was away,
compare heads: for each member its home log's checkpoint, as others cosigned it, and the charter under which its node
says that it acts. This is shown, and turns no verdict. Source: protocol, section 7.9.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from comity.trust.charter import Member
from comity.trust.charter.proposing import ADOPTED
from comity.trust.digest import Digest
from comity.trust.errors import ComityError
from comity.trust.federation import Federation
from comity.trust.statements.claims import signed_by_node
from comity.trust.tlog.checkpoint import open_checkpoint
from comity.trust.tlog.cosignature import verified_cosigners
from comity.trust.tlog.note import SignedNote

from comity_client.governance.sitting import Sitting
from comity_client.nodes.session import RemoteNode, Session

CURRENT, EARLIER, UNKNOWN, SILENT = "current", "earlier", "unknown", "silent"


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of one member's home log.

    Attributes:
        size: of the newest checkpoint that anybody showed; None for none.
        cosigners: other members that cosigned it.
        seen: POSIX seconds of the newest of their cosignatures, by their own clocks; None for none.
        adopted: whether its node acts under the charter that is `current` here, an `earlier` one, or one that is
            `unknown` here; `silent` where it does not say, as under a genesis.
    """

    member: Digest
    name: str
    jurisdiction: str
    origin: str
    size: int | None
    cosigners: tuple[Digest, ...]
    seen: int | None
    adopted: str


@dataclass(frozen=True, slots=True)
class Confirmation:
    """How well the current charter is confirmed. `needed` members are what its policy asks."""

    epoch: int
    body: Digest
    heads: tuple[Head, ...]
    needed: int

    @property
    def confirmed(self) -> int:
        """Members whose cosigned home logs stand by it: under a genesis, those that say nothing else."""
        stands = (CURRENT,) if self.epoch else (CURRENT, SILENT)
        return sum(bool(head.cosigners) and head.adopted in stands for head in self.heads)

    @property
    def enough(self) -> bool:
        return self.confirmed >= self.needed and not self.elsewhere

    @property
    def elsewhere(self) -> tuple[Head, ...]:
        """Members that act under a charter which is not known here: this is stale, or a fork."""
        return tuple(head for head in self.heads if head.adopted == UNKNOWN)

    @property
    def seen(self) -> int | None:
        """The newest cosignature of any head: how old all this may be, by its owner's clock."""
        return max((head.seen for head in self.heads if head.seen is not None), default=None)


async def confirm(session: Session, federation: Federation, sitting: Sitting) -> Confirmation:
    """Compare the heads of all active members, by what the session's nodes show. Raises Unavailable where none does."""
    answers = await session.ask(lambda client: client.logs())
    if not answers.found:
        raise answers.failure("nobody shows the members' logs")
    notes: dict[str, list[bytes]] = {}
    for heads in answers.found.values():
        for head in heads:
            notes.setdefault(head.origin, []).append(head.note)
    adopted = _adopted(session, federation, sitting)
    current = sitting.current
    seats = {seat.id: seat for seat in current.active}
    heads_ = [
        _head(session, node, seat, notes.get(node.record.origin, ()), adopted)
        for node in session.nodes
        if (seat := seats.get(node.record.member)) is not None
    ]
    best = {head.member: head for head in sorted(heads_, key=lambda head: (len(head.cosigners), head.seen or 0))}
    return Confirmation(current.epoch, current.digest, tuple(best.values()), current.policy.cosigner_quorum)


def _head(
    session: Session, node: RemoteNode, seat: Member, notes: Iterable[bytes], adopted: Mapping[Digest, str]
) -> Head:
    """The newest checkpoint of a node's log, with the other members that cosigned it on any note shown."""
    owners = {key: other.record.member for other in session.nodes for key in other.record.cosigners}
    size, times = None, dict[Digest, int]()
    for data in notes:
        try:
            note = SignedNote.parse(data)
            checkpoint = open_checkpoint(note, node.record.log)
        except ComityError:
            continue  # not this log's: whoever showed it
        if size is None or checkpoint.size > size:
            size, times = checkpoint.size, {}
        if checkpoint.size == size:
            for key, time in verified_cosigners(note, owners, checkpoint).items():
                times[owners[key]] = max(time, times.get(owners[key], 0))
    times.pop(seat.id, None)
    return Head(
        seat.id,
        seat.name,
        seat.jurisdiction,
        node.record.origin,
        size,
        tuple(sorted(times)),
        max(times.values(), default=None),
        adopted.get(seat.id, SILENT),
    )


def _adopted(session: Session, federation: Federation, sitting: Sitting) -> dict[Digest, str]:
    """Under which charter each member's node says that it acts: the latest that is known, or one that is not."""
    known = {body.digest for body in (*federation.chain, *(each.body for each in sitting.council.epochs))}
    found: dict[Digest, str] = {}
    for entry in sitting.entries:
        if entry.statement.predicate != ADOPTED:
            continue
        body = entry.statement.subject
        word = UNKNOWN if body not in known else CURRENT if body == sitting.current.digest else EARLIER
        for node in session.nodes:
            if signed_by_node(entry, node.record):
                member = node.record.member
                found[member] = max(found.get(member, EARLIER), word, key=_WEIGHT.index)
    return found


_WEIGHT = (EARLIER, CURRENT, UNKNOWN)
