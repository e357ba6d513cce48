"""Print a node's status: tables for its operators, one document for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from comity.trust.encoding import short
from comity.wire.operator import GovernanceStatus, LogStatus, NodeStatus, PeerStatus

from comity_cli.output import Output, plural, size

MOST_CALLERS: Final = 10


def show(out: Output, status: NodeStatus, now: float) -> None:
    """Args: now: POSIX seconds."""
    out.say(f"{status.origin}  {status.software}  up {span(now - status.started)}")
    store, free = status.store, status.store.free_bytes
    out.fact("full copies", plural(status.holds, "artifact"))
    out.fact("store", f"{plural(store.blobs, 'blob')}, {size(store.bytes)}; {_free_space(free)}")
    if store.quarantined:
        out.fact("quarantine", f"{plural(store.quarantined, 'damaged blob')}")
    out.fact("misbehaviour", plural(status.misbehaviour, "proof") + " kept" if status.misbehaviour else "none seen")
    if status.governance is not None:
        _governance(out, status.governance, now)
    if status.peers:
        _peers(out, status, now)
    out.say()
    out.table(
        ("log", "entries", "state", "cosigned by", "cosigned"),
        [
            (log.origin, str(log.size), log_state(log), _names(log.cosigners), _ago(now, log.checkpoint_time))
            for log in status.logs
        ],
    )
    out.say()
    out.table(("quota", "used", "limit"), [(item.name, size(item.used), size(item.limit)) for item in status.quotas])
    if status.served:
        _served(out, status)
    for warning in status.warnings:
        out.warn(warning)


def document(status: NodeStatus) -> Mapping[str, Any]:
    """The status as JSON: every field, and the states as words."""
    return {
        **asdict(status),
        "peers": [{**asdict(peer), "state": peer_state(peer)} for peer in status.peers],
        "logs": [{**asdict(log), "state": log_state(log)} for log in status.logs],
    }


def peer_state(peer: PeerStatus) -> str:
    """`up`, `DOWN`, or `unknown` for a peer that was not asked yet."""
    if peer.reachable:
        return "up"
    return "DOWN" if peer.last_seen or peer.last_error else "unknown"


def log_state(log: LogStatus) -> str:
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


def _governance(out: Output, status: GovernanceStatus, now: float) -> None:
    stopped = "; FORK: votes about the charter are stopped" if status.stopped else ""
    out.fact("charter", f"epoch {status.epoch}, {short(status.body)}{stopped}")
    if status.asks:
        out.fact("join requests", str(status.asks))
    if status.drafts:
        out.say()
        out.table(
            ("draft", "by", "intend", "ratified", "needed", "waits for"),
            [
                (
                    short(draft.body),
                    draft.by or "-",
                    str(draft.intents),
                    str(draft.ratified),
                    str(draft.quorum),
                    draft.objection or ", ".join(draft.missing) or "-",
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
        out.table(("member", "acts under epoch", "newest checkpoint"), rows)


def _peers(out: Output, status: NodeStatus, now: float) -> None:
    rows = [
        (
            peer.name,
            peer.jurisdiction,
            peer_state(peer),
            f"{peer.lag} behind" if peer.lag else "level" if peer.last_seen else "-",
            _ago(now, peer.last_seen),
            peer.last_error or "-",
        )
        for peer in status.peers
    ]
    out.say()
    out.table(("peer", "in", "state", "its log here", "seen", "last error"), rows)


def _served(out: Output, status: NodeStatus) -> None:
    sent: Counter[str] = Counter()
    blobs: Counter[str] = Counter()
    for item in status.served:
        sent[item.caller] += item.bytes
        blobs[item.caller] += 1
    rows = [(caller, str(blobs[caller]), size(count)) for caller, count in sent.most_common(MOST_CALLERS)]
    out.say()
    out.table(("served to", "blobs", "bytes"), rows)
    if len(sent) > MOST_CALLERS:
        out.say(f"and {len(sent) - MOST_CALLERS} more")


def _names(cosigners: tuple[str, ...]) -> str:
    return ", ".join(name.removesuffix("/cosigner") for name in cosigners) or "-"


def _ago(now: float, time: int) -> str:
    return f"{span(now - time)} ago" if time else "never"


def _free_space(free: int | None) -> str:
    return "free space unknown" if free is None else f"{size(free)} free"
