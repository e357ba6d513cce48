"""Drafts: bodies that change one thing of the current charter.

All `draft_*` functions raise Malformed if the result breaks a rule. `rebase_draft` takes the changes of a losing draft
over to a newer charter.

`quorum_loss` says why a body would lose its quorum: too few keys were seen active. A key was seen if it signed a known
statement about this epoch or the one before; no clock is used, and silent members still count. Source: protocol,
sections 7.1 and 7.6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from comity.rules.charter_drafts import draft
from comity.trust.charter.document import Body, CharterPolicy, Member, quorum
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict
from comity.trust.rotation import KeyState
from comity.trust.statement import Entry
from comity.trust.statement_kinds import CONSENTED, DRAFT, DRAFT_WITHDRAWN, INTENT, LEFT, RATIFIED, ROTATED

from comity_client.charter.state import CharterState

T = TypeVar("T")


def draft_admission(current: Body, seat: Member, policy: CharterPolicy | None = None) -> Body:
    """A body with one more seat. Without `policy`, the quorum follows the number of members. Raises Conflict
    (MEMBER-EXISTS)."""
    if current.member(seat.id) is not None:
        why = "its id already has a seat"
        raise Conflict(f"{seat.name} is a member", why=why, hint="comity member ls", code="MEMBER-EXISTS")
    return _draft_with_members(current, [*current.members, seat], policy)


def draft_removal(current: Body, member: Digest, policy: CharterPolicy | None = None) -> Body:
    """A body without that seat. The member's publications, log and copies stay its own."""
    return _draft_with_members(current, [seat for seat in current.members if seat.id != member], policy)


def draft_succession(current: Body, old: Member, seat: Member) -> Body:
    """A body with a new seat in place of `old`, whose keys are lost. Both count as one member permanently."""
    follower = dataclasses.replace(seat, successor_of=old.lineage)
    return _draft_with_members(
        current, [follower if member.id == old.id else member for member in current.members], None
    )


def draft_rekeying(current: Body, state: KeyState) -> Body:
    """A body with the keys that a member's own rotations lead to."""
    return _draft_with_members(current, [_rekeyed(seat, state) for seat in current.members], None)


def draft_status(current: Body, member: Digest, to: str, policy: CharterPolicy | None = None) -> Body:
    """A body with a member as `active`, or as `observer` without a vote."""
    seats = [dataclasses.replace(m, status=to) if m.id == member else m for m in current.members]
    return _draft_with_members(current, seats, policy)


def draft_policy_change(current: Body, policy: CharterPolicy) -> Body:
    return draft(current, policy=policy)


def draft_namespaces(current: Body, added: Mapping[str, Digest]) -> Body:
    """A body with more namespaces. An existing namespace keeps its publisher (`check_succession`)."""
    return draft(current, namespaces={**current.namespaces, **added})


def rebase_draft(drafted: Body, before: Body, current: Body) -> Body:
    """The changes from `before` to `drafted`, applied to `current`: a losing draft, drafted again.

    Raises Conflict (REBASE) if both changed the same thing differently: a person must decide.
    """
    seats = _merged(_seats(before), _seats(drafted), _seats(current), "member")
    names = _merged(before.namespaces, drafted.namespaces, current.namespaces, "namespace")
    asked = _merged(_policy_values(before), _policy_values(drafted), _policy_values(current), "policy")
    active = sum(seat.active for seat in seats.values())
    policy = policy_for_size(current.policy, len(current.active), active)
    wished = drafted.policy.quorum_change
    if wished != policy_for_size(before.policy, len(before.active), len(drafted.active)).quorum_change:
        policy = dataclasses.replace(policy, quorum_change=min(max(wished, quorum(active)), active))
    return draft(current, members=seats.values(), namespaces=names, policy=dataclasses.replace(policy, **asked))


def policy_for_size(policy: CharterPolicy, before: int, after: int) -> CharterPolicy:
    """The policy for another number of active members: a smallest quorum stays the smallest, a higher one stays as it
    is if possible."""
    at_minimum = policy.quorum_change == quorum(before)
    asked = quorum(after) if at_minimum else min(max(policy.quorum_change, quorum(after)), after)
    return dataclasses.replace(policy, quorum_change=asked)


def _draft_with_members(current: Body, members: Sequence[Member], policy: CharterPolicy | None) -> Body:
    active = sum(member.active for member in members)
    return draft(
        current, members=members, policy=policy or policy_for_size(current.policy, len(current.active), active)
    )


def _rekeyed(seat: Member, state: KeyState) -> Member:
    return dataclasses.replace(seat, keys=state.keys, recovery=state.recovery) if seat.id == state.identity else seat


def _seats(body: Body) -> dict[str, Member]:
    return {seat.id: seat for seat in body.members}


def _policy_values(body: Body) -> dict[str, int]:
    """The policy values without the quorum, which follows the number of members."""
    policy = dataclasses.asdict(body.policy)
    return {name: value for name, value in policy.items() if name != "quorum_change"}


def _merged(before: Mapping[str, T], own: Mapping[str, T], theirs: Mapping[str, T], what: str) -> dict[str, T]:
    """`theirs` with the changes from `before` to `own`."""
    merged = dict(theirs)
    for name in {*before, *own}:
        old, new, now = before.get(name), own.get(name), theirs.get(name)
        if new in (old, now):
            continue
        if now != old:
            why = f"{what} {name[:40]} was changed differently in the meantime"
            raise Conflict("the draft cannot be rebased on the new charter", why=why, code="REBASE")
        if new is None:
            del merged[name]
        else:
            merged[name] = new
    return merged


_BY_GOVERNANCE_KEYS = frozenset({DRAFT, DRAFT_WITHDRAWN, CONSENTED, LEFT, INTENT, RATIFIED})


def quorum_loss(charter_state: CharterState, body: Body, me: Digest) -> str:
    """Why the members that were seen active could not change `body` any more; empty if they could.

    Args:
        me: the calling member, which counts as active.
    """
    inactive = [seat for seat in body.active if seat.id != me and not _was_active(charter_state, seat)]
    active = len(body.active) - len(inactive)
    if active >= body.quorum:
        return ""
    names = ", ".join(seat.name for seat in inactive)
    return f"a change needs {body.quorum} of {len(body.active)} members, and no recent signature is known of {names}"


def _was_active(charter_state: CharterState, seat: Member) -> bool:
    """Whether a seat was seen active. A newcomer counts as active: the body needs its consent."""
    if charter_state.current.member(seat.id) is None or any(
        seat.id in voters for voters in charter_state.tally.voters_by_round.values()
    ):
        return True
    chain = charter_state.chain(seat.id)
    return any(chain.signed(entry.envelope) for entry in _recent_statements(charter_state, seat.id))


def _recent_statements(charter_state: CharterState, member: Digest) -> Iterable[Entry]:
    """A member's statements about this epoch or the one before, and its rotations, which its new keys sign."""
    epochs = (charter_state.current.digest, charter_state.current.prev)
    for entry in charter_state.entries:
        statement = entry.statement
        if statement.by is None or statement.by.id != member:
            continue
        if statement.predicate == ROTATED or (
            statement.predicate in _BY_GOVERNANCE_KEYS and statement.body.get("prev") in epochs
        ):
            yield entry
