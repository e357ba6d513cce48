"""Statements about a charter body, such as INTENT and RATIFY votes, drafts and consents.

    intent    { prev, epoch, round, body, last_ratified: null | {round, body}, unlock: null | round }
    ratified  { prev, epoch, round, body }
    draft     a member proposes a body; the body is a side object, and `text` gives the reason
    consented a member without a vote agrees to its seat in exactly this body; a founder to a genesis
    draft-withdrawn  a member no longer proposes a body; its votes stay what they are
    left      a member asks to be left out of the next body; only a charter changes the number of members
    adopted   a node (its online key) acts under this body from now on

`prev` is the current body, `body` the proposed next one; rounds count from 1. A vote has exactly one encoding: the
parser encodes it again and compares, so m signatures of one member cover identical bytes. This module checks content
only; `certificate` checks signatures and counts. Only votes and consents decide anything.

Which vote a key may sign is decided in `comity.rules.vote_state`. Source: protocol, sections 5, 7.2, 7.3 and 7.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Final, TypeAlias

from comity.trust.charter.document import Body
from comity.trust.codec import JsonNumber, JsonObject, JsonText
from comity.trust.content import ById, Content
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.keys import Signer
from comity.trust.statement import Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.statement_kinds import (
    ADOPTED,
    CONSENTED,
    DRAFT,
    DRAFT_WITHDRAWN,
    INTENT,
    LEFT,
    RATIFIED,
    VOTE_PREDICATES,
)

MAX_TEXT: Final = 4000


@frozen
class BodyStatement(Content):
    """A statement about a body, which it names by its digest. `by` is a member, or a node for `adopted`."""

    named_objects: ClassVar = 1
    by: ById
    federation: Digest
    prev: Digest | None
    body: Digest

    @property
    def text(self) -> str:
        """The reason; empty for a kind that gives none."""
        return ""

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject("charter", self.body),)

    def check(self, statement: Statement) -> None:
        if statement.subject != self.body:
            raise self.malformed("its subject is another body")
        if [item.digest for item in statement.objects] != [self.body][: self.named_objects]:
            why = "its only side object must be the body" if self.named_objects else "it names a side object"
            raise self.malformed(why)


@frozen
class Drafted(BodyStatement):
    """A member proposes a charter body."""

    predicate: ClassVar = DRAFT
    text: Annotated[str, JsonText(MAX_TEXT, 0, lines=True)] = ""


@frozen
class DraftWithdrawn(Drafted):
    """A member proposes a charter body no longer. It names no side object: the log that has the draft has the body."""

    predicate: ClassVar = DRAFT_WITHDRAWN
    named_objects: ClassVar = 0


@frozen
class Leaving(Drafted):
    """A member asks to be left out of the next body."""

    predicate: ClassVar = LEFT


@frozen
class Consented(BodyStatement):
    """A founder or newcomer agrees to its seat in exactly one body."""

    predicate: ClassVar = CONSENTED


@frozen
class Adopted(BodyStatement):
    """A node acts under this body from now on."""

    predicate: ClassVar = ADOPTED


BODY_STATEMENTS: Final[Mapping[str, type[BodyStatement]]] = {
    each.predicate: each for each in (Drafted, DraftWithdrawn, Consented, Leaving, Adopted)
}


def draft_statement(body: Body, member: Digest, text: str) -> Statement:
    """Propose `body`; `text` (at most 4,000 characters) gives the other members the reason."""
    return _of_body(Drafted(member, body.federation, body.prev, body.digest, text), body)


def draft_withdrawn_statement(body: Body, member: Digest, text: str = "") -> Statement:
    """Propose `body` no longer."""
    return _of_body(DraftWithdrawn(member, body.federation, body.prev, body.digest, text), body)


def consent_statement(body: Body, member: Digest) -> Statement:
    """Agree to exactly `body`. The statement to sign, for signers in several places."""
    return _of_body(Consented(member, body.federation, body.prev, body.digest), body)


def consent(body: Body, member: Digest, *signers: Signer) -> Entry:
    """Sign a member's `consented`. A new seat consents with *all* its keys, a founder with its threshold."""
    return sign_statement(consent_statement(body, member), *signers)


def left_statement(body: Body, member: Digest, text: str = "") -> Statement:
    """Ask to be left out of the body that follows `body`, the current one."""
    return _of_body(Leaving(member, body.federation, body.prev, body.digest, text), body)


def adopted_statement(body: Body, node: Digest) -> Statement:
    """A node states, under its online key (whose id is `node`), that it acts under `body`."""
    return _of_body(Adopted(node, body.federation, body.prev, body.digest), body)


def _of_body(said: BodyStatement, body: Body) -> Statement:
    return replace(said.statement(), objects=(SideObject.of(body.data),)[: said.named_objects])


def parse_body_statement(entry: Entry) -> BodyStatement:
    """Parse a `draft`, `draft-withdrawn`, `consented`, `left` or `adopted`. Verifies no signature. Raises Malformed."""
    statement = entry.statement
    if statement.predicate not in BODY_STATEMENTS:
        raise Malformed("not about a charter", why=f"a statement of type {statement.predicate[:60]!r}")
    return BODY_STATEMENTS[statement.predicate].parse(statement)


@frozen
class RoundBody(JsonObject):
    """A body in one round."""

    round: Annotated[int, JsonNumber(1)]
    body: Digest


class _Vote(Content):
    __slots__ = ()
    body: Digest

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject("charter", self.body),)


@frozen
class Intent(_Vote):
    """The first vote on a body: the member will ratify `body` in `round` if a quorum has the same intent.

    `last_ratified` is the member's last RATIFY for the same `prev`, of an earlier round. `unlock` names the round of
    the intent-certificate for `body` that allows this INTENT after that RATIFY.
    """

    predicate: ClassVar = INTENT
    member: ById
    prev: Digest
    epoch: Annotated[int, JsonNumber(1)]
    round: Annotated[int, JsonNumber(1)]
    body: Digest
    last_ratified: RoundBody | None = None
    unlock: Annotated[int, JsonNumber(1)] | None = None


@frozen
class Ratify(_Vote):
    """The second vote on a body: it follows `prev`, because a quorum signed INTENT for it in `round`."""

    predicate: ClassVar = RATIFIED
    member: ById
    prev: Digest
    epoch: Annotated[int, JsonNumber(1)]
    round: Annotated[int, JsonNumber(1)]
    body: Digest


Vote: TypeAlias = Intent | Ratify


def parse_vote(entry: Entry) -> Vote:
    """Parse an INTENT or RATIFY. Verifies no signature. Raises Malformed, also if the encoding is not canonical."""
    statement = entry.statement
    if statement.predicate not in VOTE_PREDICATES or statement.by is None or statement.by.kind != "identity":
        raise Malformed("not a vote", why="neither an intent nor a ratified statement of a member")
    vote: Vote = (Intent if statement.predicate == INTENT else Ratify).parse(statement)
    if vote.statement().encode() != entry.envelope.payload:
        raise vote.malformed("it is not the canonical encoding of this vote")
    return vote


def void_reason(intent: Intent) -> str | None:
    """Why this INTENT is void by its own content; None if it may count (7.2)."""
    if not _unlock_is_earlier(intent):
        return "the intent-certificate that it names is not of an earlier round"
    if not _unlock_covers_lock(intent):
        return "the intent-certificate that it names does not unlock the body that it ratified"
    return None


def _unlock_is_earlier(intent: Intent) -> bool:
    """7.2: `unlock` is a round r' < s."""
    return intent.unlock is None or intent.unlock < intent.round


def _unlock_covers_lock(intent: Intent) -> bool:
    """7.2: after RATIFY (r, h), an INTENT for b names an intent-certificate for b itself, of a round r' with r <= r' if
    b = h, and r < r' otherwise; so r < s as well. A member that ratified nothing names none."""
    last, unlock = intent.last_ratified, intent.unlock
    if last is None or unlock is None:
        return last is None and unlock is None
    return last.round <= unlock if last.body == intent.body else last.round < unlock
