"""Rotations mixed in any way: order, duplicates, forgeries and forks change only what their signed content says."""

from __future__ import annotations

import functools
from dataclasses import replace

from comity.trust.identity import KeySet
from comity.trust.rotation import follow, parse_rotation, rotation_statement
from comity.trust.statement import Entry, parse_entry, sign_statement
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.rotations import CLASSICAL, Owned, begun
from support.world import signer

FIRST = begun("walker", keys=2, recovery=3)
THIEF = signer("thief", CLASSICAL)


@functools.cache
def step(path: str, to: str) -> tuple[Owned, Entry]:
    """The state at `path`, rotated to the state that `to` names: a tree of states, of which an honest owner follows one
    branch.
    """
    return state(path).to(path + to, keys=2, recovery=3)


@functools.cache
def state(path: str) -> Owned:
    return step(path[:-1], path[-1])[0] if path else FIRST


PATHS = st.text("ab", min_size=1, max_size=4)
STEPS = st.lists(PATHS, max_size=12).map(lambda paths: [step(path[:-1], path[-1])[1] for path in paths])


def forged(entry: Entry) -> Entry:
    """The same content without valid signatures."""
    rotation, used = parse_rotation(entry)
    mine = replace(rotation, keys=KeySet((THIEF.public,), 1))
    return sign_statement(rotation_statement(mine, used), THIEF)


@given(STEPS, st.data())
@settings(max_examples=examples(60))
def test_order_duplicates_and_forgeries_change_nothing(entries: list[Entry], data: st.DataObject) -> None:
    noise = [forged(entry) for entry in entries] + entries[:3]
    mixed = data.draw(st.permutations([*entries, *noise]))
    assert follow(FIRST.state, mixed) == follow(FIRST.state, entries)


@given(STEPS, STEPS)
@settings(max_examples=examples(60))
def test_more_rotations_reach_more_states_and_never_fewer(entries: list[Entry], more: list[Entry]) -> None:
    before, after = follow(FIRST.state, entries), follow(FIRST.state, [*more, *entries])
    assert set(before.reached) <= set(after.reached)
    assert len(before.disputes) <= len(after.disputes)


@given(STEPS)
@settings(max_examples=examples(60))
def test_a_chain_is_the_longest_path_without_a_fork(entries: list[Entry]) -> None:
    chain = follow(FIRST.state, entries)
    have = {entry.digest for entry in entries}
    path, way = "", [FIRST.state]
    while len(nexts := [to for to in "ab" if step(path, to)[1].digest in have]) == 1:
        path += nexts[0]
        way.append(state(path).state)
    assert list(chain.states) == way
    assert (chain.disputes == ()) == (len(chain.reached) == len(way))


@given(PATHS)
@settings(max_examples=examples(30))
def test_an_honest_owner_reaches_the_newest_state_from_every_earlier_one(path: str) -> None:
    entries = [step(path[:at], path[at])[1] for at in range(len(path))]
    for at in range(len(path)):
        assert follow(state(path[:at]).state, entries).current == state(path).state


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers(-5, 5) | st.text(max_size=80), max_size=8), STEPS)
@settings(max_examples=examples(60))
def test_no_statement_makes_a_chain_fail(body: dict[str, int | str | None], entries: list[Entry]) -> None:
    statement = step("", "a")[1].statement
    for changed in (body, {**statement.body, **body}):
        hostile = parse_entry(sign_statement(replace(statement, body=changed), THIEF).line)
        assert follow(FIRST.state, [hostile, *entries]) == follow(FIRST.state, entries)
