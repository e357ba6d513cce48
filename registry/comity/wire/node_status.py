"""The status of a node: values and codec of `OperatorService.GetStatus`.

Encoding a status cleans its texts, because they can contain errors of peers and of the operating system. A module of
its own, because few programs ask for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import Digest
from comity.trust.tlog.note import MAX_TIMESTAMP
from comity.v1 import operator_pb2
from comity.wire import limits
from comity.wire.errors import clean
from comity.wire.messages import encode_digest, read_digest, read_integer, read_many, read_origin, read_text
from comity.wire.node import ReplicaCounts, decode_counts, encode_counts


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """The state of a peer. `lag` counts entries that this node has not copied yet; `last_seen` is 0 for never.
    `former`: the newest charter no longer lists its member."""

    name: str
    jurisdiction: str
    address: str
    reachable: bool
    last_seen: int
    lag: int
    last_error: str
    former: bool = False


@dataclass(frozen=True, slots=True)
class LogStatus:
    """The state of a log. `checkpoint_time`: the `corroborated_time` of the cosignatures of its newest checkpoint, 0
    for none; `frozen`: it showed two histories; `full`: it reached a limit of the node."""

    origin: str
    size: int
    own: bool
    checkpoint_time: int
    cosigners: tuple[str, ...]
    frozen: bool = False
    full: bool = False


@dataclass(frozen=True, slots=True)
class ScrubStatus:
    """How the store is read again. `rate` is in bytes a second, 0 for never; `hours` are of the day in UTC, empty for
    all; the pass that began at `begun` is done to `per_mille`; `whole` is when the last complete pass began, None if
    there was none."""

    rate: int
    hours: str
    begun: int
    per_mille: int
    whole: int | None


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit and its use: `items`, or bytes."""

    name: str
    used: int
    limit: int
    items: bool = False

    @property
    def share(self) -> float:
        return self.used / self.limit if self.limit > 0 else 1.0

    @property
    def is_near(self) -> bool:
        """Whether operators are warned."""
        return self.share >= WARN_SHARE


@dataclass(frozen=True, slots=True)
class ServedStatus:
    """Bytes of one blob that the node sent to one caller since its start."""

    caller: str
    blob: Digest
    bytes: int


@dataclass(frozen=True, slots=True)
class DraftStatus:
    """The state of a draft in its newest round with votes; `by` is empty if no member proposed it."""

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
    """The next action that a member must take; `own` is true for the node's own member."""

    member: str
    action: str
    body: Digest
    round: int
    why: str
    own: bool


@dataclass(frozen=True, slots=True)
class ForkStatus:
    """Two certified bodies of one epoch; `first` is followed. A `retired` rival has no effect."""

    epoch: int
    first: Digest
    second: Digest
    retired: bool


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """The last epoch that a member's nodes adopted, or None, and when the member's newest head was last cosigned (0 for
    never)."""

    name: str
    epoch: int | None
    heard: int


@dataclass(frozen=True, slots=True)
class GovernanceStatus:
    """The charter state of a node. `crowded` are logs above their quota of statements about the next epoch."""

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
class LackingArtifact:
    """An artifact that the node wants and does not have completely.

    Attributes:
        name: as its publication says.
        state: `copying`, `waits` for its turn, or `paused` after a failure.
        why, code: of the last failure; empty where there was none.
        retry_seconds: until the next attempt, where it is paused.
    """

    artifact: Digest
    name: str
    state: str
    why: str = ""
    code: str = ""
    retry_seconds: int = 0


@dataclass(frozen=True, slots=True)
class ShortArtifact:
    """An artifact whose `copies`, each at another member, are fewer than the charter asks for, or in fewer
    jurisdictions or reaches. A node of an older version gives the copies only."""

    artifact: Digest
    name: str
    copies: int
    jurisdictions: int = 0
    reaches: int = 0


@dataclass(frozen=True, slots=True)
class MemberCopies:
    """How the copies of artifacts that one member publishes use the disk, in bytes.

    Attributes:
        member: empty for the logs that no member writes.
        promised: to running copies, beside what is `stored`.
        most: what both may be now; None if the free space of the store is not known.
        waiting: artifacts that wait until there is room.
        largest: the name of the artifact for which most is used; empty for none.
    """

    member: str
    name: str
    stored: int
    promised: int
    most: int | None
    waiting: int = 0
    largest: str = ""

    @property
    def used(self) -> int:
        return self.stored + self.promised


@dataclass(frozen=True, slots=True)
class ReplicationStatus:
    """What a node wants and lacks. `not_listed` counts artifacts that are published and that its settings do not name;
    `lacking` and `short` list at most `limits.STATUS_EXAMPLES` each. `members` are the users of the disk, the largest
    first; empty in older software."""

    counts: ReplicaCounts
    not_listed: int = 0
    lacking: tuple[LackingArtifact, ...] = ()
    short: tuple[ShortArtifact, ...] = ()
    members: tuple[MemberCopies, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The status of a node, for its operators. `misbehaviour` counts stored proofs; `replication` is None in older
    software."""

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
    served: tuple[ServedStatus, ...] = ()
    governance: GovernanceStatus | None = None
    replication: ReplicationStatus | None = None


def encode_status(status: NodeStatus) -> operator_pb2.GetStatusResponse:
    return operator_pb2.GetStatusResponse(
        software=status.software,
        origin=status.origin,
        started=status.started,
        peers=map(_encode_peer, status.peers),
        logs=map(_encode_log, status.logs),
        store=operator_pb2.StoreStatus(
            blobs=status.store.blobs,
            bytes=status.store.bytes,
            free_bytes=status.store.free_bytes,
            quarantined=status.store.quarantined,
            scrub=_encode_scrub(status.store.scrub) if status.store.scrub else None,
        ),
        holds=status.holds,
        misbehaviour=status.misbehaviour,
        quotas=map(_encode_quota, status.quotas),
        warnings=(clean(warning, limits.STATUS_TEXT) for warning in status.warnings),
        served=map(_encode_served, status.served),
        governance=_encode_governance(status.governance) if status.governance else None,
        replication=_encode_replication(status.replication) if status.replication else None,
    )


def decode_status(message: operator_pb2.GetStatusResponse) -> NodeStatus:
    most = limits.STATUS_ITEMS
    return NodeStatus(
        software=read_text(message.software, "software name", limits.NAME),
        origin=read_origin(message.origin),
        started=read_integer(message.started, "time"),
        peers=read_many(message.peers, "peers", most, _decode_peer),
        logs=read_many(message.logs, "logs", most, _decode_log),
        store=_decode_store(message.store),
        holds=read_integer(message.holds, "holds"),
        misbehaviour=read_integer(message.misbehaviour, "misbehaviour"),
        quotas=read_many(message.quotas, "quotas", most, _decode_quota),
        warnings=read_many(message.warnings, "warnings", most, _text),
        served=read_many(message.served, "sums of bytes served", most, _decode_served),
        governance=_decode_governance(message.governance) if message.HasField("governance") else None,
        replication=_decode_replication(message.replication) if message.HasField("replication") else None,
    )


def _encode_replication(status: ReplicationStatus) -> operator_pb2.ReplicationStatus:
    most = limits.STATUS_EXAMPLES
    return operator_pb2.ReplicationStatus(
        counts=encode_counts(status.counts),
        not_listed=status.not_listed,
        lacking=(
            operator_pb2.LackingArtifact(
                artifact=encode_digest(item.artifact),
                name=clean(item.name, limits.NAME),
                state=item.state,
                why=clean(item.why, limits.STATUS_TEXT),
                code=clean(item.code, limits.LABEL),
                retry_seconds=item.retry_seconds,
            )
            for item in status.lacking[:most]
        ),
        short=(
            operator_pb2.ShortArtifact(
                artifact=encode_digest(item.artifact),
                name=clean(item.name, limits.NAME),
                copies=item.copies,
                jurisdictions=item.jurisdictions,
                reaches=item.reaches,
            )
            for item in status.short[:most]
        ),
        members=map(_encode_member_copies, status.members[: limits.STATUS_ITEMS]),
    )


def _decode_replication(message: operator_pb2.ReplicationStatus) -> ReplicationStatus:
    most = limits.STATUS_EXAMPLES
    return ReplicationStatus(
        counts=decode_counts(message.counts),
        not_listed=read_integer(message.not_listed, "artifacts"),
        lacking=read_many(message.lacking, "lacking artifacts", most, _decode_lacking),
        short=read_many(message.short, "short artifacts", most, _decode_short),
        members=read_many(message.members, "users of the disk", limits.STATUS_ITEMS, _decode_member_copies),
    )


def _encode_member_copies(item: MemberCopies) -> operator_pb2.MemberCopies:
    return operator_pb2.MemberCopies(
        member=bytes.fromhex(item.member),
        name=clean(item.name, limits.NAME),
        stored=item.stored,
        promised=item.promised,
        most=item.most,
        waiting=item.waiting,
        largest=clean(item.largest, limits.NAME),
    )


def _decode_member_copies(message: operator_pb2.MemberCopies) -> MemberCopies:
    return MemberCopies(
        member=read_digest(message.member) if message.member else "",
        name=_name(message.name),
        stored=read_integer(message.stored, "bytes"),
        promised=read_integer(message.promised, "bytes"),
        most=read_integer(message.most, "bytes") if message.HasField("most") else None,
        waiting=read_integer(message.waiting, "artifacts"),
        largest=_name(message.largest),
    )


def _decode_lacking(message: operator_pb2.LackingArtifact) -> LackingArtifact:
    return LackingArtifact(
        artifact=read_digest(message.artifact),
        name=_name(message.name),
        state=read_text(message.state, "state", limits.LABEL),
        why=_text(message.why),
        code=read_text(message.code, "code", limits.LABEL),
        retry_seconds=read_integer(message.retry_seconds, "time"),
    )


def _decode_short(message: operator_pb2.ShortArtifact) -> ShortArtifact:
    return ShortArtifact(
        read_digest(message.artifact),
        _name(message.name),
        read_integer(message.copies, "copies"),
        read_integer(message.jurisdictions, "jurisdictions"),
        read_integer(message.reaches, "reaches"),
    )


def _encode_peer(peer: PeerStatus) -> operator_pb2.PeerStatus:
    return operator_pb2.PeerStatus(
        name=peer.name,
        jurisdiction=peer.jurisdiction,
        address=peer.address,
        reachable=peer.reachable,
        last_seen=peer.last_seen,
        lag=peer.lag,
        last_error=clean(peer.last_error, limits.STATUS_TEXT),
        former=peer.former,
    )


def _decode_peer(message: operator_pb2.PeerStatus) -> PeerStatus:
    return PeerStatus(
        name=read_text(message.name, "name", limits.NAME),
        jurisdiction=read_text(message.jurisdiction, "jurisdiction", limits.NAME),
        address=read_text(message.address, "address", limits.NAME),
        reachable=message.reachable,
        last_seen=read_integer(message.last_seen, "time"),
        lag=read_integer(message.lag, "lag"),
        last_error=_text(message.last_error),
        former=message.former,
    )


def _encode_log(log: LogStatus) -> operator_pb2.LogStatus:
    return operator_pb2.LogStatus(
        origin=log.origin,
        size=log.size,
        own=log.own,
        checkpoint_time=log.checkpoint_time,
        cosigners=log.cosigners,
        frozen=log.frozen,
        full=log.full,
    )


def _decode_log(message: operator_pb2.LogStatus) -> LogStatus:
    return LogStatus(
        origin=read_origin(message.origin),
        size=read_integer(message.size, "size"),
        own=message.own,
        checkpoint_time=read_integer(message.checkpoint_time, "time"),
        cosigners=read_many(
            message.cosigners,
            "cosigners",
            limits.STATUS_ITEMS,
            lambda name: read_text(name, "name of a cosigner", limits.NAME),
        ),
        frozen=message.frozen,
        full=message.full,
    )


def _decode_store(message: operator_pb2.StoreStatus) -> StoreStatus:
    return StoreStatus(
        blobs=read_integer(message.blobs, "blobs"),
        bytes=read_integer(message.bytes, "bytes"),
        free_bytes=read_integer(message.free_bytes, "free bytes") if message.HasField("free_bytes") else None,
        quarantined=read_integer(message.quarantined, "quarantined blobs"),
        scrub=_decode_scrub(message.scrub) if message.HasField("scrub") else None,
    )


def _encode_scrub(scrub: ScrubStatus) -> operator_pb2.ScrubStatus:
    return operator_pb2.ScrubStatus(
        rate=scrub.rate, hours=scrub.hours, begun=scrub.begun, per_mille=scrub.per_mille, whole=scrub.whole
    )


def _decode_scrub(message: operator_pb2.ScrubStatus) -> ScrubStatus:
    return ScrubStatus(
        rate=read_integer(message.rate, "rate"),
        hours=read_text(message.hours, "hours", limits.LABEL),
        begun=read_integer(message.begun, "time", most=MAX_TIMESTAMP),
        per_mille=read_integer(message.per_mille, "share", most=1000),
        whole=read_integer(message.whole, "time", most=MAX_TIMESTAMP) if message.HasField("whole") else None,
    )


def _encode_quota(quota: Quota) -> operator_pb2.Quota:
    return operator_pb2.Quota(
        name=clean(quota.name, limits.NAME), used=quota.used, limit=quota.limit, items=quota.items
    )


def _decode_quota(message: operator_pb2.Quota) -> Quota:
    return Quota(
        name=read_text(message.name, "name of a quota", limits.NAME),
        used=read_integer(message.used, "use"),
        limit=read_integer(message.limit, "limit"),
        items=message.items,
    )


def _encode_served(served: ServedStatus) -> operator_pb2.Served:
    return operator_pb2.Served(caller=served.caller, blob=encode_digest(served.blob), bytes=served.bytes)


def _decode_served(message: operator_pb2.Served) -> ServedStatus:
    return ServedStatus(
        caller=read_text(message.caller, "name of a caller", limits.NAME),
        blob=read_digest(message.blob),
        bytes=read_integer(message.bytes, "bytes served"),
    )


def _encode_governance(status: GovernanceStatus) -> operator_pb2.GovernanceStatus:
    return operator_pb2.GovernanceStatus(
        federation=encode_digest(status.federation),
        epoch=status.epoch,
        body=encode_digest(status.body),
        stopped=status.stopped,
        round=status.round,
        drafts=map(_encode_draft, status.drafts),
        duties=map(_encode_duty, status.duties),
        forks=map(_encode_fork, status.forks),
        liars=(clean(name, limits.NAME) for name in status.liars),
        asks=status.asks,
        members=(
            operator_pb2.MemberStatus(name=clean(member.name, limits.NAME), epoch=member.epoch, heard=member.heard)
            for member in status.members
        ),
        crowded=status.crowded,
    )


def _decode_governance(message: operator_pb2.GovernanceStatus) -> GovernanceStatus:
    most = limits.STATUS_ITEMS
    return GovernanceStatus(
        federation=read_digest(message.federation),
        epoch=read_integer(message.epoch, "epoch"),
        body=read_digest(message.body),
        stopped=message.stopped,
        round=read_integer(message.round, "round"),
        drafts=read_many(message.drafts, "drafts", most, _decode_draft),
        duties=read_many(message.duties, "duties", most, _decode_duty),
        forks=read_many(message.forks, "forks", most, _decode_fork),
        liars=read_many(message.liars, "names", most, _name),
        asks=read_integer(message.asks, "requests"),
        members=read_many(message.members, "members", most, _decode_member),
        crowded=read_many(message.crowded, "logs", most, read_origin),
    )


def _encode_draft(draft: DraftStatus) -> operator_pb2.DraftStatus:
    return operator_pb2.DraftStatus(
        body=encode_digest(draft.body),
        by=clean(draft.by, limits.NAME),
        text=clean(draft.text, limits.STATUS_TEXT),
        intents=draft.intents,
        ratified=draft.ratified,
        quorum=draft.quorum,
        missing=(clean(name, limits.NAME) for name in draft.missing),
        objection=clean(draft.objection, limits.STATUS_TEXT),
    )


def _decode_draft(message: operator_pb2.DraftStatus) -> DraftStatus:
    return DraftStatus(
        body=read_digest(message.body),
        by=_name(message.by),
        text=_text(message.text),
        intents=read_integer(message.intents, "readings"),
        ratified=read_integer(message.ratified, "readings"),
        quorum=read_integer(message.quorum, "quorum"),
        missing=read_many(message.missing, "names", limits.STATUS_ITEMS, _name),
        objection=_text(message.objection),
    )


def _encode_duty(duty: DutyStatus) -> operator_pb2.DutyStatus:
    return operator_pb2.DutyStatus(
        member=clean(duty.member, limits.NAME),
        action=duty.action,
        body=encode_digest(duty.body),
        round=duty.round,
        why=clean(duty.why, limits.STATUS_TEXT),
        own=duty.own,
    )


def _decode_duty(message: operator_pb2.DutyStatus) -> DutyStatus:
    return DutyStatus(
        member=_name(message.member),
        action=read_text(message.action, "action", limits.LABEL),
        body=read_digest(message.body),
        round=read_integer(message.round, "round"),
        why=_text(message.why),
        own=message.own,
    )


def _encode_fork(fork: ForkStatus) -> operator_pb2.ForkStatus:
    first, second = encode_digest(fork.first), encode_digest(fork.second)
    return operator_pb2.ForkStatus(epoch=fork.epoch, first=first, second=second, retired=fork.retired)


def _decode_fork(message: operator_pb2.ForkStatus) -> ForkStatus:
    epoch = read_integer(message.epoch, "epoch")
    return ForkStatus(epoch, read_digest(message.first), read_digest(message.second), message.retired)


def _decode_member(message: operator_pb2.MemberStatus) -> MemberStatus:
    return MemberStatus(
        name=_name(message.name),
        epoch=read_integer(message.epoch, "epoch") if message.HasField("epoch") else None,
        heard=read_integer(message.heard, "time"),
    )


def _name(value: str) -> str:
    return read_text(value, "name", limits.NAME)


def _text(value: str) -> str:
    return read_text(value, "text", limits.STATUS_TEXT)
