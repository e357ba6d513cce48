"""The keys by which an author is judged when a statement is submitted: those that this node knows, and those of the
inceptions and rotations in the same submission."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from comity.ledger.ledger import Ledger
from comity.node.intake import already_verified
from comity.node.members import Membership
from comity.rules.statement_readers import read_content
from comity.trust.authorship import AuthorKeys, judge_author, kept_rotations
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Untrusted
from comity.trust.identity import Inception, KeySet, check_inception
from comity.trust.keys import PublicKey
from comity.trust.rotation import KeyState, follow
from comity.trust.statement import Author, Entry, Envelope, parse_entry
from comity.trust.statement_kinds import INCEPTION, ROTATED


class AuthorVerifier:
    """Verifies statements by the records that this node holds, and by inceptions and rotations in the same submission.
    The records of an author are read once: make another one for the next submission.

    Args:
        submitted: entries of the submission.
    """

    def __init__(self, ledger: Ledger, membership: Membership, submitted: Iterable[Entry] = ()) -> None:
        self._ledger = ledger
        self._membership = membership
        entries = list(submitted)
        self._inceptions = [entry for entry in entries if entry.statement.predicate == INCEPTION]
        self._rotations = [entry for entry in entries if entry.statement.predicate == ROTATED]
        self._keys: dict[Author, AuthorKeys] = {}

    def verify(self, entry: Entry) -> None:
        """Blocking. Raises Malformed, Untrusted, and NotFound (UNKNOWN-IDENTITY) if the author has no record."""
        author = entry.statement.by
        judged = judge_author(entry, self.keys(author) if author else AuthorKeys())
        if judged.error is not None:
            explained = self._online_key(entry, author.id) if author and judged.error.code == "SIGNATURE" else None
            raise explained or judged.error
        read_content(entry)

    def keys(self, author: Author) -> AuthorKeys:
        """What is known of an author's keys: those of an identity from its inception, and from what charters list, with
        the rotations of the submission. Blocking."""
        if author not in self._keys:
            self._keys[author] = self._read(author)
        return self._keys[author]

    def _read(self, author: Author) -> AuthorKeys:
        if author.kind == "node":
            record = self._membership.node(author)
            return AuthorKeys(node=record.online if record else None)
        inception = self._inception(author.id)
        starts = [KeyState.of_inception(inception)] if inception else []
        starts += [chain.start for chain in self._membership.chains(author.id)]
        proven = [parse_entry(line) for line in self._ledger.proven.rotations(author.id)]
        proven_envelopes = {entry.envelope for entry in proven}

        def signed(keys: KeySet, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> bool:
            return envelope in proven_envelopes or keys.signed(envelope, extra_keys)

        rotations = [*self._rotations, *proven]
        chains = tuple(follow(start, rotations, signed=signed) for start in dict.fromkeys(starts))
        valid = {step.entry.statement_digest: step.entry for chain in chains for step in chain.steps}
        kept = kept_rotations({entry.statement_digest: entry for entry in (*valid.values(), *proven)}.values())
        return AuthorKeys(inception, chains, kept=kept)

    def _inception(self, identity: Digest) -> Inception | None:
        """The verified inception of an identity. Blocking."""
        for entry in self._inceptions:
            inception = _inception(entry)
            if inception is not None and inception.id == identity:
                return inception
        line = self._ledger.proven.inception(identity)
        return check_inception(parse_entry(line), signed=already_verified) if line is not None else None

    def _online_key(self, entry: Entry, identity: Digest) -> Untrusted | None:
        """The error for a statement of a member that a key of its node signed; None for another one."""
        nodes = [peer.record for peer in self._membership.nodes_of(identity)]
        for record in (self._membership.own_node.record, *nodes):
            if record.member == identity and entry.envelope.verified_by(record.online):
                return Untrusted(
                    f"{entry.statement.predicate} refused",
                    why=f"it is signed by the online key of {record.name}, which signs only for the node",
                    hint="sign it with the member's governance key, which no node holds",
                    code="ONLINE-KEY",
                )
        return None


def _inception(entry: Entry) -> Inception | None:
    try:
        return check_inception(entry)
    except ComityError:
        return None
