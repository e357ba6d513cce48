"""Verifies that a statement is signed by its author: an identity by its inception or the charter's keys, a node by its
record."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from comity.ledger.ledger import Ledger
from comity.node.charter.inbox import CHARTER_PREDICATES
from comity.node.intake import PARSERS, already_verified
from comity.node.members import Membership
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound, Untrusted
from comity.trust.identity import Inception, KeySet, check_inception
from comity.trust.keys import PublicKey
from comity.trust.node_records import check_node_record, signed_by_node
from comity.trust.rotation import KeyState, RotationChain, check_rotation, follow
from comity.trust.statement import Entry, Envelope, parse_entry
from comity.trust.statements import check_published


@dataclass(frozen=True, slots=True)
class AuthorKeys:
    """The keys of an identity: its rotation chains, from each known key state."""

    chains: tuple[RotationChain, ...]

    def signed(self, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> bool:
        return any(chain.signed(envelope, extra_keys) for chain in self.chains)


class AuthorVerifier:
    """Verifies statements by the records that this node holds, and by inceptions and rotations in the same submission.

    Args:
        submitted: entries of the submission.
    """

    def __init__(self, ledger: Ledger, membership: Membership, submitted: Iterable[Entry] = ()) -> None:
        self._ledger = ledger
        self._membership = membership
        entries = list(submitted)
        self._inceptions = [entry for entry in entries if entry.statement.predicate == "inception"]
        self._rotations = [entry for entry in entries if entry.statement.predicate == "rotated"]

    def verify(self, entry: Entry) -> None:
        """Blocking. Raises Malformed, Untrusted, and NotFound (UNKNOWN-IDENTITY) if the author has no record."""
        statement = entry.statement
        if statement.predicate == "inception":
            check_inception(entry)
        elif statement.by is None:
            why = f"{statement.predicate[:80]!r} names no author in a known form"
            raise Untrusted("statement refused", why=why, code="AUTHOR")
        elif statement.by.kind == "node":
            self._verify_node(entry)
        elif statement.predicate == "node-record":
            check_node_record(entry, self.keys(statement.by.id))
        elif statement.predicate == "rotated":
            self._verify_rotation(entry, statement.by.id)
        elif statement.predicate == "published":
            check_published(entry, self.inception(statement.by.id), self.keys(statement.by.id))
        elif not self.keys(statement.by.id).signed(entry.envelope):
            raise self._signature_error(entry, statement.by.id)
        if parser := PARSERS.get(statement.predicate):
            parser(entry)

    def inception(self, identity: Digest) -> Inception:
        """The verified inception of an identity. Blocking. Raises NotFound (UNKNOWN-IDENTITY)."""
        for entry in self._inceptions:
            inception = _inception(entry)
            if inception is not None and inception.id == identity:
                return inception
        line = self._ledger.proven.inception(identity)
        if line is not None:
            return check_inception(parse_entry(line), signed=already_verified)
        raise NotFound(
            "unknown identity",
            why=f"no inception of {identity} is known",
            hint="send the inception line first, in the same submission",
            code="UNKNOWN-IDENTITY",
        )

    def keys(self, identity: Digest) -> AuthorKeys:
        """The keys of an identity, including those before and after its rotations. Blocking.

        Raises NotFound (UNKNOWN-IDENTITY) if no charter lists the identity and no inception of it is known.
        """
        proven = [parse_entry(line) for line in self._ledger.proven.rotations(identity)]
        proven_envelopes = {entry.envelope for entry in proven}

        def signed(keys: KeySet, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> bool:
            return envelope in proven_envelopes or keys.signed(envelope, extra_keys)

        rotations = [*self._rotations, *proven]
        return AuthorKeys(tuple(follow(start, rotations, signed=signed) for start in self._initial_states(identity)))

    def _initial_states(self, identity: Digest) -> list[KeyState]:
        chains = self._membership.chains(identity)
        return [chain.start for chain in chains] or [KeyState.of_inception(self.inception(identity))]

    def _verify_rotation(self, entry: Entry, identity: Digest) -> None:
        """Verify that the rotation continues known keys of the identity. Raises Untrusted (ROTATION)."""
        steps = (step for chain in self.keys(identity).chains for step in chain.steps)
        before = next((step.before for step in steps if step.entry.statement_digest == entry.statement_digest), None)
        if before is not None:
            check_rotation(entry, before)  # another envelope of the same statement may be valid and this one not
        else:
            why = f"it does not continue any known keys of {identity[:12]}"
            raise Untrusted("rotation refused", why=why, code="ROTATION")

    def _signature_error(self, entry: Entry, identity: Digest) -> Untrusted:
        what = f"{entry.statement.predicate} refused"
        nodes = [peer.record for peer in self._membership.nodes_of(identity)]
        for record in (self._membership.seat.record, *nodes):
            if record.member == identity and entry.envelope.verified_by(record.online):
                return Untrusted(
                    what,
                    why=f"it is signed by the online key of {record.name}, which signs only for the node",
                    hint="sign it with the member's governance key, which no node holds",
                    code="ONLINE-KEY",
                )
        return Untrusted(what, why=f"its signatures are not those of {identity[:12]}", code="SIGNATURE")

    def _verify_node(self, entry: Entry) -> None:
        author = entry.statement.by
        if entry.statement.predicate in CHARTER_PREDICATES:
            raise Untrusted(
                f"{entry.statement.predicate} refused",
                why="its author is a node, and only members may sign it",
                hint="sign it with the member's governance key, which no node holds",
                code="ONLINE-KEY",
            )
        record = self._membership.node(author) if author else None
        if record is None:
            why = "no valid node record binds its key"
            raise NotFound("unknown node", why=why, code="UNKNOWN-IDENTITY")
        if not signed_by_node(entry, record):
            why = f"its signatures are not those of {record.name}"
            raise Untrusted(f"{entry.statement.predicate} refused", why=why, code="SIGNATURE")


def _inception(entry: Entry) -> Inception | None:
    try:
        return check_inception(entry)
    except ComityError:
        return None
