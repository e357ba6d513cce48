"""Statements about a charter body, such as INTENT and RATIFY votes, drafts and consents; which vote a key may sign.

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

A key knows which votes about `prev` it signed (`VoteState`). `check_vote` refuses every vote that could prove the
equivocation of its member. Source: protocol, sections 5, 7.2, 7.3, 7.5 and 7.9.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, Fields, Json, bare_digest
from comity.trust.errors import Conflict, Malformed, Untrusted
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


_REFUSED: Final = "vote refused"


@dataclass(frozen=True, slots=True)
class VoteState:
    """The votes of one key about `prev`. `lost`: the record is incomplete, so the key does not vote on `prev` (7.5)."""

    prev: Digest
    intents: tuple[Intent, ...] = ()
    ratified: tuple[Ratify, ...] = ()
    lost: bool = False

    @property
    def round(self) -> int:
        """The newest round of a vote; 0 for none."""
        return max((vote.round for vote in self.votes), default=0)

    @property
    def votes(self) -> tuple[Vote, ...]:
        return (*self.intents, *self.ratified)

    @property
    def last_ratified(self) -> RoundBody | None:
        last = max(self.ratified, key=lambda vote: vote.round, default=None)
        return RoundBody(last.round, last.body) if last else None

    def adding(self, vote: Vote) -> VoteState:
        """This state with `vote` added. Not checked: call `check_vote` first."""
        if vote in self.votes:
            return self
        if isinstance(vote, Intent):
            return replace(self, intents=(*self.intents, vote))
        return replace(self, ratified=(*self.ratified, vote))


def check_vote(state: VoteState, vote: Vote) -> None:
    """Return if the key of `state` may sign `vote`. It may sign again what it signed before.

    Another key of the same member may have prepared the vote: it may declare a RATIFY that this key did not sign, but
    must not omit one that this key signed. Raises Conflict (VOTE-PREV) if the state is about another body, and
    Untrusted (VOTE-LOST, VOTE-VOID, VOTE-BACK, VOTE-TWICE, VOTE-LOCK).
    """
    if vote.prev != state.prev:
        raise Conflict(_REFUSED, why="this vote state is about another charter", code="VOTE-PREV")
    if state.lost:
        why = "this key lost its vote state: it must not vote until the charter changes"
        raise Untrusted(_REFUSED, why=why, code="VOTE-LOST")
    if vote in state.votes:
        return
    if not _rounds_never_decrease(state, vote):
        why = f"it already signed in round {state.round}, and rounds never decrease"
        raise Untrusted(_REFUSED, why=why, code="VOTE-BACK")
    if isinstance(vote, Intent):
        _check_intent(state, vote)
    elif not _one_ratify_a_round(state, vote):
        raise Untrusted(_REFUSED, why=f"it signed another RATIFY in round {vote.round}", code="VOTE-TWICE")


def _check_intent(state: VoteState, intent: Intent) -> None:
    if (reason := void_reason(intent)) is not None:
        raise Untrusted(_REFUSED, why=reason, code="VOTE-VOID")
    if not _one_intent_a_round(state, intent):
        raise Untrusted(_REFUSED, why=f"it signed another INTENT in round {intent.round}", code="VOTE-TWICE")
    if not _no_intent_after_ratify(state, intent):
        why = f"it already ratified in round {intent.round}, and INTENT comes before RATIFY"
        raise Untrusted(_REFUSED, why=why, code="VOTE-BACK")
    if not _declares_last_ratify(state, intent):
        raise Untrusted(_REFUSED, why="it does not declare the last RATIFY of this key", code="VOTE-LOCK")


def _rounds_never_decrease(state: VoteState, vote: Vote) -> bool:
    """7.2: rounds of INTENT and RATIFY together never decrease."""
    return vote.round >= state.round


def _one_intent_a_round(state: VoteState, vote: Intent) -> bool:
    """7.2: one INTENT for each round."""
    return all(before.round != vote.round for before in state.intents)


def _one_ratify_a_round(state: VoteState, vote: Ratify) -> bool:
    """7.2: one RATIFY for each round."""
    return all(before.round != vote.round for before in state.ratified)


def _no_intent_after_ratify(state: VoteState, vote: Intent) -> bool:
    """7.2: within a round, INTENT comes before RATIFY; so `last_ratified` is always of an earlier round."""
    return all(before.round != vote.round for before in state.ratified)


def _declares_last_ratify(state: VoteState, vote: Intent) -> bool:
    """7.2: `last_ratified` is this member's last RATIFY."""
    own, declared = state.last_ratified, vote.last_ratified
    if own is None:
        return True
    return declared is not None and (declared == own or declared.round > own.round)
