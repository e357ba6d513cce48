"""A join whose steps happen in any order, with nodes that stop between them, ends with the member admitted by following
the commands that are printed; and no client calls decided what the nodes of a quorum do not follow.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.joining_members import JoiningMember

MEMBERS = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("drafts"), MEMBERS),
    st.tuples(st.just("changes_policy"), MEMBERS),
    st.tuples(st.just("consents"), st.integers(-1, 3)),
    st.tuples(st.just("approves"), MEMBERS),
    st.tuples(st.just("stops"), st.integers(0, 4)),
    st.tuples(st.just("starts"), st.integers(0, 4)),
    st.tuples(st.just("reads"), st.none()),
)
PATIENCE = 12
"""Times that each person runs what is printed: two votes of each member about two drafts, and the ways between."""


def _take(members: JoiningMember, step: tuple[str, int | None]) -> None:
    name, number = step
    getattr(members, name)(*() if number is None else (number,))


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(STEPS, max_size=14))
def test_every_order_of_a_joins_steps_ends_with_the_member_admitted(steps: list[tuple[str, int | None]]) -> None:
    members = JoiningMember()
    for step in steps:
        _take(members, step)
    for _ in range(PATIENCE):
        if members.admitted:
            break
        members.follows_what_is_printed()
    assert members.admitted, (steps, members.lacked(), members.following)


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(STEPS, max_size=14))
def test_nothing_is_called_decided_that_no_quorum_of_nodes_follows(steps: list[tuple[str, int | None]]) -> None:
    members = JoiningMember()
    members.drafts(0)
    for step in steps:
        _take(members, step)
        followed = members.following.followed
        running = [each for each in members.members if each.body.epoch >= followed.epoch]
        assert len(running) >= members.federation.body.quorum, steps


def test_a_consent_that_only_the_newcomers_node_has_is_named_with_its_takers_and_the_join_goes_on() -> None:
    """The walk that did not end: one client for all saw a decision, and the members' nodes waited for the consent."""
    members = JoiningMember()
    members.drafts(0)
    members.reads()
    members.consents(-1)
    for _ in range(2):
        for number in range(4):
            members.approves(number)
            members.reads()
    state, following = members.reading, members.following
    assert state.current.epoch == 1, "this client reads its own line"
    assert following.ahead and following.followed.epoch == 0
    assert not members.admitted
    stuck = [line for line in members.lacked() if line.stuck and line.entry.statement.predicate == "consented"]
    assert [line.what for line in stuck] == ["the consent of Institute BR (BR)"]
    assert {taker.member for taker in stuck[0].takers} == {each.member for each in members.members}
    members.deliver()
    members.reads()
    assert members.admitted and not members.following.ahead
    assert members.lacked() == []
