"""Who really said it. A statement is proven by a record: an inception, a charter's member keys, or a node record."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from comity.node.charter.inbox import SPOKEN
from comity.node.context import NodeContext
from comity.node.intake import READERS
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound, Untrusted
from comity.trust.identity import Inception, KeySet, check_inception
from comity.trust.keys import PublicKey
from comity.trust.rotation import KeyState, RotationChain, check_rotation, follow
from comity.trust.statement import Entry, Envelope, parse_entry
from comity.trust.statements import check_node_record, check_published, signed_by_node


@dataclass(frozen=True, slots=True)
class AuthorKeys:
    """An identity as it speaks: its rotations, from each state in which it is known."""

    chains: tuple[RotationChain, ...]

    def signed(self, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
        return any(chain.signed(envelope, beside) for chain in self.chains)


class AuthorVerifier:
    """Proves statements by what this node holds, and by the inceptions among the lines that come together.

    Args:
        arriving: entries of the submission at hand.
    """

    def __init__(self, core: NodeContext, arriving: Iterable[Entry] = ()) -> None:
        self._core = core
        entries = list(arriving)
        self._arriving = [entry for entry in entries if entry.statement.predicate == "inception"]
        self._rotations = [entry for entry in entries if entry.statement.predicate == "rotated"]

    def prove(self, entry: Entry) -> None:
        """Blocking. Raises Malformed, Untrusted, and NotFound (UNKNOWN-IDENTITY) without a record of its author."""
        statement = entry.statement
        if statement.predicate == "inception":
            check_inception(entry)
        elif statement.by is None:
            why = f"{statement.predicate[:80]!r} does not say who speaks in a way that is known here"
            raise Untrusted("statement refused", why=why, code="AUTHOR")
        elif statement.by.kind == "node":
            self._prove_node(entry)
        elif statement.predicate == "node-record":
            check_node_record(entry, self.keys(statement.by.id))
        elif statement.predicate == "rotated":
            self._prove_rotation(entry, statement.by.id)
        elif statement.predicate == "published":
            check_published(entry, self.inception(statement.by.id), self.keys(statement.by.id))
        elif not self.keys(statement.by.id).signed(entry.envelope):
            raise self._not_signed(entry, statement.by.id)
        if reader := READERS.get(statement.predicate):
            reader(entry)

    def inception(self, identity: Digest) -> Inception:
        """The proven record of an identity. Blocking. Raises NotFound (UNKNOWN-IDENTITY)."""
        for entry in self._arriving:
            inception = _inception(entry)
            if inception is not None and inception.id == identity:
                return inception
        line = self._core.ledger.proven.inception(identity)
        if line is not None:
            return check_inception(parse_entry(line), signed=_believed)
        raise NotFound(
            "unknown identity",
            why=f"no inception of {identity} is here",
            hint="send the inception line first, in the same submission",
            code="UNKNOWN-IDENTITY",
        )

    def keys(self, identity: Digest) -> AuthorKeys:
        """By which keys an identity speaks, those that it has rotated to or from included. Blocking.

        Raises NotFound (UNKNOWN-IDENTITY) for one without a seat and an inception that is here.
        """
        proven = [parse_entry(line) for line in self._core.ledger.proven.rotations(identity)]
        believed = {entry.envelope for entry in proven}

        def signed(keys: KeySet, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
            return envelope in believed or keys.signed(envelope, beside)

        rotations = [*self._rotations, *proven]
        return AuthorKeys(tuple(follow(start, rotations, signed=signed) for start in self._starts(identity)))

    def _starts(self, identity: Digest) -> list[KeyState]:
        chains = self._core.membership.chains(identity)
        return [chain.start for chain in chains] or [KeyState.of_inception(self.inception(identity))]

    def _prove_rotation(self, entry: Entry, identity: Digest) -> None:
        """That it leads on from keys by which the identity speaks. Raises Untrusted (ROTATION)."""
        steps = (step for chain in self.keys(identity).chains for step in chain.steps)
        before = next((step.before for step in steps if step.entry.statement_digest == entry.statement_digest), None)
        if before is not None:
            check_rotation(entry, before)  # that one envelope of it is good says nothing of this one
        else:
            why = f"it leads on from no keys of {identity[:12]} that are known here"
            raise Untrusted("rotation refused", why=why, code="ROTATION")

    def _not_signed(self, entry: Entry, identity: Digest) -> Untrusted:
        what = f"{entry.statement.predicate} refused"
        nodes = [peer.record for peer in self._core.membership.nodes_of(identity)]
        for record in (self._core.seat.record, *nodes):
            if record.member == identity and entry.envelope.verified_by(record.online):
                return Untrusted(
                    what,
                    why=f"it is signed by the online key of {record.name}, which speaks for the node alone",
                    hint="sign it with the member's governance key, which no node holds",
                    code="ONLINE-KEY",
                )
        return Untrusted(what, why=f"its signatures are not those of {identity[:12]}", code="SIGNATURE")

    def _prove_node(self, entry: Entry) -> None:
        author = entry.statement.by
        if entry.statement.predicate in SPOKEN:
            raise Untrusted(
                f"{entry.statement.predicate} refused",
                why="it says of itself that a node speaks, and only members decide",
                hint="sign it with the member's governance key, which no node holds",
                code="ONLINE-KEY",
            )
        record = self._core.membership.node(author) if author else None
        if record is None:
            why = "no node-record that this node's charter proves binds its key"
            raise NotFound("unknown node", why=why, code="UNKNOWN-IDENTITY")
        if not signed_by_node(entry, record):
            why = f"its signatures are not those of {record.name}"
            raise Untrusted(f"{entry.statement.predicate} refused", why=why, code="SIGNATURE")


def _inception(entry: Entry) -> Inception | None:
    try:
        return check_inception(entry)
    except ComityError:
        return None


def _believed(keys: KeySet, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
    """What was proven once is not proven again."""
    return True
