"""New keys for a member, by its recovery keys: who holds a majority of those needs nobody's leave.

    prepare        the new keys, in memory, and the plan of the `rotated` statement
    Prepared.begin keep them in offline/rotation-<n>, and sign with each of them
    acts.sign      the recovery keys sign: here, or by a ceremony file that is carried
    take_up        the node's home notes the rotation; a plan for its node record under the new keys
    take_up_record the home gets the new record and card

The charter goes on listing the old keys until a member drafts a body with the new ones (`drafting.rekeying`); both
speak for the member in this epoch. Source: protocol, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comity.content import durable
from comity.trust.errors import Conflict, Untrusted
from comity.trust.identity import KeySet
from comity.trust.keys import VerifyingKey
from comity.trust.rotation import Chain, Cut, KeyState, Rotation, follow, rotation_statement
from comity.trust.statement import parse_entry
from comity.trust.statements.node_record import check_node_record, node_record_statement, parse_node_record

from comity_client.desk.ceremony import Ceremony, Panel
from comity_client.desk.keys import find_keys
from comity_client.desk.seat_keys import SeatKeys, SeatShape
from comity_client.desk.signing import readings_of
from comity_client.desk.votes import Mark, Votes
from comity_client.governance.acts import GOVERNANCE
from comity_client.governance.plans import Plan, plan
from comity_client.governance.sitting import Sitting
from comity_client.node_home.card import NodeCard
from comity_client.node_home.founding import OFFLINE
from comity_client.node_home.keys import NodeKeys
from comity_client.node_home.seat import note_rotation, own_inception, own_rotations, read_line


@dataclass(frozen=True, slots=True)
class Prepared:
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


def prepare(
    sitting: Sitting, home: Path, shape: SeatShape, used: Sequence[VerifyingKey], *, cut: Sequence[Cut] = ()
) -> Prepared:
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
    panels = (Panel("recovery", _all(mine)), Panel("new", _all(keys.keys.keys)))
    ceremony = Ceremony(rotation_statement(rotation, mine).encode(), panels, objects=(sitting.current.data,))
    folder = home / OFFLINE / f"rotation-{number}"
    return Prepared(plan(ceremony, sitting), keys, folder, _inherited(sitting, home, before))


def own_chain(sitting: Sitting, home: Path) -> Chain:
    """The keys of the member whose home this is, from its inception on. Raises NotFound, Malformed, Untrusted."""
    return follow(KeyState.of_inception(own_inception(home)), (*sitting.entries, *own_rotations(home)))


def take_up(home: Path, rotated: Plan) -> Plan:
    """Note a rotation, signed by all that must, in the node's home. Gives the plan of its node record under the new
    keys, which the keys of the node's machine countersign here at once.

    Raises Unavailable (CEREMONY) where signatures are missing, OutOfSpace, and as `prepare` does.
    """
    note_rotation(home, rotated.entry)
    keys = own_chain(rotated.sitting, home).current.keys
    record = parse_node_record(parse_entry(read_line(home / "node-record.line")))
    node = NodeKeys.read(home / "keys").signers
    panels = (Panel(GOVERNANCE, keys), Panel("node", _all([signer.public for signer in node])))
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


def _inherited(sitting: Sitting, home: Path, before: KeyState) -> Votes:
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
    return Votes(said, (Mark("lost", current.digest, why),))


def _all(keys: Sequence[VerifyingKey]) -> KeySet:
    return KeySet(tuple(keys), len(keys))
