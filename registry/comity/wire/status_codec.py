"""GetStatusResponse <-> NodeStatus: the same craft as `codecs`, in a room of its own because only operators meet it.

Encoding cleans the sentences, since errors of peers and of the system end up in them.
"""

from __future__ import annotations

from comity.v1 import operator_pb2
from comity.wire import checks, limits
from comity.wire.errors import clean
from comity.wire.values import LogStatus, NodeStatus, PeerStatus, Quota, Served, StoreStatus


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
        ),
        holds=status.holds,
        misbehaviour=status.misbehaviour,
        quotas=map(_encode_quota, status.quotas),
        warnings=(clean(warning, limits.SENTENCE) for warning in status.warnings),
        served=map(_encode_served, status.served),
    )


def decode_status(message: operator_pb2.GetStatusResponse) -> NodeStatus:
    most = limits.STATUS_ITEMS
    return NodeStatus(
        software=checks.text(message.software, "software name", limits.NAME),
        origin=checks.origin(message.origin),
        started=checks.integer(message.started, "time"),
        peers=checks.many(message.peers, "peers", most, _decode_peer),
        logs=checks.many(message.logs, "logs", most, _decode_log),
        store=_decode_store(message.store),
        holds=checks.integer(message.holds, "holds"),
        misbehaviour=checks.integer(message.misbehaviour, "misbehaviour"),
        quotas=checks.many(message.quotas, "quotas", most, _decode_quota),
        warnings=checks.many(message.warnings, "warnings", most, _sentence),
        served=checks.many(message.served, "sums of bytes served", most, _decode_served),
    )


def _encode_peer(peer: PeerStatus) -> operator_pb2.PeerStatus:
    return operator_pb2.PeerStatus(
        name=peer.name,
        jurisdiction=peer.jurisdiction,
        address=peer.address,
        reachable=peer.reachable,
        last_seen=peer.last_seen,
        lag=peer.lag,
        last_error=clean(peer.last_error, limits.SENTENCE),
    )


def _decode_peer(message: operator_pb2.PeerStatus) -> PeerStatus:
    return PeerStatus(
        name=checks.text(message.name, "name", limits.NAME),
        jurisdiction=checks.text(message.jurisdiction, "jurisdiction", limits.NAME),
        address=checks.text(message.address, "address", limits.NAME),
        reachable=message.reachable,
        last_seen=checks.integer(message.last_seen, "time"),
        lag=checks.integer(message.lag, "lag"),
        last_error=_sentence(message.last_error),
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
        origin=checks.origin(message.origin),
        size=checks.integer(message.size, "size"),
        own=message.own,
        checkpoint_time=checks.integer(message.checkpoint_time, "time"),
        cosigners=checks.many(
            message.cosigners,
            "cosigners",
            limits.STATUS_ITEMS,
            lambda name: checks.text(name, "name of a cosigner", limits.NAME),
        ),
        frozen=message.frozen,
        full=message.full,
    )


def _decode_store(message: operator_pb2.StoreStatus) -> StoreStatus:
    return StoreStatus(
        blobs=checks.integer(message.blobs, "blobs"),
        bytes=checks.integer(message.bytes, "bytes"),
        free_bytes=checks.integer(message.free_bytes, "free bytes") if message.HasField("free_bytes") else None,
        quarantined=checks.integer(message.quarantined, "quarantined blobs"),
    )


def _encode_quota(quota: Quota) -> operator_pb2.Quota:
    return operator_pb2.Quota(name=quota.name, used=quota.used, limit=quota.limit)


def _decode_quota(message: operator_pb2.Quota) -> Quota:
    return Quota(
        name=checks.text(message.name, "name of a quota", limits.NAME),
        used=checks.integer(message.used, "use"),
        limit=checks.integer(message.limit, "limit"),
    )


def _encode_served(served: Served) -> operator_pb2.Served:
    return operator_pb2.Served(caller=served.caller, blob=checks.digest_bytes(served.blob), bytes=served.bytes)


def _decode_served(message: operator_pb2.Served) -> Served:
    return Served(
        caller=checks.text(message.caller, "name of a caller", limits.NAME),
        blob=checks.digest(message.blob),
        bytes=checks.integer(message.bytes, "bytes served"),
    )


def _sentence(value: str) -> str:
    return checks.text(value, "sentence", limits.SENTENCE)
