"""What a council finds: the values that `deliberate` returns, and a few questions about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from comity.trust.charter.body import Body, Member
from comity.trust.charter.certificate import Certificate
from comity.trust.charter.lies import Lie
from comity.trust.digest import Digest


@dataclass(frozen=True, slots=True)
class DraftState:
    """How far one body is on its way to follow the current one.

    Attributes:
        by: the first of the members that put it forward; `text` is what it said. None where there are readings only.
        intents: members by round, of the INTENTs that count.
        ratified: members by round.
        certified_rounds: those with an intent-certificate at hand.
        ready_rounds: those of them in which, if all who mean to ratify do, nothing more is missing (`voting`).
        missing: seats whose consent it needs.
        objection: why no honest member signs it; None where nothing speaks against it.
    """

    body: Body
    by: Digest | None
    text: str
    intents: Mapping[int, frozenset[Digest]]
    ratified: Mapping[int, frozenset[Digest]]
    certified_rounds: tuple[int, ...]
    ready_rounds: tuple[int, ...]
    missing: tuple[Member, ...]
    objection: str | None

    def merit(self, round_: int) -> tuple[int, int, str]:
        """Sorts first the draft behind which a split `round_` can unite: the one that somebody may be locked on, then
        the one that most intend, then, so that everybody sees the same, that of the lowest digest."""
        certified = max((at for at in self.certified_rounds if at <= round_), default=0)
        return -certified, -len(self.intents.get(round_, ())), self.body.digest


@dataclass(frozen=True, slots=True)
class Duty:
    """Who has to do what next: `action` is `intent`, `ratified` or `consented`, the statement that is missing; `why` is
    a sentence for people."""

    member: Digest
    action: str
    body: Digest
    round: int
    why: str


@dataclass(frozen=True, slots=True)
class Fork:
    """Two certificates for one epoch. `first` is the one that this node took up, if it took up either.

    `retired`: everybody who ratified the second did so with keys that the newest body lists no more, so that it is an
    alert and not a fork of those who speak today (7.7).
    """

    first: Certificate
    second: Certificate
    retired: bool


@dataclass(frozen=True, slots=True)
class Council:
    """All that a set of lines amounts to. Only `deliberate` makes one.

    Attributes:
        epochs: certificates after the body that one started from, in order.
        current: the newest body on an undisputed way.
        drafts: bodies that somebody put forward, or read, to follow it; the leading one first.
        round: the newest round that anybody may be in.
        heard: members by the rounds in which they signed any reading about the current body.
        reached: the newest round in which each of them did.
        left: members that ask to be left out of the next body.
        lies, forks: what is proven against somebody, about any epoch after the start.
        duties: empty where an open fork stops governance.
        notes: what counts for nothing, and why.
    """

    epochs: tuple[Certificate, ...]
    current: Body
    drafts: tuple[DraftState, ...]
    round: int
    heard: Mapping[int, frozenset[Digest]]
    reached: Mapping[Digest, int]
    left: frozenset[Digest]
    duties: tuple[Duty, ...]
    lies: tuple[Lie, ...]
    forks: tuple[Fork, ...]
    notes: tuple[str, ...]

    def draft(self, body: Digest) -> DraftState | None:
        return next((draft for draft in self.drafts if draft.body.digest == body), None)

    def leading(self, round_: int) -> DraftState | None:
        """The draft behind which members unite after `round_` was split."""
        lawful = (draft for draft in self.drafts if draft.objection is None)
        return min(lawful, key=lambda draft: draft.merit(round_), default=None)

    @property
    def stopped(self) -> bool:
        """Whether an open fork stops governance until a person pins a branch (7.7)."""
        return any(not fork.retired for fork in self.forks)
