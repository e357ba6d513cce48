"""How many bits of a digest a node is told, and how the questions are cut."""

from __future__ import annotations

from comity.wire import limits
from comity_client.identify.lookup import MOST_BITS, SHARED, ClaimedFiles, NodeAnswer, _questions, bits_for
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 2**53))
def test_enough_files_share_a_prefix_and_it_never_has_more_bits_than_the_most(indexed: int) -> None:
    bits = bits_for(indexed)
    assert 0 <= bits <= MOST_BITS
    assert bits == 0 or indexed >> bits >= SHARED
    assert bits == MOST_BITS or indexed >> bits < 2 * SHARED


@given(st.integers(0, 2**53), st.integers(0, 5_000))
def test_questions_have_every_prefix_once_and_are_within_what_a_node_answers(indexed: int, count: int) -> None:
    bits = bits_for(indexed)
    prefixes = range(min(count, 1 << bits))
    questions = list(_questions(prefixes, bits, indexed))
    assert [prefix for question in questions for prefix in question.prefixes] == list(prefixes)
    for question in questions:
        assert len(question.prefixes) <= limits.FILE_PREFIXES
        expected = max(1, indexed >> bits) * len(question.prefixes)
        assert expected <= limits.FILES_ASKED or len(question.prefixes) == 1


def test_a_file_is_unknown_only_where_each_node_that_answered_said_all() -> None:
    reference, whole = bytes(16), NodeAnswer("a", 5)
    silent, reading = NodeAnswer("b", problem="no answer"), NodeAnswer("c", 5, unread=1)
    cut, cut_elsewhere = NodeAnswer("d", 5, cut=frozenset({reference})), NodeAnswer("e", 5, cut=frozenset({b"x" * 16}))
    for nodes, unknown in (
        ((whole,), True),
        ((whole, silent, cut_elsewhere), True),
        ((whole, reading), False),
        ((whole, cut), False),
        ((silent,), False),
        ((), False),
    ):
        assert ClaimedFiles({}, nodes).is_unknown(reference) is unknown
