"""Which address of a peer a node calls next."""

from __future__ import annotations

import itertools

from comity.node.replication.link import LONGEST_PAUSE, AddressTurn

COUNT = 3


def rounds(turn: AddressTurn, seconds: int, works: set[int]) -> list[int]:
    """The addresses that are called, with one round a second."""
    called = []
    for now in range(seconds):
        turn.begin(float(now))
        called.append(turn.index(COUNT))
        if called[-1] in works:
            turn.answered(COUNT)
        else:
            turn.failed(COUNT)
    return called


def test_the_first_address_is_used_as_long_as_it_answers() -> None:
    assert set(rounds(AddressTurn(), 300, {0, 1, 2})) == {0}


def test_a_peer_that_has_just_started_is_soon_called_at_its_first_address() -> None:
    turn = AddressTurn()
    turn.begin(0.0)
    turn.failed(COUNT)  # nothing listened yet
    assert turn.index(COUNT) == 1
    turn.answered(COUNT)
    assert rounds(turn, 5, {0, 1, 2})[-1] == 0


def test_a_first_address_that_never_answers_is_tried_less_and_less() -> None:
    called = rounds(AddressTurn(), 1_000, {1})
    tried = [second for second, address in enumerate(called) if address == 0]
    pauses = [after - before for before, after in itertools.pairwise(tried)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    assert called.count(2) == 0, "the one that answers stays in use"


def test_a_second_address_that_answers_is_reached_however_long_the_rounds_are_apart() -> None:
    turn = AddressTurn()
    for now in (0.0, 10.0):  # seconds; longer than the pause before the first address is tried again
        turn.begin(now)
        turn.failed(2) if turn.index(2) == 0 else turn.answered(2)
    assert turn.index(2) == 1


def test_a_failure_says_whether_another_address_is_left() -> None:
    turn = AddressTurn()
    turn.begin(0.0)
    assert [turn.failed(COUNT) for _ in range(2 * COUNT)] == [True, True, False] * 2
    assert not turn.failed(0)
    assert not turn.failed(1)


def test_all_addresses_are_tried_in_turn_while_none_answers() -> None:
    assert set(rounds(AddressTurn(), 30, set())) == {0, 1, 2}
