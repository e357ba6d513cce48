"""Judges whether a statement is by the author that it names. Admission, intake, clients, the verifier and the judge of
officers' approvals all ask `judge_author`, so that for the same keys they have the same answer.

    inception     proves itself
    node          signed by the online key of the node; what only members may sign is refused
    published     signed by keys that rotations reach from the publisher's inception
    node-record   signed by keys of the member, and by every key that it binds
    rotated       continues a known key state of the identity
    others        signed by keys that rotations reach from the inception, or from a key state that a charter lists

A predicate type of another program names no author in the form that Comity has, and is refused: what an identity signs
for cosign or other tools with the same key is no statement of it, even where its key has one half.

The content of other statements is not read here. There are two limits. The number of a rotation is at most
`rotation.MAX_ROTATIONS`: no rotation above that exists, for anybody. And a node keeps at most MAX_RIVALS rotations of
one identity that replace a key state which another one replaces too, because it holds the keys of all branches. A
verifier has no such limit: more evidence never takes a proof away. Source: protocol, sections 3 and 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, NotFound, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import Inception, check_inception
from comity.trust.keys import VerifyingKey
from comity.trust.node_records import NodeRecord
from comity.trust.rotation import MAX_ROTATIONS, KeyState, RotationChain, check_rotation, parse_rotation
from comity.trust.statement import Author, Entry
from comity.trust.statement_kinds import CHARTER_PREDICATES, INCEPTION, NODE_RECORD, PUBLISHED, ROTATED

MAX_RIVALS: Final = 8
"""Rotations of one identity that a node keeps beyond one for each key state."""
MAX_KEPT_ROTATIONS: Final = MAX_ROTATIONS * (1 + MAX_RIVALS)
"""Rotations of one identity that a node keeps at most: each rival may begin a branch."""


class Authorship(Enum):
    """PROVEN: by its author. UNKNOWN: no known key of the author made its signatures; keys that become known may have.
    REFUSED: invalid, whatever becomes known."""

    PROVEN = "proven"
    UNKNOWN = "unknown"
    REFUSED = "refused"


@frozen
class AuthorKeys:
    """What is known of the keys of one author.

    Attributes:
        inception: of an identity; None if it is not known.
        chains: the rotation chains of an identity: from its inception, and from each state that a charter lists for it.
        node: the online key of a node; None if no valid record binds it.
        kept: at a node, the rotations that it keeps of the identity: by statement digest, the state that each replaces.
            None without the limit MAX_RIVALS.
    """

    inception: Inception | None = None
    chains: tuple[RotationChain, ...] = ()
    node: VerifyingKey | None = None
    kept: Mapping[Digest, Digest] | None = None

    def chains_for(self, predicate: str) -> tuple[RotationChain, ...]:
        """The chains whose keys may sign a statement with this predicate."""
        if predicate != PUBLISHED:
            return self.chains
        if self.inception is None:
            return ()
        start = KeyState.of_inception(self.inception)
        return tuple(chain for chain in self.chains if chain.start == start)


@frozen
class JudgedAuthor:
    """The result. `chain` has the keys that signed, None if these are no keys of an identity; `error` says why the
    author is not proven."""

    authorship: Authorship
    chain: RotationChain | None = None
    error: ComityError | None = None

    @property
    def proven(self) -> bool:
        return self.authorship is Authorship.PROVEN


def judge_author(entry: Entry, keys: AuthorKeys) -> JudgedAuthor:
    """Judge whether the author that a statement names said it.

    Args:
        keys: those of that author, as far as they are known.
    """
    try:
        return _judge(entry, entry.statement.by, keys)
    except ComityError as error:
        return JudgedAuthor(Authorship.REFUSED, error=error)


def _judge(entry: Entry, by: Author | None, keys: AuthorKeys) -> JudgedAuthor:
    """Raises Malformed, Untrusted."""
    predicate = entry.statement.predicate
    if predicate == INCEPTION:
        check_inception(entry)
        return JudgedAuthor(Authorship.PROVEN)
    if by is None:
        why = f"{predicate[:80]!r} names no author in a known form"
        raise Untrusted("statement refused", why=why, code="AUTHOR")
    if by.kind == "node":
        return _judge_node(entry, keys.node)
    if predicate == ROTATED:
        return _judge_rotation(entry, by.id, keys)
    return _judge_signatures(entry, by.id, keys)


def _judge_node(entry: Entry, key: VerifyingKey | None) -> JudgedAuthor:
    predicate = entry.statement.predicate
    if predicate in CHARTER_PREDICATES:
        raise Untrusted(
            f"{predicate} refused",
            why="its author is a node, and only members may sign it",
            hint="sign it with the member's governance key, which no node holds",
            code="ONLINE-KEY",
        )
    if key is None:
        return _unknown(NotFound("unknown node", why="no valid node record binds its key", code="UNKNOWN-IDENTITY"))
    if not entry.envelope.verified_by(key):
        raise Untrusted(f"{predicate} refused", why="its signatures are not those of the node", code="SIGNATURE")
    return JudgedAuthor(Authorship.PROVEN)


def _judge_rotation(entry: Entry, identity: Digest, keys: AuthorKeys) -> JudgedAuthor:
    rotation, _ = parse_rotation(entry)
    for chain in keys.chains:
        before = chain.before(rotation)
        if before is not None:
            check_rotation(entry, before)
            _require_room(entry, rotation.prev, keys)
            return JudgedAuthor(Authorship.PROVEN, chain)
    if not keys.chains:
        return _unknown(_unknown_identity(identity))
    why = f"it does not continue any known keys of {short(identity)}"
    return _unknown(Untrusted("rotation refused", why=why, code="ROTATION"))


def _require_room(entry: Entry, prev: Digest, keys: AuthorKeys) -> None:
    """Raises Untrusted (ROTATION-RIVALS) if the rotation is one rival too many."""
    if keys.kept is None:
        return
    kept = {**keys.kept, entry.statement_digest: prev}
    rival = sum(state == prev for state in kept.values()) > 1
    if rival and len(kept) - len(set(kept.values())) > MAX_RIVALS:
        raise Untrusted(
            "rotation refused",
            why=f"{MAX_RIVALS} rotations of this identity already replace keys that another one replaces too",
            hint="a holder of its recovery keys signed them; make a new identity with new recovery keys",
            code="ROTATION-RIVALS",
        )


def _judge_signatures(entry: Entry, identity: Digest, keys: AuthorKeys) -> JudgedAuthor:
    predicate = entry.statement.predicate
    bound = NodeRecord.parse(entry.statement).bound_keys if predicate == NODE_RECORD else ()
    chains = keys.chains_for(predicate)
    for chain in chains:
        if chain.matching(entry.envelope, bound):
            if not chain.signed(entry.envelope, bound):
                raise _not_signed(entry, identity, keys.inception)
            return JudgedAuthor(Authorship.PROVEN, chain)
    return _unknown(_not_signed(entry, identity, keys.inception) if chains else _unknown_identity(identity))


def _unknown(error: ComityError) -> JudgedAuthor:
    return JudgedAuthor(Authorship.UNKNOWN, error=error)


def _not_signed(entry: Entry, identity: Digest, inception: Inception | None) -> Untrusted:
    if entry.statement.predicate == NODE_RECORD:
        why = "not signed by exactly the member's governance keys and each bound key"
        return Untrusted("node record refused", why=why, code="NODE-RECORD")
    label = f"{inception.label} [{short(identity)}]" if inception and inception.label else short(identity)
    why = f"not signed by the keys of {label}"
    return Untrusted(f"{entry.statement.predicate} refused", why=why, code="SIGNATURE")


def _unknown_identity(identity: Digest) -> NotFound:
    return NotFound(
        "unknown identity",
        why=f"no inception of {identity} is known",
        hint="send the inception line first, in the same submission",
        code="UNKNOWN-IDENTITY",
    )


def kept_rotations(entries: Iterable[Entry]) -> Mapping[Digest, Digest]:
    """By statement digest, the state that each of these valid rotations replaces. Raises Malformed for another one."""
    return {entry.statement_digest: parse_rotation(entry)[0].prev for entry in entries}
