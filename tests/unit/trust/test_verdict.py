"""Verdicts: how rows decide, and the exit status."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from comity.trust.evidence import Cause, Row, RowFact, State, Verdict, exit_status
from comity.trust.policy import ROWS
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

ORDER = ("artifact", "bytes", "signatures", "cosigners")
PASSED = tuple(Row(name, "pass", "", 1) for name in ORDER)


def rows(**causes: Cause) -> tuple[Row, ...]:
    states: dict[Cause, State] = {
        "false": "fail",
        "short": "fail",
        "missing": "unknown",
        "partial": "unknown",
        "": "not-checked",
    }
    return tuple(
        Row(row.name, states[causes[row.name]], "", 1, causes[row.name]) if row.name in causes else row
        for row in PASSED
    )


def test_all_required_rows_passed() -> None:
    assert exit_status(PASSED, ORDER) == 0


@pytest.mark.parametrize(
    ("causes", "status"),
    [
        ({"signatures": "false"}, 3),
        ({"signatures": "short"}, 4),
        ({"signatures": "missing"}, 5),
        ({"signatures": ""}, 5),
        ({"bytes": "partial"}, 8),
        ({"bytes": "false"}, 3),
        ({"artifact": "missing"}, 5),
    ],
)
def test_one_row_that_did_not_pass(causes: dict[str, Cause], status: int) -> None:
    assert exit_status(rows(**causes), ORDER) == status


def test_the_worst_row_decides() -> None:
    ranks: list[tuple[Cause, int]] = [("false", 3), ("short", 4), ("missing", 5), ("", 5), ("partial", 8)]
    for (first, status), (second, _) in itertools.combinations(ranks, 2):
        assert exit_status(rows(signatures=first, cosigners=second), ORDER) == status
        assert exit_status(rows(signatures=second, cosigners=first), ORDER) == status


def test_a_row_that_is_not_required_decides_nothing() -> None:
    for cause in ("false", "short", "missing", ""):
        assert exit_status(rows(cosigners=cause), ("artifact", "signatures")) == 0


def test_bytes_that_differ_are_fatal_even_if_not_required() -> None:
    assert exit_status(rows(bytes="false"), ("artifact",)) == 3
    assert exit_status(rows(bytes="false", signatures="short"), ("artifact", "signatures")) == 3


def test_a_partial_copy_is_reported_even_if_bytes_are_not_required() -> None:
    assert exit_status(rows(bytes="partial"), ("artifact",)) == 8


@pytest.mark.parametrize("state", ["fail", "unknown", "not-checked"])
def test_no_row_without_a_cause_is_accepted(state: State) -> None:
    assert exit_status((Row("cosigners", state, "", 1),), ("cosigners",)) != 0


GRAVITY = (3, 4, 5, 8, 0)
OUTCOMES: tuple[tuple[State, Cause], ...] = (
    *(("fail", "false"), ("fail", "short"), ("unknown", "missing"), ("unknown", "short"), ("not-checked", "")),
    *(("unknown", "partial"), ("pass", "")),
)
verdicts = st.fixed_dictionaries({name: st.sampled_from(OUTCOMES) for name in ROWS[:-1]})


def row(name: str, outcome: tuple[State, Cause]) -> Row:
    return Row(name, outcome[0], "", 1, outcome[1])


@given(verdicts, st.lists(st.sampled_from(ROWS[:-1]), unique=True), st.sampled_from(ROWS[:-1]))
@settings(max_examples=examples(200))
def test_a_row_that_passes_instead_does_not_worsen_the_exit_status(
    outcomes: dict[str, tuple[State, Cause]], required: list[str], mended: str
) -> None:
    before = exit_status(tuple(row(*each) for each in outcomes.items()), tuple(required))
    after = exit_status(tuple(row(*each) for each in {**outcomes, mended: ("pass", "")}.items()), tuple(required))
    assert GRAVITY.index(after) >= GRAVITY.index(before)


@given(verdicts, st.lists(st.sampled_from(ROWS[:-1]), unique=True))
@settings(max_examples=examples(200))
def test_nothing_is_accepted_unless_every_required_row_passes(
    outcomes: dict[str, tuple[State, Cause]], required: list[str]
) -> None:
    status = exit_status(tuple(row(*each) for each in outcomes.items()), tuple(required))
    short_of = [outcomes[name][1] for name in {"artifact", *required} if outcomes[name][0] != "pass"]
    if status == 0:
        assert not short_of
    if "fail" in (outcomes["artifact"][0], outcomes["bytes"][0]) or "false" in short_of:
        assert status == 3
    elif "short" in short_of:
        assert status == 4
    elif set(short_of) - {"partial"}:
        assert status == 5
    decided = {"artifact", "bytes", *required}
    others = {name: ("pass", "") if name not in decided and o[1] != "partial" else o for name, o in outcomes.items()}
    assert exit_status(tuple(row(name, o) for name, o in others.items()), tuple(required)) == status  # type: ignore[arg-type]  # drawn as text


def test_a_required_row_that_is_not_there_is_not_accepted() -> None:
    assert exit_status(PASSED, (*ORDER, "time")) == 5


def test_a_row_with_more_facts_keeps_those_that_it_has_and_its_state() -> None:
    one, two = RowFact("one", "claimed", "CH"), RowFact("two", "verified here")
    row_of_one = Row("logs", "pass", "two logs", 3, facts=(one,))
    assert row_of_one.with_facts(()) == row_of_one
    assert row_of_one.with_facts((two,)) == replace(row_of_one, facts=(one, two))


def test_a_verdict_as_json() -> None:
    fact = RowFact("seen", "claimed", "a node", None)
    verdict = Verdict(
        None, "a/b@v1", (Row("bytes", "fail", "differs", 2, "false", (fact,), "comity pull"),), 3, None, ("bytes",)
    )
    assert json.loads(json.dumps(verdict.to_json())) == {
        "schema": "comity.dev/verdict/v1",
        "artifact": None,
        "name": "a/b@v1",
        "exit_status": 3,
        "accepted": False,
        "policy": None,
        "required": ["bytes"],
        "inputs": [],
        "rows": [
            {
                "row": "bytes",
                "state": "fail",
                "summary": "differs",
                "step": 2,
                "cause": "false",
                "facts": [{"text": "seen", "basis": "claimed", "by": "a node", "evidence": None}],
                "hint": "comity pull",
            }
        ],
    }
    assert verdict.row("bytes").summary == "differs"
    assert not verdict.accepted
