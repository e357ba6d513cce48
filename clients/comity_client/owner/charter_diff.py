"""What differs between two charters, or would if the owner pinned another federation file: for a person to read before
they decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from comity.trust.charter import Body, Member
from comity.trust.digest import Digest
from comity.trust.federation import Federation, FederationNode

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that comes, goes or changes. `before` is empty for what comes, `after` for what goes."""

    what: str
    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class CharterDiff:
    """`old` is None where nothing of this federation is pinned: then everything is new.

    `relation` of the new file to what is pinned: `new`, `same`, `forward` (its chain of certificates leads on from the
    pinned body), `back` (it ends before it), or `fork` (both lead on from `common`, the last epoch they share, to
    different charters: nobody but the owner can say which is right).
    """

    federation: Digest
    old: Digest | None
    new: Digest
    changes: tuple[Change, ...]
    relation: str
    epochs: tuple[int, int]
    common: int


def compare(old: Federation | None, new: Federation) -> CharterDiff:
    """The differences from `old` to `new`, members first, and whether the one leads to the other."""
    changes = [
        *body_changes(old.body if old else None, new.body),
        *_changes("node", _nodes(old), _nodes(new)),
    ]
    return CharterDiff(
        federation=new.id,
        old=old.body.digest if old else None,
        new=new.body.digest,
        changes=tuple(changes),
        relation=_relation(old, new),
        epochs=(old.body.epoch if old else 0, new.body.epoch),
        common=_common(old, new) if old else 0,
    )


def _relation(old: Federation | None, new: Federation) -> str:
    """See `CharterDiff`."""
    if old is None:
        return "new"
    if old.body.digest == new.body.digest:
        return "same"
    if new.holds(old.body.digest):
        return "forward"
    return "back" if old.holds(new.body.digest) else "fork"


def _common(old: Federation, new: Federation) -> int:
    """The last epoch that both chains share."""
    shared = [mine.epoch for mine, other in zip(old.chain, new.chain, strict=False) if mine.digest == other.digest]
    return max(shared, default=0)


def body_changes(old: Body | None, new: Body) -> list[Change]:
    """The differences from charter `old` to `new`: members with their keys, namespaces, policy."""
    return [
        *_changes("member", _members(old), _members(new)),
        *_changes("namespace", old.namespaces if old else {}, new.namespaces),
        *_changes("policy", _policy(old), _policy(new)),
    ]


def _changes(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    names = sorted({*before, *after})
    return [
        Change(what, name, before.get(name, ""), after.get(name, ""))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _members(body: Body | None) -> dict[str, str]:
    return {m.id: _member(m) for m in body.members} if body else {}


def _member(member: Member) -> str:
    keys = ", ".join(key.id[:12] for key in member.keys.keys)
    recovery = ", ".join(digest[:12] for digest in member.recovery) or "none"
    heir = f", successor of {member.successor_of[:12]}" if member.successor_of else ""
    return (
        f"{member.name} ({member.jurisdiction}), {member.status}{heir}, {member.keys.threshold} of keys {keys}, "
        f"recovery {recovery}"
    )


def _policy(body: Body | None) -> dict[str, str]:
    return {name: str(value) for name, value in dataclasses.asdict(body.policy).items()} if body else {}


def _nodes(federation: Federation | None) -> dict[str, str]:
    return {node.record.origin: _node(node) for node in federation.nodes} if federation else {}


def _node(node: FederationNode) -> str:
    return f"{node.record.name} at {', '.join(node.open) or 'no open address'}, key {node.record.online.id[:12]}"
