"""Print a node's status: tables for its operators, one document for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import field
from typing import Final, Literal, TypeAlias

from comity.trust.encoding import short
from comity.trust.exit_statuses import EVIDENCE_MISSING, OK, PARTIAL
from comity.trust.frozen import frozen
from comity.wire.node_status import (
    DraftStatus,
    GovernanceStatus,
    LackingArtifact,
    LogStatus,
    MemberCopies,
    NodeStatus,
    PeerStatus,
    Quota,
    ReplicationStatus,
    ScrubStatus,
    ShortArtifact,
)

from comity_cli.copies_view import date
from comity_cli.document import INLINE, document
from comity_cli.output import Output, plural, size

MOST_CALLERS: Final = 10
MOST_LIMITS: Final = 12
MOST_MEMBERS: Final = 12
MOST_NOT_LISTED: Final = 10_000
"""A node counts no more of them."""
DAMAGED: Final = "LEDGER-CORRUPT"
"""A warning of a node begins with the code of an error that it names."""
PeerState: TypeAlias = Literal["up", "DOWN", "left", "unknown"]
LogState: TypeAlias = Literal["own", "follows", "at quota", "FROZEN"]


@frozen
class PeerItem:
    """A peer with its state as a word."""

    peer: PeerStatus = field(metadata=INLINE)
    state: PeerState


@frozen
class LogItem:
    """A log with its state as a word."""

    log: LogStatus = field(metadata=INLINE)
    state: LogState


@document("node-status")
class NodeStatusDocument:
    """A node as its operator sees it: `comity status --node HOME --json`.

    Times are seconds since 1970, 0 for never. `short`: copies, and the jurisdictions and declared reaches. `governance`
    and `replication` are null where the node does not tell them.
    """

    status: NodeStatus = field(metadata=INLINE)
    peers: tuple[PeerItem, ...]
    logs: tuple[LogItem, ...]

    @classmethod
    def of(cls, status: NodeStatus) -> NodeStatusDocument:
        peers = tuple(PeerItem(peer, peer_state(peer)) for peer in status.peers)
        return cls(status, peers, tuple(LogItem(log, log_state(log)) for log in status.logs))


def show(out: Output, status: NodeStatus, now: float) -> None:
    """Args: now: POSIX seconds."""
    out.say(f"{status.origin}  {status.software}  up {span(now - status.started)}")
    store, free = status.store, status.store.free_bytes
    if status.replication is None:
        out.fact("full copies", plural(status.holds, "artifact"))
    else:
        _replication(out, status.replication)
    out.fact("store", f"{plural(store.blobs, 'blob')}, {size(store.bytes)}; {_free_space(free)}")
    if store.scrub is not None:
        out.fact("scrub", _scrub(store.scrub))
    if store.quarantined:
        out.fact("quarantine", f"{plural(store.quarantined, 'damaged blob')}")
    out.fact("misbehaviour", plural(status.misbehaviour, "proof") + " kept" if status.misbehaviour else "none seen")
    if status.governance is not None:
        _governance(out, status.governance, now)
    if status.peers:
        _peers(out, status, now)
    out.say()
    out.table(
        ("log", "entries", "state", "cosigners", "cosigned"),
        [
            (log.origin, str(log.size), log_state(log), str(len(log.cosigners)), _ago(now, log.checkpoint_time))
            for log in status.logs
        ],
        shorten=("log",),
    )
    out.say()
    _limits(out, status.quotas)
    if status.served:
        _served(out, status)
    for warning in status.warnings:
        out.warn(warning)


def exit_status(status: NodeStatus) -> int:
    """0 if all is well, 5 if a peer is down, 8 if something is lacking, short, damaged, or at its limit."""
    if any(peer_state(peer) == "DOWN" for peer in status.peers):
        return EVIDENCE_MISSING
    counts = status.replication.counts if status.replication else None
    missing = counts is not None and bool(counts.lacking or counts.short)
    full = any(log.full for log in status.logs) or any(quota.is_reached for quota in status.quotas)
    damaged = any(warning.startswith(DAMAGED) for warning in status.warnings)
    return PARTIAL if missing or full or damaged else OK


def peer_state(peer: PeerStatus) -> PeerState:
    """`up`, `DOWN`, `left` for a peer that is down and whose member left, or `unknown` for one not asked yet."""
    if peer.reachable:
        return "up"
    if peer.former:
        return "left"
    return "DOWN" if peer.last_seen or peer.last_error else "unknown"


def log_state(log: LogStatus) -> LogState:
    """`follows`, `own` for the node's own log, `at quota` if the mirror has stopped, `FROZEN` after misbehaviour."""
    if log.frozen:
        return "FROZEN"
    if log.full:
        return "at quota"
    return "own" if log.own else "follows"


def span(seconds: float) -> str:
    """A duration in its largest unit, such as `3 min`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def _limits(out: Output, quotas: Sequence[Quota]) -> None:
    """The limits that are used most, with the share."""
    fullest = sorted(quotas, key=lambda item: item.share, reverse=True)[:MOST_LIMITS]
    rows = [(item.name, _amount(item, item.used), _amount(item, item.limit), share_text(item)) for item in fullest]
    out.table(("limit", "used", "of", "share"), rows, shorten=("limit",))
    _and_more(out, len(quotas) - len(rows))


def share_text(quota: Quota) -> str:
    """`42%`; `full` at the limit and beyond it: a disk smaller than its reserve has a limit of some bytes, and a share
    of these tells nobody anything."""
    return "full" if quota.is_reached else f"{quota.share:.0%}"


def _amount(quota: Quota, amount: int) -> str:
    return str(amount) if quota.items else size(amount)


def _replication(out: Output, status: ReplicationStatus) -> None:
    """What the node wants and lacks, each lacking artifact with the reason, and the copies at the members."""
    counts = status.counts
    out.fact("wants", f"{plural(counts.held + counts.lacking, 'artifact')}: {counts.held} complete here, "
                      f"{counts.lacking} lacking")  # fmt: skip
    if counts.min_copies and counts.counted:
        enough = counts.counted - counts.short
        out.fact("copies", f"{enough} of {plural(counts.counted, 'artifact')} have as many as the charter asks for")
    elif counts.min_copies:
        out.fact("copies", "not counted yet")
    if status.not_listed:
        more = " or more" if status.not_listed >= MOST_NOT_LISTED else ""
        out.fact("not listed", f"{plural(status.not_listed, 'published artifact')}{more}; `replication.mirror` "
                               "or the mirror rules do not want them")  # fmt: skip
    if status.lacking:
        rows = [(item.name or short(item.artifact), _attempt(item), item.why or "-") for item in status.lacking]
        out.say()
        out.table(("lacking", "state", "why"), rows, shorten=("lacking",))
        _and_more(out, counts.lacking - len(rows))
    if status.short:
        names = [(item.name or short(item.artifact), _few(item, counts.min_copies)) for item in status.short]
        out.say()
        out.table(("short of copies", "copies"), names, shorten=("short of copies",))
        _and_more(out, counts.short - len(names))
    _members(out, [item for item in status.members if item.used or item.waiting])


def _members(out: Output, members: Sequence[MemberCopies]) -> None:
    """How the copies of each member use the disk, the largest user first, and how to let the largest copy go."""
    if not members:
        return
    rows = [
        (
            item.name,
            size(item.stored),
            size(item.promised),
            "no limit" if item.most is None else size(item.most),
            str(item.waiting),
            item.largest or "-",
        )
        for item in members[:MOST_MEMBERS]
    ]
    out.say()
    out.table(
        ("copies for", "stored", "promised", "at most", "waiting", "largest"), rows, shorten=("copies for", "largest")
    )
    _and_more(out, len(members) - len(rows))
    if waiting := next((item for item in members if item.waiting and item.largest), None):
        out.hint(f"comity rm {waiting.largest} --dry-run --node HOME")


def _scrub(scrub: ScrubStatus) -> str:
    """`34 % of a pass begun 2026-11-26; last complete pass begun 2026-11-20`."""
    if not scrub.rate:
        return "off: scrub_bytes_per_second is 0, so damage is found only when a file is read"
    last = f"last complete pass begun {date(scrub.whole // 86_400)}" if scrub.whole else "no complete pass yet"
    hours = f"; only in the hours {scrub.hours} UTC" if scrub.hours else ""
    return f"{scrub.per_mille // 10} % of a pass begun {date(scrub.begun // 86_400)}; {last}{hours}"


def _few(item: ShortArtifact, asked: int) -> str:
    """`2 of 3`, and where they are, if the node says so."""
    where = f" in {item.jurisdictions}, reaches {item.reaches}" if item.jurisdictions else ""
    return f"{item.copies} of {asked}{where}"


def _attempt(item: LackingArtifact) -> str:
    return f"again in {span(item.retry_seconds)}" if item.state == "paused" else item.state


def _and_more(out: Output, count: int) -> None:
    if count > 0:
        out.say(f"and {count} more")


def obstacle(draft: DraftStatus) -> str:
    """What keeps members from voting for a draft; a vote that is due is no obstacle."""
    return draft.objection or (f"no consent of {', '.join(draft.missing)}" if draft.missing else "-")


def _governance(out: Output, status: GovernanceStatus, now: float) -> None:
    stopped = "; FORK: votes about the charter are stopped" if status.stopped else ""
    out.fact("charter", f"epoch {status.epoch}, {short(status.body)}{stopped}")
    if status.asks:
        out.fact("join requests", str(status.asks))
    if status.drafts:
        out.say()
        out.table(
            ("draft", "by", "intent", "ratify", "obstacle"),
            [
                (
                    short(draft.body),
                    draft.by or "-",
                    f"{draft.intents} of {draft.quorum}",
                    f"{draft.ratified} of {draft.quorum}",
                    obstacle(draft),
                )
                for draft in status.drafts
            ],
        )
    if status.members:
        rows = [
            (member.name, "-" if member.epoch is None else str(member.epoch), _ago(now, member.heard))
            for member in status.members
        ]
        out.say()
        out.table(("member", "epoch", "newest checkpoint"), rows, shorten=("member",))


def _peers(out: Output, status: NodeStatus, now: float) -> None:
    rows = [
        (
            peer.name,
            peer.jurisdiction,
            peer_state(peer),
            f"{peer.lag} behind" if peer.lag else "level" if peer.last_seen else "-",
            _ago(now, peer.last_seen),
        )
        for peer in status.peers
    ]
    out.say()
    out.table(("node", "jur", "state", "its log here", "seen"), rows, shorten=("node",))
    for peer in status.peers:
        if peer.last_error and peer.reachable:
            out.say(f"{peer.name}: the last exchange failed: {peer.last_error}")


def _served(out: Output, status: NodeStatus) -> None:
    sent: Counter[str] = Counter()
    blobs: Counter[str] = Counter()
    for item in status.served:
        sent[item.caller] += item.bytes
        blobs[item.caller] += 1
    rows = [(caller, str(blobs[caller]), size(count)) for caller, count in sent.most_common(MOST_CALLERS)]
    out.say()
    out.table(("served to", "blobs", "bytes"), rows, shorten=("served to",))
    _and_more(out, len(sent) - MOST_CALLERS)


def _ago(now: float, time: int) -> str:
    return f"{span(now - time)} ago" if time else "never"


def _free_space(free: int | None) -> str:
    return "free space unknown" if free is None else f"{size(free)} free"
