"""Node records before a charter: a record counts if a member of the charter signed it.

A node record binds a node's keys to its member. It is signed with the member's keys, which the charter body lists, or
with keys that the member's own rotations lead to. Source: protocol, section 7.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comity.trust.charter.document import Body
from comity.trust.errors import ComityError, Untrusted
from comity.trust.rotation import RotationChains, SigningStates
from comity.trust.statement import Entry
from comity.trust.statements import NodeRecord, parse_node_record, prove_node_record


@dataclass(frozen=True, slots=True)
class FederationNode:
    """A node as federation files list it: its verified record, the line that proves it, and its addresses (hints)."""

    record: NodeRecord
    line: bytes
    mutual: tuple[str, ...]
    open: tuple[str, ...]


def prove_record(entry: Entry, body: Body, chains: RotationChains | None = None) -> NodeRecord:
    """The record, if a member of `body` signed it with keys listed there, or with keys that its own rotations lead to.

    The time of the record and disputes between rotations do not matter: every key on every branch counts. Otherwise a
    later rotation could invalidate a counted cosigner (I4), and a member could withdraw what it witnessed by a
    conflicting rotation. A stolen key, current or retired, cannot start a branch. Most recovery keys can, but gain
    little: a seat counts once for any number of keys. Pinning a body that lists newer keys ends that branch.

    Raises Malformed/Untrusted.
    """
    return prove_record_states(entry, body, chains or RotationChains())[0]


def prove_record_states(entry: Entry, body: Body, chains: RotationChains) -> tuple[NodeRecord, SigningStates]:
    """As `prove_record`, and also the key states by which the member signed."""
    claimed = parse_node_record(entry)
    member = body.member(claimed.member)
    if member is None:
        raise Untrusted("node record refused", why="its member is not in the pinned charter", code="NON-MEMBER")
    states = SigningStates.of(chains.follow(member.key_state), entry.envelope, claimed.bound_keys)
    return prove_node_record(claimed, entry, states), states


def prove_by_newest(entry: Entry, chain: Sequence[Body], chains: RotationChains) -> NodeRecord:
    """The record, verified by the newest body that proves it: a node does not sign again for each epoch.

    `chain` has at least one body. If none proves the record, raises Malformed/Untrusted, as for the newest body.
    """
    refusals: list[ComityError] = []
    for body in reversed(chain):
        try:
            return prove_record(entry, body, chains)
        except ComityError as error:
            refusals.append(error)
    raise refusals[0]
