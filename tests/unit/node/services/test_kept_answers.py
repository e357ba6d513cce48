"""Answers are kept at one position, and no more bytes of them than a bound."""

from __future__ import annotations

from comity.node.services.kept_answers import KeptAnswers


def test_an_answer_is_given_again_at_its_position_only() -> None:
    kept = KeptAnswers[str](100)
    assert kept.get(7, "who") is None
    kept.keep(7, "who", "me", 1)
    assert kept.get(7, "who") == "me" and kept.get(7, "what") is None
    assert kept.get(8, "who") is None
    assert kept.get(7, "who") is None, "forgotten"


def test_what_was_read_before_a_new_position_is_not_kept_for_it() -> None:
    kept = KeptAnswers[str](100)
    kept.get(7, "who")
    kept.get(8, "who")
    kept.keep(7, "who", "me", 1)
    assert kept.get(8, "who") is None


def test_the_answers_that_were_used_last_are_kept_within_the_bound() -> None:
    kept = KeptAnswers[int](30)
    for number in range(3):
        kept.get(7, number)
        kept.keep(7, number, number, 10)
    kept.get(7, 0)
    kept.keep(7, 3, 3, 15)
    assert [kept.get(7, number) for number in range(4)] == [0, None, None, 3]


def test_an_answer_that_is_kept_already_counts_once() -> None:
    kept = KeptAnswers[int](20)
    kept.get(7, "who")
    for _ in range(5):
        kept.keep(7, "who", 1, 10)
    kept.keep(7, "what", 2, 10)
    assert (kept.get(7, "who"), kept.get(7, "what")) == (1, 2)
