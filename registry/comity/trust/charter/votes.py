"""What surrounds the two readings: drafts, consents, leaving, and a node's word that it took up an epoch.

    draft       a member puts a body forward; the body is a side object, and `text` says why
    consented   a member that has no vote yet agrees to its seat in exactly this body; a founder to a genesis
    left        a member asks to be left out of the next body; n changes only when a charter says so
    adopted     a node (its online key) acts under this body from here on

None of them decides anything but `consented`, for the one who signs it. Source: protocol, sections 5, 7.3 and 7.9.


The two readings by which members decide an epoch: INTENT, then RATIFY.

    intent    { prev, epoch, round, body, last_ratified: null | {round, body}, unlock: null | round }
    ratified  { prev, epoch, round, body }

`prev` is the body that is changed, `body` the one that shall follow it; rounds count from 1. A reading has one
spelling: whoever reads it writes it again and compares, so that m signatures of one member are over identical bytes.
Whose it is and whether it counts is decided elsewhere (`docket`); here is what a reading says, and what makes an INTENT
void on its face. Source: protocol, section 7.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, Fields, Json, bare_digest
from comity.trust.errors import Malformed
from comity.trust.keys import Signer
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement

DRAFT: Final = "draft"
CONSENTED: Final = "consented"
LEFT: Final = "left"
ADOPTED: Final = "adopted"
MAX_TEXT: Final = 4000


@dataclass(frozen=True, slots=True)
class NamedBody:
    """The body that one of these statements is about, and who says so: a member, or a node where it is `adopted`."""

    predicate: str
    by: Digest
    federation: Digest
    prev: Digest | None
    body: Digest
    text: str = ""


def draft_statement(body: Body, member: Digest, text: str) -> Statement:
    """Put `body` forward; `text` (at most 4,000 characters) tells the other members why."""
    return _draft_statement(DRAFT, body, Author("identity", member), {"text": text})


def consent_statement(body: Body, member: Digest) -> Statement:
    """Agree to exactly `body`; what is signed, where the signers are not in one place."""
    return _draft_statement(CONSENTED, body, Author("identity", member))


def consent(body: Body, member: Digest, *signers: Signer) -> Entry:
    """A member's `consented`. A new seat consents with *all* its keys, a founder with its threshold."""
    return sign_statement(consent_statement(body, member), *signers)


def left_statement(body: Body, member: Digest, text: str = "") -> Statement:
    """Ask to be left out of the body after `body`, the current one."""
    return _draft_statement(LEFT, body, Author("identity", member), {"text": text})


def adopted_statement(body: Body, node: Digest) -> Statement:
    """A node's word, under its online key (its id is `node`), that it acts under `body`."""
    return _draft_statement(ADOPTED, body, Author("node", node))


def read_named(entry: Entry) -> NamedBody:
    """What a `draft`, `consented`, `left` or `adopted` says; nothing is proven. Raises Malformed."""
    statement = entry.statement
    if statement.predicate not in (DRAFT, CONSENTED, LEFT, ADOPTED) or statement.by is None:
        raise Malformed("not about a charter", why=f"a statement of type {statement.predicate[:60]!r}")
    if statement.by.kind != ("node" if statement.predicate == ADOPTED else "identity"):
        raise Malformed(f"{statement.predicate} is malformed", why=f"a {statement.by.kind} cannot say it")
    fields = statement.fields()
    prev, texted = fields.take("prev"), statement.predicate in (DRAFT, LEFT)
    named = NamedBody(
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
    if [item.digest for item in statement.objects] != [named.body]:
        raise Malformed(f"{statement.predicate} is malformed", why="its one side object is the body, and nothing else")
    return named


def _draft_statement(predicate: str, body: Body, by: Author, more: dict[str, Json] | None = None) -> Statement:
    return Statement(
        predicate,
        (Subject("charter", body.digest),),
        by,
        {"federation": body.federation, "prev": body.prev, "body": body.digest, **(more or {})},
        (SideObject.of(body.data),),
    )


INTENT: Final = "intent"
RATIFIED: Final = "ratified"


@dataclass(frozen=True, slots=True)
class RoundBody:
    """A body, in one round."""

    round: int
    body: Digest


@dataclass(frozen=True, slots=True)
class Intent:
    """A member means to ratify `body` in `round`, if a quorum means to. Not yet a vote.

    `last_ratified` is the member's last RATIFY for the same `prev`, of an earlier round. `unlock` names the round of
    the intent-certificate for `body` that allows it to follow that RATIFY.
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
    """The vote: `body` shall follow `prev`, since a quorum meant it to in `round`."""

    member: Digest
    prev: Digest
    epoch: int
    round: int
    body: Digest

    def statement(self) -> Statement:
        return _vote_statement(RATIFIED, self, {})


Reading: TypeAlias = Intent | Ratify


def read_reading(entry: Entry) -> Reading:
    """What an `intent` or `ratified` statement says; nothing is proven. Raises Malformed, for a second spelling too."""
    statement = entry.statement
    if statement.predicate not in (INTENT, RATIFIED) or statement.by is None or statement.by.kind != "identity":
        raise Malformed("not a reading", why="neither an intent nor a ratified statement of a member")
    fields = statement.fields()
    reading = _read(fields, statement.by.id, statement.predicate)
    fields.done()
    if reading.statement().encode() != entry.envelope.payload:
        raise Malformed(f"{statement.predicate} is malformed", why="a second spelling of the same reading")
    return reading


def void(intent: Intent) -> str | None:
    """Why this INTENT counts for nothing, whatever else is known; None where it may count (7.2)."""
    if not _unlock_is_earlier(intent):
        return "the certificate that it names is not of an earlier round"
    if not _unlock_covers_lock(intent):
        return "what it says it ratified is not unlocked by the certificate that it names"
    return None


def _unlock_is_earlier(intent: Intent) -> bool:
    """7.2: `unlock` is a round r' < s."""
    return intent.unlock is None or intent.unlock < intent.round


def _unlock_covers_lock(intent: Intent) -> bool:
    """7.2: after RATIFY (r, h), an INTENT for b names an intent-certificate for b itself, of a round r' with r <= r' if
    b = h, r < r' otherwise; so r < s as well. Who ratified nothing names none."""
    last, unlock = intent.last_ratified, intent.unlock
    if last is None or unlock is None:
        return last is None and unlock is None
    return last.round <= unlock if last.body == intent.body else last.round < unlock


def _read(fields: Fields, member: Digest, predicate: str) -> Reading:
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


def _vote_statement(predicate: str, reading: Reading, more: dict[str, Json]) -> Statement:
    return Statement(
        predicate,
        (Subject("charter", reading.body),),
        Author("identity", reading.member),
        {"prev": reading.prev, "epoch": reading.epoch, "round": reading.round, "body": reading.body, **more},
    )
