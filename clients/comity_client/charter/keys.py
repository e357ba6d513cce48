"""New keys for a member, by its recovery keys: who holds a majority of those needs nobody's leave.

    prepare        the new keys, in memory, and the plan of the `rotated` statement
    Prepared.begin keep them in offline/rotation-<n>, and sign with each of them
    acts.sign      the recovery keys sign: here, or by a ceremony file that is carried
    take_up        the node's home notes the rotation; a plan for its node record under the new keys
    take_up_record the home gets the new record and card

The charter goes on listing the old keys until a member drafts a body with the new ones (`drafting.rekeying`); both
speak for the member in this epoch. Source: protocol, section 3.


A vote state that was lost, and the owner's decision to vote all the same.

The key sits out the current epoch by itself, and nothing is to be done: an absent member, which the quorum tolerates.
An owner who cannot wait first imports what *every other active member* mirrored of its home log. What none of them has,
nobody can know: a reading that left this desk, and reached only somebody who hid it until now, would make the member a
provable liar. Source: protocol, section 7.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comity.content import durable
from comity.trust.charter.votes import Reading
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, Refused, Untrusted
from comity.trust.identity import KeySet
from comity.trust.keys import VerifyingKey
from comity.trust.rotation import KeyState, LogCut, Rotation, RotationChain, follow, rotation_statement
from comity.trust.statement import parse_entry
from comity.trust.statements import check_node_record, node_record_statement, parse_node_record
from comity_client.charter.proposals import GOVERNANCE, Plan, plan
from comity_client.charter.state import CharterMaterial, CharterState, convene
from comity_client.founding import (
    OFFLINE,
    NewNodeKeys,
    NodeCard,
    note_rotation,
    own_inception,
    own_rotations,
    read_line,
)
from comity_client.signing.seat_keys import SeatKeys, SeatShape
from comity_client.signing.votes import Ceremony, GovernanceKey, SigningPanel, VoteMark, Votes, find_keys, readings_of


@dataclass(frozen=True, slots=True)
class PreparedRotation:
    """New keys that exist in memory only, and the plan by which they would become the member's."""

    plan: Plan
    keys: SeatKeys
    folder: Path
    votes: Votes

    def begin(self) -> Plan:
        """Write the new keys to `folder`, each with the votes of those it follows; then each signs. The owner has seen
        the plan. Raises Conflict (KEY-EXISTS), OutOfSpace, Unavailable."""
        with durable.disk_errors(f"{self.folder} was not made"):
            durable.make_folders(self.folder, mode=0o700)
        self.keys.write(self.folder, self.votes)
        ceremony = self.plan.ceremony
        for signer in self.keys.signers:
            ceremony = ceremony.with_signature(signer)
        return plan(ceremony, self.plan.sitting, self.plan.warnings)


def prepare_rotation(
    sitting: CharterState, home: Path, shape: SeatShape, used: Sequence[VerifyingKey], *, cut: Sequence[LogCut] = ()
) -> PreparedRotation:
    """New keys for the member whose node's home this is.

    Args:
        used: the recovery keys that will sign: more than half. They are revealed, and spent.
        cut: how long logs are now; what stands in them beyond that was not said by the keys that are retired.

    Raises Untrusted (TOO-FEW-KEYS), Conflict (DISPUTED), NotFound, Malformed.
    """
    chain = own_chain(sitting, home)
    if chain.disputes:
        why = "two rotations exclude one another; whoever holds more recovery keys cannot end that alone"
        raise Conflict("whose keys this member has is in dispute", why=why, code="DISPUTED")
    before = chain.current
    mine = [key for key in used if key.id in before.recovery]
    if 2 * len(mine) <= len(before.recovery):
        why = f"{len(mine)} of its {len(before.recovery)} recovery keys are here, more than half must sign"
        raise Untrusted("the keys cannot be changed", why=why, hint="name each with --recovery", code="TOO-FEW-KEYS")
    keys, number = SeatKeys.generate(shape), len(chain.states)
    rotation = Rotation(before.identity, number, before.digest, keys.keys, keys.recovery, "", tuple(cut))
    panels = (SigningPanel("recovery", _all(mine)), SigningPanel("new", _all(keys.keys.keys)))
    ceremony = Ceremony(rotation_statement(rotation, mine).encode(), panels, objects=(sitting.current.data,))
    folder = home / OFFLINE / f"rotation-{number}"
    return PreparedRotation(plan(ceremony, sitting), keys, folder, _inherited(sitting, home, before))


def own_chain(sitting: CharterState, home: Path) -> RotationChain:
    """The keys of the member whose home this is, from its inception on. Raises NotFound, Malformed, Untrusted."""
    return follow(KeyState.of_inception(own_inception(home)), (*sitting.entries, *own_rotations(home)))


def take_up_rotation(home: Path, rotated: Plan) -> Plan:
    """Note a rotation, signed by all that must, in the node's home. Gives the plan of its node record under the new
    keys, which the keys of the node's machine countersign here at once.

    Raises Unavailable (CEREMONY) where signatures are missing, OutOfSpace, and as `prepare` does.
    """
    note_rotation(home, rotated.entry)
    keys = own_chain(rotated.sitting, home).current.keys
    record = parse_node_record(parse_entry(read_line(home / "node-record.line")))
    node = NewNodeKeys.read(home / "keys").signers
    panels = (SigningPanel(GOVERNANCE, keys), SigningPanel("node", _all([signer.public for signer in node])))
    ceremony = Ceremony(node_record_statement(record).encode(), panels, objects=(rotated.sitting.current.data,))
    for signer in node:
        ceremony = ceremony.with_signature(signer)
    return plan(ceremony, rotated.sitting)


def take_up_record(home: Path, renewed: Plan) -> NodeCard:
    """Put the new node record, and a card with it, into the home. Raises as `take_up` does, and Untrusted."""
    state = own_chain(renewed.sitting, home).current
    check_node_record(renewed.entry, state.keys)
    old = NodeCard.read(home / "node-card.json")
    rotations = tuple(entry.line for entry in own_rotations(home))
    card = NodeCard.of(old.inception_line, rotations, renewed.entry.line, old.mutual, old.open)
    durable.write_file(home / "node-record.line", card.record_line + b"\n", mode=0o644, point="home")
    durable.write_file(home / "node-card.json", card.encode(), mode=0o644, point="home")
    return card


def _inherited(sitting: CharterState, home: Path, before: KeyState) -> Votes:
    """What the keys that are retired signed in this epoch. Where too few of their vote files are here to know all that
    the member may have said, the new keys sit the epoch out."""
    current = sitting.current
    if current.member(before.identity) is None:
        return Votes()
    old = find_keys(home / OFFLINE, before.keys)
    seen = [key.votes.look(current.digest, readings_of(key.public, sitting.entries)) for key in old]
    readings = [reading for votes in seen for reading in votes.readings if reading.prev == current.digest]
    said = tuple(dict.fromkeys((*readings, *sitting.said(before.identity))))
    known = sum(votes.lost(current.digest) is None for votes in seen)
    if known > len(before.keys.keys) - before.keys.threshold:
        return Votes(said)
    why = "the votes of the keys before these were not at hand when these were made"
    return Votes(said, (VoteMark("lost", current.digest, why),))


def _all(keys: Sequence[VerifyingKey]) -> KeySet:
    return KeySet(tuple(keys), len(keys))


RISK = (
    "If this key signed a reading that none of these copies shows, and somebody kept it, your next reading proves your "
    "member a liar, for ever and to everybody."
)


@dataclass(frozen=True, slots=True)
class Resumption:
    """What the owner would decide: to vote again on the epoch after `prev`, knowing only of the readings in `found`.

    `risk` is to be shown, and agreed to, before `resume`.
    """

    key: GovernanceKey
    prev: Digest
    found: tuple[Reading, ...]
    copies: tuple[str, ...]
    risk: str = RISK


def weigh_recovery(sitting: CharterState, key: GovernanceKey, copies: Mapping[Digest, CharterMaterial]) -> Resumption:
    """Lay out the decision.

    Args:
        copies: for each other active member, what it mirrored of this member's home log, readings at least.

    Raises Refused (VOTES-COPIES) naming those whose copy is missing, and as `Sitting.seat_of` does.
    """
    seat, _ = sitting.seat_of(key.public)
    others = [other for other in sitting.current.active if other.id != seat.id]
    missing = [other.name for other in others if other.id not in copies]
    if missing:
        why = f"no copy of this member's home log as mirrored by {', '.join(missing)}"
        hint = "get it from them, or let this key sit out the epoch"
        raise Refused("too little is known of what this key signed", why=why, hint=hint, code="VOTES-COPIES")
    prev, found = sitting.current.digest, dict[Reading, None]()
    for material in (sitting.material, *copies.values()):
        entries = convene(sitting.start, material).entries
        found |= dict.fromkeys(reading for reading in readings_of(key.public, entries) if reading.prev == prev)
    return Resumption(key, prev, tuple(found), tuple(other.name for other in others))


def resume_voting(decided: Resumption) -> None:
    """The owner has read the risk, and decided. Raises OutOfSpace, Unavailable, and as the vote file does."""
    why = f"the owner's decision, after importing the home log as mirrored by {', '.join(decided.copies)}"
    decided.key.votes.resume(decided.prev, decided.found, why[:1000])
