"""Whether a charter would leave its members unable to change it again. Source: protocol, section 7.6."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from comity.trust.charter.body import Body, Member, called
from comity.trust.digest import Digest
from comity.trust.statement import Entry


def would_strand(body: Body, active_keys_seen: Collection[Digest]) -> str | None:
    """Why a member's tool refuses to sign `body`; None where its quorum can be met by keys that were seen active.

    Args:
        active_keys_seen: ids (`VerifyingKey.id`) of keys that signed anything of late, `keys_seen` among others.
    """
    silent = [seat for seat in body.active if not _can_act(seat, active_keys_seen)]
    able = len(body.active) - len(silent)
    if able >= body.quorum:
        return None
    return f"{body.quorum} members must be able to sign, and {able} were seen to: nothing from {called(silent)}"


def keys_seen(body: Body, entries: Iterable[Entry]) -> frozenset[Digest]:
    """The keys of seats in `body` that signed one of `entries`."""
    seen: set[Digest] = set()
    keys = {half.id: key for seat in body.members for key in seat.keys.keys for half in key.halves[:1]}
    ids = {half: key.id for half, key in keys.items()}
    for entry in entries:
        for signature in entry.envelope.signatures:
            half = signature.keyid
            if half in keys and ids[half] not in seen and entry.envelope.bears(keys[half]):
                seen.add(ids[half])
    return frozenset(seen)


def _can_act(seat: Member, seen: Collection[Digest]) -> bool:
    return sum(key.id in seen for key in seat.keys.keys) >= seat.keys.threshold
