"""The facts on which a continuity plan is judged, as they were gathered. Pure values.

Who gathers them takes each from its one home: copies, approvals, evaluations, offers and the verdict are decided
elsewhere. What could not be learnt is None, and never counts in favour of a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

from comity.rules.copy_counts import Holder
from comity.rules.kits.description import Kit
from comity.rules.parties import Party
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

Basis = Literal["verified here", "claimed", "stale", "unknown"]
BASES: Final[tuple[Basis, ...]] = get_args(Basis)
PolicyState = Literal["none", "same", "changed", "missing"]
Order = Literal["first", "after", "unproven", "none"]


@frozen
class PlanSignature:
    """What lies beside a plan.

    Attributes:
        state: `other file` for a valid signature of another file than this one; `invalid` for one that does not verify.
        signer: whose it is; None without one.
        lost: the owner reported, or a pin says, that the key was lost that signed it.
        policy: whether the plan's policy file is as the plan says; `none` where it names none.
    """

    state: Literal["valid", "unsigned", "other file", "invalid"]
    why: str = ""
    signer: Digest | None = None
    lost: bool = False
    policy: PolicyState = "none"


@frozen
class KitWarning:
    """An advisory about an artifact. `weight`: who says so, to the reader's policy."""

    kind: str
    by: str
    weight: Literal["publisher", "member", "other"]


@frozen
class ParentWeights:
    """Weights that a kit has, of an artifact that was published on its own. `warnings` is None if no node knows it."""

    name: str
    artifact: Digest
    warnings: tuple[KitWarning, ...] | None


@frozen
class StatedResult:
    """A result for one metric of an evaluation, as its author states it, and whether a log proves that it was
    announced first. `announced` counts the evaluations of this artifact that its author announced; `at` in POSIX
    seconds."""

    by: Digest
    suite: str
    metric: str
    value: str
    at: int
    order: Order
    announced: int = 1


@frozen
class StatedApproval:
    """An approval with a valid signature. `until` is its last second, `ended`: its officer ended it before."""

    by: Digest
    scope: str
    since: int
    until: int
    ended: bool = False


@frozen
class KitCopy:
    """The copy of one node. `tested` is the time (POSIX) of the last audit that another member's node says it passed.

    Attributes:
        failed: an audit of it counts as failed, or its node withdrew it.
        answers: whether the node answered now with every file.
        numeric: whether an address of the node needs no DNS.
    """

    node: str
    holder: Holder
    tested: int | None
    failed: bool
    answers: bool
    numeric: bool


@frozen
class JudgedKit:
    """What the policy says of a kit before its files are read. `why` is the row that decided."""

    state: Literal["accepted", "refused", "unproven"]
    why: str = ""
    hint: str = ""


@frozen
class KitContents:
    """What a kit is made of. `kit` is None where `kit.json` is missing (`why` is empty) or cannot be read.

    Attributes:
        problems: its parts against the signed manifest, a line each.
        lock: what is wrong between its lock file and its wheels, a line each; None if the lock was not read.
    """

    kit: Kit | None
    why: str = ""
    problems: tuple[str, ...] = ()
    lock: tuple[str, ...] | None = ()


@frozen
class KitFacts:
    """What nodes say about a kit, and what was verified of it here. `description` is the SHA-256 of its `kit.json`, by
    the manifest. `approvals_short` says why the approvals of the
    plan's officers are not enough by the rule of the verdict, which also judges their keys; empty if they are."""

    judged: JudgedKit
    contents: KitContents | None
    warnings: tuple[KitWarning, ...] = ()
    key_lost: str = ""
    weights: tuple[ParentWeights, ...] = ()
    results: tuple[StatedResult, ...] | None = None
    approvals: tuple[StatedApproval, ...] | None = None
    approvals_short: str = ""
    copies: tuple[KitCopy, ...] | None = None
    description: Digest | None = None


@frozen
class PastCheck:
    """The last check of the kit on this machine, `passed`, `failed` or `partial`, and the last that passed. Times in
    POSIX seconds."""

    state: str
    at: int
    passed: int | None


@frozen
class PastDrill:
    """The last drill of the service with this kit. `answered` are the seconds to the first verified answer.

    Attributes:
        plan: the plan by which it was made.
        cut_off: the parties that were cut off.
    """

    passed: bool
    at: int
    answered: int | None
    reason: str
    plan: Digest
    cut_off: tuple[Party, ...]


@frozen
class AgreedFacts:
    """An offer, grant or pact, as its chain shows it. Memory, disk and accelerators are those of one node.

    Attributes:
        status: of the chain: proven, claimed or convicted; `why` if it is not proven.
        state: of a grant or pact: granted, accepted, lapsed or released; empty for an offer.
        grantee: to whom it is granted; None for an offer.
        left: whether an amount is left.
        provider: the lender's name. `parties`: those whose loss takes the machines, as declared.
        attested: vendors by whose roots evidence of the machines was appraised; None if that was not asked.
        defaulted: its grantee said that it was not honoured.
    """

    status: str
    why: str
    withdrawn: bool
    state: str
    grantee: Digest | None
    start: int
    end: int
    left: bool
    memory: int
    disk: int
    accelerators: int
    provider: str
    parties: tuple[Party, ...]
    attested: tuple[str, ...] | None = ()
    defaulted: bool = False


@frozen
class FallbackFacts:
    """What is known about one fallback. `kit` is None if no node that answered knows it; `silent` if none answered."""

    kit: KitFacts | None
    silent: bool = False
    check: PastCheck | None = None
    drill: PastDrill | None = None
    agreed: AgreedFacts | None = None


@frozen
class GatheredFacts:
    """The facts of a plan at the time `at` (POSIX): for each service, by name, those of its fallbacks in order."""

    at: int
    signature: PlanSignature
    fallbacks: Mapping[str, tuple[FallbackFacts, ...]]
