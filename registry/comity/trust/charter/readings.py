"""The two readings by which members decide an epoch: INTENT, then RATIFY.

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

from comity.trust.digest import Digest, bare_digest
from comity.trust.encoding import Json
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.statement import Author, Entry, Statement, Subject

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
        return _statement(INTENT, self, {"last_ratified": locked, "unlock": self.unlock})


@dataclass(frozen=True, slots=True)
class Ratify:
    """The vote: `body` shall follow `prev`, since a quorum meant it to in `round`."""

    member: Digest
    prev: Digest
    epoch: int
    round: int
    body: Digest

    def statement(self) -> Statement:
        return _statement(RATIFIED, self, {})


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


def _statement(predicate: str, reading: Reading, more: dict[str, Json]) -> Statement:
    return Statement(
        predicate,
        (Subject("charter", reading.body),),
        Author("identity", reading.member),
        {"prev": reading.prev, "epoch": reading.epoch, "round": reading.round, "body": reading.body, **more},
    )
