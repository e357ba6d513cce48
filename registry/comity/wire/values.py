"""What travels, as plain frozen values. Lines, notes and proofs are bytes as they arrived: unverified.

Digests are 64 hex digits, times Unix seconds, sizes bytes, indexes counted from 0. The bounds are those of `limits`,
and hold for every value that a codec made.
"""

from __future__ import annotations

from dataclasses import dataclass

from comity.trust.digest import Digest
from comity.wire.gateway_url import GatewayUrl


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says of itself. `identity` holds its member's inception and rotations, in order; `gateway` is where
    clients reach it over HTTP."""

    software: str
    origin: str
    node_record: bytes | None = None
    identity: tuple[bytes, ...] = ()
    addresses: bytes | None = None
    capabilities: tuple[str, ...] = ()
    gateway: GatewayUrl | None = None


@dataclass(frozen=True, slots=True)
class Charter:
    """One epoch: the body as it was hashed, and the lines that certify it."""

    epoch: int
    body: bytes
    certificate: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AskReceipt:
    """That a request to join was noted. `since` is when the identity asked first; `waiting` counts all who wait."""

    member: Digest
    since: int
    waiting: int


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Who waits to be admitted, by its own card: inception, rotations, node-records, addresses."""

    member: Digest
    since: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LogHead:
    """A log and its newest note with every cosignature known for it; `note` is empty before the first checkpoint."""

    origin: str
    vkey: str
    note: bytes


@dataclass(frozen=True, slots=True)
class EntryBatch:
    start: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Located:
    """One entry of one log."""

    origin: str
    index: int
    line: bytes


@dataclass(frozen=True, slots=True)
class LocatedProof:
    """A C2SP tlog-proof and the log it is from."""

    origin: str
    proof: bytes


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """A log caught: `parts` are the signed notes, lines and proofs that contradict one another."""

    kind: str
    origin: str
    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page; `next_cursor` is empty at the end."""

    found: tuple[Located, ...]
    next_cursor: str = ""


@dataclass(frozen=True, slots=True)
class BlobStat:
    """Whether a node has a blob, whole and verified there; `size` is 0 where it has not."""

    digest: Digest
    have: bool
    size: int


@dataclass(frozen=True, slots=True)
class Location:
    """A hint where else to read a blob. The URL is a bearer secret while it lives: never log it."""

    kind: str
    url: str

    def __repr__(self) -> str:
        return f"<Location {self.kind}>"


@dataclass(frozen=True, slots=True)
class InlineObject:
    """A small side object sent along with the lines that name it."""

    digest: Digest
    data: bytes


@dataclass(frozen=True, slots=True)
class MissingObject:
    """What a submission waits for; `received` is the offset to continue at."""

    digest: Digest
    size: int
    received: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a line stands in a log. A claim, until a checkpoint proves it."""

    origin: str
    index: int
    line_digest: Digest


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to a submission: receipts for all lines, or the objects that have to arrive first."""

    submission: Digest
    missing: tuple[MissingObject, ...] = ()
    receipts: tuple[Receipt, ...] = ()


@dataclass(frozen=True, slots=True)
class UploadHeader:
    """What the chunks of an upload are: bytes of `digest` from `offset` on, for one submission."""

    submission: Digest
    digest: Digest
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """`lag` counts entries that the peer announced and this node has not copied; `last_seen` is 0 for never."""

    name: str
    jurisdiction: str
    address: str
    reachable: bool
    last_seen: int
    lag: int
    last_error: str


@dataclass(frozen=True, slots=True)
class LogStatus:
    """A log as it is held. `frozen`: it has shown two histories; `full`: it has reached a limit of the node."""

    origin: str
    size: int
    own: bool
    checkpoint_time: int
    cosigners: tuple[str, ...]
    frozen: bool = False
    full: bool = False


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """`free_bytes` is None where the store cannot tell."""

    blobs: int
    bytes: int
    free_bytes: int | None
    quarantined: int


@dataclass(frozen=True, slots=True)
class Quota:
    name: str
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Served:
    """Bytes of one blob that one caller was sent since the node started."""

    caller: str
    blob: Digest
    bytes: int


@dataclass(frozen=True, slots=True)
class DraftStatus:
    """How far a draft is, in the newest round in which anybody reads it; `by` is empty where nobody put it forward."""

    body: Digest
    by: str
    text: str
    intents: int
    ratified: int
    quorum: int
    missing: tuple[str, ...] = ()
    objection: str = ""


@dataclass(frozen=True, slots=True)
class DutyStatus:
    """Who has to say what next; `own` where it is the node's own member."""

    member: str
    action: str
    body: Digest
    round: int
    why: str
    own: bool


@dataclass(frozen=True, slots=True)
class ForkStatus:
    """Two certified bodies of one epoch, the one followed first; `retired` rivals stop nothing."""

    epoch: int
    first: Digest
    second: Digest
    retired: bool


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """The epoch that a member's nodes said last they act under, None where they did not, and when its newest head was
    last cosigned (0 for never)."""

    name: str
    epoch: int | None
    heard: int


@dataclass(frozen=True, slots=True)
class GovernanceStatus:
    """The charter as a node follows it. `crowded` are logs that say more about the next epoch than is kept of one."""

    federation: Digest
    epoch: int
    body: Digest
    stopped: bool
    round: int
    drafts: tuple[DraftStatus, ...] = ()
    duties: tuple[DutyStatus, ...] = ()
    forks: tuple[ForkStatus, ...] = ()
    liars: tuple[str, ...] = ()
    asks: int = 0
    members: tuple[MemberStatus, ...] = ()
    crowded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How a node is, for its operators. `misbehaviour` counts the proofs kept."""

    software: str
    origin: str
    started: int
    peers: tuple[PeerStatus, ...]
    logs: tuple[LogStatus, ...]
    store: StoreStatus
    holds: int
    misbehaviour: int
    quotas: tuple[Quota, ...]
    warnings: tuple[str, ...]
    served: tuple[Served, ...] = ()
    governance: GovernanceStatus | None = None
