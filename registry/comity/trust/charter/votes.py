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

import dataclasses
from dataclasses import dataclass
from typing import Final, TypeAlias

from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, Fields, Json, bare_digest
from comity.trust.errors import Malformed
from comity.trust.keys import Signer
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.statement_kinds import (
    ADOPTED,
    BODY_PREDICATES,
    CONSENTED,
    DRAFT,
    DRAFT_WITHDRAWN,
    INTENT,
    LEFT,
    RATIFIED,
    STATEMENT_KINDS,
    VOTE_PREDICATES,
)

MAX_TEXT: Final = 4000


@dataclass(frozen=True, slots=True)
class BodyStatement:
    """A `draft`, `draft-withdrawn`, `consented`, `left` or `adopted` statement about a body. `by` is a member, or a
    node for `adopted`."""

    predicate: str
    by: Digest
    federation: Digest
    prev: Digest | None
    body: Digest
    text: str = ""


def draft_statement(body: Body, member: Digest, text: str) -> Statement:
    """Propose `body`; `text` (at most 4,000 characters) gives the other members the reason."""
    return _draft_statement(DRAFT, body, Author("identity", member), {"text": text})


def draft_withdrawn_statement(body: Body, member: Digest, text: str = "") -> Statement:
    """Propose `body` no longer. It names no side object: the log that has the draft has the body."""
    return dataclasses.replace(
        _draft_statement(DRAFT_WITHDRAWN, body, Author("identity", member), {"text": text}), objects=()
    )


def consent_statement(body: Body, member: Digest) -> Statement:
    """Agree to exactly `body`. The statement to sign, for signers in several places."""
    return _draft_statement(CONSENTED, body, Author("identity", member))


def consent(body: Body, member: Digest, *signers: Signer) -> Entry:
    """Sign a member's `consented`. A new seat consents with *all* its keys, a founder with its threshold."""
    return sign_statement(consent_statement(body, member), *signers)


def left_statement(body: Body, member: Digest, text: str = "") -> Statement:
    """Ask to be left out of the body that follows `body`, the current one."""
    return _draft_statement(LEFT, body, Author("identity", member), {"text": text})


def adopted_statement(body: Body, node: Digest) -> Statement:
    """A node states, under its online key (whose id is `node`), that it acts under `body`."""
    return _draft_statement(ADOPTED, body, Author("node", node))


def parse_body_statement(entry: Entry) -> BodyStatement:
    """Parse a `draft`, `draft-withdrawn`, `consented`, `left` or `adopted`. Verifies no signature. Raises Malformed."""
    statement = entry.statement
    if statement.predicate not in BODY_PREDICATES or statement.by is None:
        raise Malformed("not about a charter", why=f"a statement of type {statement.predicate[:60]!r}")
    if not STATEMENT_KINDS[statement.predicate].by.allows(statement.by.kind):
        raise Malformed(f"{statement.predicate} is malformed", why=f"a {statement.by.kind} cannot be its author")
    fields = statement.fields()
    prev, texted = fields.take("prev"), statement.predicate in (DRAFT, DRAFT_WITHDRAWN, LEFT)
    named = BodyStatement(
        predicate=statement.predicate,
        by=statement.by.id,
        federation=fields.digest("federation"),
        prev=None if prev is None else bare_digest(prev),
        body=fields.digest("body"),
        text=fields.text("text", least=0, most=MAX_TEXT, lines=True) if texted else "",
    )
    fields.done()
    if statement.sole_subject() != named.body:
        raise Malformed(f"{statement.predicate} is malformed", why="its subject is another body")
    withdrawn = statement.predicate == DRAFT_WITHDRAWN
    if [item.digest for item in statement.objects] != ([] if withdrawn else [named.body]):
        why = "it names a side object" if withdrawn else "its only side object must be the body"
        raise Malformed(f"{statement.predicate} is malformed", why=why)
    return named


def _draft_statement(predicate: str, body: Body, by: Author, more: dict[str, Json] | None = None) -> Statement:
    return Statement(
        predicate,
        (Subject("charter", body.digest),),
        by,
        {"federation": body.federation, "prev": body.prev, "body": body.digest, **(more or {})},
        (SideObject.of(body.data),),
    )


@dataclass(frozen=True, slots=True)
class RoundBody:
    """A body in one round."""

    round: int
    body: Digest


@dataclass(frozen=True, slots=True)
class Intent:
    """The first vote: the member will ratify `body` in `round` if a quorum has the same intent.

    `last_ratified` is the member's last RATIFY for the same `prev`, of an earlier round. `unlock` names the round of
    the intent-certificate for `body` that allows this INTENT after that RATIFY.
    """

    member: Digest
    prev: Digest
    epoch: int
    round: int
    body: Digest
    last_ratified: RoundBody | None = None
    unlock: int | None = None

    def statement(self) -> Statement:
        last = self.last_ratified
        locked: Json = {"round": last.round, "body": last.body} if last else None
        return _vote_statement(INTENT, self, {"last_ratified": locked, "unlock": self.unlock})


@dataclass(frozen=True, slots=True)
class Ratify:
    """The second vote: `body` follows `prev`, because a quorum signed INTENT for it in `round`."""

    member: Digest
    prev: Digest
    epoch: int
    round: int
    body: Digest

    def statement(self) -> Statement:
        return _vote_statement(RATIFIED, self, {})


Vote: TypeAlias = Intent | Ratify


def parse_vote(entry: Entry) -> Vote:
    """Parse an INTENT or RATIFY. Verifies no signature. Raises Malformed, also if the encoding is not canonical."""
    statement = entry.statement
    if statement.predicate not in VOTE_PREDICATES or statement.by is None or statement.by.kind != "identity":
        raise Malformed("not a vote", why="neither an intent nor a ratified statement of a member")
    fields = statement.fields()
    vote = _read(fields, statement.by.id, statement.predicate)
    fields.done()
    if vote.statement().encode() != entry.envelope.payload:
        raise Malformed(f"{statement.predicate} is malformed", why="it is not the canonical encoding of this vote")
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


def _read(fields: Fields, member: Digest, predicate: str) -> Vote:
    prev, epoch = fields.digest("prev"), fields.integer("epoch", least=1)
    round_, body = fields.integer("round", least=1), fields.digest("body")
    if predicate == RATIFIED:
        return Ratify(member, prev, epoch, round_, body)
    return Intent(
        member, prev, epoch, round_, body, _last(fields.take("last_ratified")), _unlock(fields.take("unlock"))
    )


def _last(value: Json) -> RoundBody | None:
    if value is None:
        return None
    fields = Fields(value, "intent.last_ratified")
    last = RoundBody(fields.integer("round", least=1), bare_digest(fields.take("body")))
    fields.done()
    return last


def _unlock(value: Json) -> int | None:
    return None if value is None else Fields({"unlock": value}, INTENT).integer("unlock", least=1)


def _vote_statement(predicate: str, vote: Vote, more: dict[str, Json]) -> Statement:
    return Statement(
        predicate,
        (Subject("charter", vote.body),),
        Author("identity", vote.member),
        {"prev": vote.prev, "epoch": vote.epoch, "round": vote.round, "body": vote.body, **more},
    )
