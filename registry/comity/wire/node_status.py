"""The status of a node: values and codec of `OperatorService.GetStatus`.

Encoding a status cleans its texts, because they can contain errors of peers and of the operating system. A module of
its own, because few programs ask for it.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.tlog.note import MAX_TIMESTAMP
from comity.v1 import operator_pb2
from comity.wire import limits
from comity.wire.codec import DIGEST_OR_NONE, ORIGIN, Exact, Items, MessageCodec, Number, Sentence, ShownName, Text
from comity.wire.node import ReplicaCounts


@frozen
class PeerStatus:
    """The state of a peer. `lag` counts entries that this node has not copied yet; `last_seen` is 0 for never.
    `former`: the newest charter no longer lists its member."""

    name: ShownName
    jurisdiction: ShownName
    address: ShownName
    reachable: bool
    last_seen: int
    lag: int
    last_error: Sentence
    former: bool = False


@frozen
class LogStatus:
    """The state of a log. `checkpoint_time`: the `corroborated_time` of the cosignatures of its newest checkpoint, 0
    for none; `frozen`: it showed two histories; `full`: it reached a limit of the node."""

    origin: Annotated[str, ORIGIN]
    size: int
    own: bool
    checkpoint_time: int
    cosigners: Annotated[tuple[ShownName, ...], Items(limits.STATUS_ITEMS)]
    frozen: bool = False
    full: bool = False


@frozen
class ScrubStatus:
    """How the store is read again. `rate` is in bytes a second, 0 for never; `hours` are of the day in UTC, empty for
    all; the pass that began at `begun` is done to `per_mille`; `whole` is when the last complete pass began, None if
    there was none."""

    rate: int
    hours: Annotated[str, Exact(limits.LABEL)]
    begun: Annotated[int, Number(most=MAX_TIMESTAMP)]
    per_mille: Annotated[int, Number(most=1000)]
    whole: Annotated[int | None, Number(most=MAX_TIMESTAMP)]


@frozen
class StoreStatus:
    """The state of the blob store. `free_bytes` is None if the store does not know; `scrub` is None in older
    software."""

    blobs: int
    bytes: int
    free_bytes: int | None
    quarantined: int
    scrub: ScrubStatus | None = None


WARN_SHARE: Final = 0.8
"""The share of a limit from which operators are warned."""


@frozen
class Quota:
    """A limit and its use: `items`, or bytes."""

    name: ShownName
    used: int
    limit: int
    items: bool = False

    @property
    def share(self) -> float:
        return self.used / self.limit if self.limit > 0 else 1.0

    @property
    def is_reached(self) -> bool:
        """Whether a limit that admits something is used up."""
        return 0 < self.limit <= self.used

    @property
    def is_near(self) -> bool:
        """Whether operators are warned."""
        return self.share >= WARN_SHARE


@frozen
class ServedStatus:
    """Bytes of one blob that the node sent to one caller since its start."""

    caller: ShownName
    blob: Digest
    bytes: int


@frozen
class DraftStatus:
    """The state of a draft in its newest round with votes; `by` is empty if no member proposed it."""

    body: Digest
    by: ShownName
    text: Sentence
    intents: int
    ratified: int
    quorum: int
    missing: Annotated[tuple[ShownName, ...], Items(limits.STATUS_ITEMS)] = ()
    objection: Sentence = ""


@frozen
class DutyStatus:
    """The next action that a member must take; `own` is true for the node's own member."""

    member: ShownName
    action: Annotated[str, Exact(limits.LABEL)]
    body: Digest
    round: int
    why: Sentence
    own: bool


@frozen
class ForkStatus:
    """Two certified bodies of one epoch; `first` is followed. A `retired` rival has no effect."""

    epoch: int
    first: Digest
    second: Digest
    retired: bool


@frozen
class MemberStatus:
    """The last epoch that a member's nodes adopted, or None, and when the member's newest head was last cosigned (0 for
    never)."""

    name: ShownName
    epoch: int | None
    heard: int


@frozen
class GovernanceStatus:
    """The charter state of a node. `crowded` are logs above their quota of statements about the next epoch."""

    federation: Digest
    epoch: int
    body: Digest
    stopped: bool
    round: int
    drafts: Annotated[tuple[DraftStatus, ...], Items(limits.STATUS_ITEMS)] = ()
    duties: Annotated[tuple[DutyStatus, ...], Items(limits.STATUS_ITEMS)] = ()
    forks: Annotated[tuple[ForkStatus, ...], Items(limits.STATUS_ITEMS)] = ()
    liars: Annotated[tuple[ShownName, ...], Items(limits.STATUS_ITEMS)] = ()
    asks: int = 0
    members: Annotated[tuple[MemberStatus, ...], Items(limits.STATUS_ITEMS)] = ()
    crowded: Annotated[tuple[str, ...], Items(limits.STATUS_ITEMS, ORIGIN)] = ()


LackingState: TypeAlias = Literal["copying", "waits", "paused"]


@frozen
class LackingArtifact:
    """An artifact that the node wants and does not have completely.

    Attributes:
        name: as its publication says.
        state: `copying`, `waits` for its turn, or `paused` after a failure.
        why, code: of the last failure; empty where there was none.
        retry_seconds: until the next attempt, where it is paused.
    """

    artifact: Digest
    name: ShownName
    state: Annotated[LackingState, Exact(limits.LABEL)]
    why: Sentence = ""
    code: Annotated[str, Text(limits.LABEL)] = ""
    retry_seconds: int = 0


@frozen
class ShortArtifact:
    """An artifact whose `copies`, each at another member, are fewer than the charter asks for, or in fewer
    jurisdictions or reaches. A node of an older version gives the copies only."""

    artifact: Digest
    name: ShownName
    copies: int
    jurisdictions: int = 0
    reaches: int = 0


@frozen
class MemberCopies:
    """How the copies of artifacts that one member publishes use the disk, in bytes.

    Attributes:
        member: empty for the logs that no member writes.
        promised: to running copies, beside what is `stored`.
        most: what both may be now; None if the free space of the store is not known.
        waiting: artifacts that wait until there is room.
        largest: the name of the artifact for which most is used; empty for none.
    """

    member: Annotated[str, DIGEST_OR_NONE]
    name: ShownName
    stored: int
    promised: int
    most: int | None
    waiting: int = 0
    largest: ShownName = ""

    @property
    def used(self) -> int:
        return self.stored + self.promised


@frozen
class ReplicationStatus:
    """What a node wants and lacks. `not_listed` counts artifacts that are published and that its settings do not name;
    `lacking` and `short` list at most `limits.STATUS_EXAMPLES` each. `members` are the users of the disk, the largest
    first; empty in older software."""

    counts: ReplicaCounts
    not_listed: int = 0
    lacking: Annotated[tuple[LackingArtifact, ...], Items(limits.STATUS_EXAMPLES, cut=True)] = ()
    short: Annotated[tuple[ShortArtifact, ...], Items(limits.STATUS_EXAMPLES, cut=True)] = ()
    members: Annotated[tuple[MemberCopies, ...], Items(limits.STATUS_ITEMS, cut=True)] = ()


@frozen
class UsageStatus:
    """What the process of a node used since it started `seconds` ago: CPU, bytes of files, and in how many seconds it
    was copying artifacts."""

    seconds: int
    cpu_milliseconds: int
    sent_bytes: int
    received_bytes: int
    copying_seconds: int


@frozen
class NodeStatus:
    """The status of a node, for its operators. `misbehaviour` counts stored proofs; `replication` and `usage` are None
    in older software."""

    software: ShownName
    origin: Annotated[str, ORIGIN]
    started: int
    peers: Annotated[tuple[PeerStatus, ...], Items(limits.STATUS_ITEMS)]
    logs: Annotated[tuple[LogStatus, ...], Items(limits.STATUS_ITEMS)]
    store: StoreStatus
    holds: int
    misbehaviour: int
    quotas: Annotated[tuple[Quota, ...], Items(limits.STATUS_ITEMS)]
    warnings: Annotated[tuple[Sentence, ...], Items(limits.STATUS_ITEMS)]
    served: Annotated[tuple[ServedStatus, ...], Items(limits.STATUS_ITEMS)] = ()
    governance: GovernanceStatus | None = None
    replication: ReplicationStatus | None = None
    usage: UsageStatus | None = None


STATUS: Final = MessageCodec(NodeStatus, operator_pb2.GetStatusResponse)
