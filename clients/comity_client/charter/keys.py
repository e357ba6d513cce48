"""New keys for a member by its recovery keys, and the recovery of lost vote files.

    prepare_rotation         the new keys, in memory, and the plan of the `rotated` statement
    PreparedRotation.begin   writes the keys to offline/rotation-<n>, and signs with each of them
    sign_plan                the recovery keys sign: here, or over a ceremony file
    apply_rotation           the node's home records the rotation; a plan for its node record under the new keys
    plan_place               a plan for a node record that declares where the node's machines are
    apply_node_record        the home gets the new record and card

The owner of more than half of the recovery keys needs no permission. The charter lists the old keys until a body
with the new ones follows (`draft_rekeying`); until then both sets of keys are valid for the member.

A key with a lost vote file does not vote in the current epoch; the quorum tolerates that, and nothing has to be
done. An owner who cannot wait first imports the mirrors of its home log from *every other active member*. A vote
that no mirror has remains unknown: if somebody kept it, the next vote may prove equivocation. Source: protocol,
sections 3 and 7.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from comity.content import durable
from comity.trust.charter.votes import Vote
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, Refused, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import KeySet
from comity.trust.keys import VerifyingKey
from comity.trust.node_records import NodeRecord, check_node_record
from comity.trust.places import Place
from comity.trust.rotation import KeyState, LogCut, Rotation, RotationChain, follow, rotation_statement
from comity.trust.statement import parse_entry

from comity_client.charter.proposals import GOVERNANCE, Plan, plan
from comity_client.charter.state import CharterMaterial, CharterState, compute_charter_state
from comity_client.node_card import NodeCard
from comity_client.node_home import OFFLINE, NewNodeKeys, append_rotation, own_inception, own_rotations, read_line
from comity_client.signing.seat_keys import SeatKeys, SeatShape
from comity_client.signing.votes import (
    Ceremony,
    GovernanceKey,
    SigningPanel,
    VoteHistory,
    VoteMark,
    find_keys,
    votes_signed_by,
)


@frozen
class PreparedRotation:
    """New keys in memory, and the plan of the rotation to them."""

    plan: Plan
    keys: SeatKeys
    folder: Path
    votes: VoteHistory

    def begin(self) -> Plan:
        """Write the new keys to `folder`, each with the vote history of the old keys; then each signs. The owner has
        seen the plan. Raises Conflict (KEY-EXISTS), OutOfSpace, Unavailable."""
        with durable.disk_errors(f"{self.folder} was not created"):
            durable.make_folders(self.folder, mode=0o700)
        self.keys.write(self.folder, self.votes)
        ceremony = self.plan.ceremony
        for signer in self.keys.signers:
            ceremony = ceremony.with_signature(signer)
        return plan(ceremony, self.plan.charter_state, self.plan.warnings)


def prepare_rotation(
    charter_state: CharterState,
    home: Path,
    shape: SeatShape,
    used: Sequence[VerifyingKey],
    *,
    cut: Sequence[LogCut] = (),
) -> PreparedRotation:
    """Generate new keys for the member of a node's home.

    Args:
        used: the recovery keys that will sign: more than half. They are revealed, and cannot be used again.
        cut: current log sizes; entries after them do not count as signed by the retired keys.

    Raises Untrusted (TOO-FEW-KEYS), Conflict (DISPUTED), NotFound, Malformed.
    """
    chain = own_chain(charter_state, home)
    if chain.disputes:
        why = "two rotations exclude one another; another rotation cannot settle that"
        raise Conflict("the keys of this member are in dispute", why=why, code="DISPUTED")
    before = chain.current
    own = [key for key in used if key.id in before.recovery]
    if 2 * len(own) <= len(before.recovery):
        why = f"{len(own)} of {len(before.recovery)} recovery keys that count now were given; more than half must sign"
        if retired := [key for key in used if key not in own]:
            why += (
                f"; {len(retired)} of the keys that were given cannot sign: a rotation ends the recovery keys before it"
            )
        raise Untrusted("the keys were not rotated", why=why, hint="name each with --recovery", code="TOO-FEW-KEYS")
    keys, number = SeatKeys.generate(shape), len(chain.states)
    rotation = Rotation(before.identity, number, before.digest, keys.keys, keys.recovery, "", tuple(cut))
    panels = (SigningPanel("recovery", _all_of(own)), SigningPanel("new", _all_of(keys.keys.keys)))
    ceremony = Ceremony(rotation_statement(rotation, own).encode(), panels, objects=(charter_state.current.data,))
    folder = home / OFFLINE / f"rotation-{number}"
    return PreparedRotation(plan(ceremony, charter_state), keys, folder, _inherited_votes(charter_state, home, before))


def own_chain(charter_state: CharterState, home: Path) -> RotationChain:
    """The rotation chain of the member of a node's home. Raises NotFound, Malformed, Untrusted."""
    return follow(KeyState.of_inception(own_inception(home)), (*charter_state.entries, *own_rotations(home)))


def apply_rotation(home: Path, rotated: Plan) -> Plan:
    """Record a completely signed rotation in the node's home. Returns the plan of the node record under the new keys,
    already countersigned by the keys of the node's machine.

    Raises Unavailable (CEREMONY) if signatures are missing, OutOfSpace, and as `prepare_rotation` does.
    """
    append_rotation(home, rotated.entry)
    return _plan_record(rotated.charter_state, home, _own_record(home))


def plan_place(charter_state: CharterState, home: Path, place: Place) -> Plan:
    """The plan of a node record that declares where the node's machines are, already countersigned by the keys of the
    node's machine. Raises NotFound, Refused, Malformed, Untrusted."""
    return _plan_record(charter_state, home, replace(_own_record(home), place=place))


def _own_record(home: Path) -> NodeRecord:
    return NodeRecord.parse(parse_entry(read_line(home / "node-record.line")).statement)


def _plan_record(charter_state: CharterState, home: Path, record: NodeRecord) -> Plan:
    keys, node = own_chain(charter_state, home).current.keys, NewNodeKeys.read(home / "keys").signers
    panels = (SigningPanel(GOVERNANCE, keys), SigningPanel("node", _all_of([signer.public for signer in node])))
    ceremony = Ceremony(record.statement().encode(), panels, objects=(charter_state.current.data,))
    for signer in node:
        ceremony = ceremony.with_signature(signer)
    return plan(ceremony, charter_state)


def apply_node_record(home: Path, renewed: Plan) -> NodeCard:
    """Write the new node record and card to the home. Raises as `apply_rotation` does, and Untrusted."""
    state = own_chain(renewed.charter_state, home).current
    check_node_record(renewed.entry, state.keys)
    old = NodeCard.read(home / "node-card.json")
    rotations = tuple(entry.line for entry in own_rotations(home))
    card = NodeCard.of(old.inception_line, rotations, renewed.entry.line, old.mutual, old.open)
    durable.write_file(home / "node-record.line", card.record_line + b"\n", mode=0o644, point="home")
    durable.write_file(home / "node-card.json", card.encode(), mode=0o644, point="home")
    return card


def _inherited_votes(charter_state: CharterState, home: Path, before: KeyState) -> VoteHistory:
    """The votes of the retired keys in this epoch. If too few of their vote files are here to know all votes of the
    member, the new keys do not vote in this epoch."""
    current = charter_state.current
    if current.member(before.identity) is None:
        return VoteHistory()
    old = find_keys(home / OFFLINE, before.keys)
    histories = [key.votes.load(current.digest, votes_signed_by(key.public, charter_state.entries)) for key in old]
    votes = [vote for history in histories for vote in history.votes if vote.prev == current.digest]
    all_votes = tuple(dict.fromkeys((*votes, *charter_state.votes_of(before.identity))))
    known = sum(history.lost(current.digest) is None for history in histories)
    if known > len(before.keys.keys) - before.keys.threshold:
        return VoteHistory(all_votes)
    why = "the vote files of the previous keys were missing when this key was made"
    return VoteHistory(all_votes, (VoteMark("lost", current.digest, why),))


def _all_of(keys: Sequence[VerifyingKey]) -> KeySet:
    return KeySet(tuple(keys), len(keys))


RISK = (
    "If this key signed a vote that none of these copies contains, and somebody kept that vote, your next vote is "
    "permanent public proof that your member equivocated."
)


@frozen
class Resumption:
    """A decision of the owner: to vote again on the epoch after `prev`, with only the votes in `found` known.

    Show `risk`, and get the owner's agreement, before `resume_voting`.
    """

    key: GovernanceKey
    prev: Digest
    found: tuple[Vote, ...]
    copies: tuple[str, ...]
    risk: str = RISK


def prepare_resumption(
    charter_state: CharterState, key: GovernanceKey, copies: Mapping[Digest, CharterMaterial]
) -> Resumption:
    """Prepare the decision to vote again.

    Args:
        copies: for each other active member, its mirror of this member's home log, at least the votes.

    Raises Refused (VOTES-COPIES) naming the members without a copy, and as `CharterState.seat_of` does.
    """
    seat, _ = charter_state.seat_of(key.public)
    others = [other for other in charter_state.current.active if other.id != seat.id]
    missing = [other.name for other in others if other.id not in copies]
    if missing:
        why = f"no copy of this member's home log from {', '.join(missing)}"
        hint = "get the copies, or do not vote with this key in this epoch"
        raise Refused("the votes of this key are not known well enough", why=why, hint=hint, code="VOTES-COPIES")
    prev, found = charter_state.current.digest, dict[Vote, None]()
    for material in (charter_state.material, *copies.values()):
        entries = compute_charter_state(charter_state.start, material).entries
        found |= dict.fromkeys(vote for vote in votes_signed_by(key.public, entries) if vote.prev == prev)
    return Resumption(key, prev, tuple(found), tuple(other.name for other in others))


def resume_voting(decided: Resumption) -> None:
    """Apply the decision after the owner has read the risk. Raises OutOfSpace, Unavailable, and as `VoteFile`."""
    why = f"the owner's decision, after importing the home log as mirrored by {', '.join(decided.copies)}"
    decided.key.votes.resume(decided.prev, decided.found, why[:1000])
