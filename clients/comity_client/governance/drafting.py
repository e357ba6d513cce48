"""Bodies that a person may want to put forward: each changes one thing of the current charter, or takes a change over.

Pure: charter in, charter out. Whether a body may follow is judged by `trust.charter`, when it is signed. All functions
raise Malformed where no charter may look like the outcome.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

from comity.trust.charter import Body, CharterPolicy, Member, quorum
from comity.trust.charter.body import draft
from comity.trust.digest import Digest
from comity.trust.errors import Conflict
from comity.trust.rotation import KeyState

T = TypeVar("T")


def admission(current: Body, seat: Member, policy: CharterPolicy | None = None) -> Body:
    """With one more seat, or more than one by repeating this on the outcome's members; `policy` follows the number of
    members where none is given. Raises Conflict (MEMBER-EXISTS)."""
    if current.member(seat.id) is not None:
        why = "it has a seat, under this id"
        raise Conflict(f"{seat.name} is a member", why=why, hint="comity member ls", code="MEMBER-EXISTS")
    return _with_members(current, [*current.members, seat], policy)


def removal(current: Body, member: Digest, policy: CharterPolicy | None = None) -> Body:
    """Without that seat. What it published, logged and holds stays its own."""
    return _with_members(current, [seat for seat in current.members if seat.id != member], policy)


def succession(current: Body, old: Member, seat: Member) -> Body:
    """With a new seat in place of `old`, whose keys are lost; the two count as one member for ever."""
    follower = dataclasses.replace(seat, successor_of=old.lineage)
    return _with_members(current, [follower if member.id == old.id else member for member in current.members], None)


def rekeying(current: Body, state: KeyState) -> Body:
    """With the keys that a member's own rotations have led to."""
    return _with_members(current, [_rekeyed(seat, state) for seat in current.members], None)


def status(current: Body, member: Digest, to: str, policy: CharterPolicy | None = None) -> Body:
    """With a member as `active`, or as an `observer`, which has no vote."""
    seats = [dataclasses.replace(m, status=to) if m.id == member else m for m in current.members]
    return _with_members(current, seats, policy)


def policy_change(current: Body, policy: CharterPolicy) -> Body:
    return draft(current, policy=policy)


def namespaces(current: Body, added: Mapping[str, Digest]) -> Body:
    """With more namespaces. One that stands in the charter keeps its publisher for ever: see `succession` in trust."""
    return draft(current, namespaces={**current.namespaces, **added})


def rebase(drafted: Body, before: Body, current: Body) -> Body:
    """What `drafted` changes of `before`, put upon `current`: a losing draft, drafted again.

    Raises Conflict (REBASE) where both changed the same thing to something different: a person must decide that.
    """
    seats = _merged(_seats(before), _seats(drafted), _seats(current), "member")
    names = _merged(before.namespaces, drafted.namespaces, current.namespaces, "namespace")
    asked = _merged(_promises(before), _promises(drafted), _promises(current), "policy")
    active = sum(seat.active for seat in seats.values())
    policy = following(current.policy, len(current.active), active)
    wished = drafted.policy.quorum_change
    if wished != following(before.policy, len(before.active), len(drafted.active)).quorum_change:
        policy = dataclasses.replace(policy, quorum_change=min(max(wished, quorum(active)), active))
    return draft(current, members=seats.values(), namespaces=names, policy=dataclasses.replace(policy, **asked))


def following(policy: CharterPolicy, before: int, after: int) -> CharterPolicy:
    """The policy for another number of active members: a quorum at the floor stays there, a higher one stays as it is
    where it can."""
    at_floor = policy.quorum_change == quorum(before)
    asked = quorum(after) if at_floor else min(max(policy.quorum_change, quorum(after)), after)
    return dataclasses.replace(policy, quorum_change=asked)


def _with_members(current: Body, members: Sequence[Member], policy: CharterPolicy | None) -> Body:
    active = sum(member.active for member in members)
    return draft(current, members=members, policy=policy or following(current.policy, len(current.active), active))


def _rekeyed(seat: Member, state: KeyState) -> Member:
    return dataclasses.replace(seat, keys=state.keys, recovery=state.recovery) if seat.id == state.identity else seat


def _seats(body: Body) -> dict[str, Member]:
    return {seat.id: seat for seat in body.members}


def _promises(body: Body) -> dict[str, int]:
    """What the policy asks, apart from the quorum, which follows the number of members."""
    policy = dataclasses.asdict(body.policy)
    return {name: value for name, value in policy.items() if name != "quorum_change"}


def _merged(before: Mapping[str, T], mine: Mapping[str, T], theirs: Mapping[str, T], what: str) -> dict[str, T]:
    """`theirs` with what changed from `before` to `mine`."""
    merged = dict(theirs)
    for name in {*before, *mine}:
        old, new, now = before.get(name), mine.get(name), theirs.get(name)
        if new in (old, now):
            continue
        if now != old:
            why = f"{what} {name[:40]} was changed otherwise in the meantime"
            raise Conflict("the draft cannot be put upon the new charter", why=why, code="REBASE")
        if new is None:
            del merged[name]
        else:
            merged[name] = new
    return merged
