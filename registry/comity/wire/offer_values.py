"""What travels about compute offers. States and amounts are the answering node's own arithmetic; the lines are bytes as
they arrived: unverified. `comity.trust.offers` computes the one from the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from comity.trust.digest import Digest
from comity.trust.offers.capacity import Allocation, Window
from comity.wire.values import Located


@dataclass(frozen=True, slots=True)
class OfferQuery:
    """What to look for; every field that is given must hold.

    Attributes:
        accelerator: SkyPilot's name, in any case.
        least_amount: left of one slice, of the accelerator where one is given.
        jurisdictions: where the machines stand: one of these.
        beyond_reach_of: jurisdictions none of which is in the offer's legal reach.
        artifact: a model that lies beside the machines.
        ends_after: POSIX seconds; offers whose window ends later.
        closed: also those that were withdrawn or are at fault.
        after: the last chain had.
        limit: at most 1,000; 0 for as many.
    """

    accelerator: str = ""
    least_amount: int = 0
    jurisdictions: tuple[str, ...] = ()
    beyond_reach_of: tuple[str, ...] = ()
    artifact: Digest | None = None
    engine: str = ""
    measure: str = ""
    provider: Digest | None = None
    ends_after: int | None = None
    closed: bool = False
    after: Digest | None = None
    limit: int = 0


@dataclass(frozen=True, slots=True)
class OfferState:
    """The offer in force of one chain, and what a node computed of it."""

    offer: Located
    vkey: str
    chain: Digest
    remaining: tuple[int, ...]
    seq: int
    at: int
    withdrawn: bool = False
    fault: str = ""


@dataclass(frozen=True, slots=True)
class GrantQuery:
    """Which requests to list; every field that is given must hold. `after` is the last request had."""

    offer: Digest | None = None
    grantee: Digest | None = None
    state: str = ""
    after: Digest | None = None
    limit: int = 0


@dataclass(frozen=True, slots=True)
class GrantState:
    """A request, and what became of it: requested, granted, rejected, accepted, lapsed or released.

    Attributes:
        answer: the record that grants or rejects.
        redeemed: of each allocation, in the grant's order.
        newest: the challenge of the next redemption.
        said: line digests of what either side said of the grant beside its chain.
    """

    request: Located
    chain: Digest
    state: str
    answer: Located | None = None
    redeemed: tuple[int, ...] = ()
    newest: Digest | None = None
    said: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class Post:
    """Log an offer: its document, in its one spelling."""

    document: bytes


@dataclass(frozen=True, slots=True)
class Withdraw:
    offer: Digest
    text: str = ""


@dataclass(frozen=True, slots=True)
class Approve:
    """Grant a request (line digest): as asked where there are no `allocations`."""

    request: Digest
    allocations: tuple[Allocation, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    request: Digest
    text: str = ""


@dataclass(frozen=True, slots=True)
class Redeem:
    """Record a holder's `redeemed` (line digest)."""

    redemption: Digest


@dataclass(frozen=True, slots=True)
class Release:
    """Take back a grant (line digest) that is over, or given back."""

    grant: Digest


@dataclass(frozen=True, slots=True)
class AnswerDefault:
    """Answer a grantee's `defaulted` (line digest)."""

    default: Digest
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """Say what was used of a grant (line digest) within a window."""

    grant: Digest
    amounts: tuple[int, ...]
    window: Window
    text: str = ""


Act: TypeAlias = Post | Withdraw | Approve | Reject | Redeem | Release | AnswerDefault | Report
