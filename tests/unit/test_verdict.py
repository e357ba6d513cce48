from __future__ import annotations

import itertools
import json

import pytest
from comity.trust.verdict import Cause, Fact, Row, State, Verdict, exit_status

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


def test_a_row_that_nobody_requires_decides_nothing() -> None:
    for cause in ("false", "short", "missing", ""):
        assert exit_status(rows(cosigners=cause), ("artifact", "signatures")) == 0


def test_bytes_that_differ_are_fatal_even_if_nobody_requires_them() -> None:
    assert exit_status(rows(bytes="false"), ("artifact",)) == 3
    assert exit_status(rows(bytes="false", signatures="short"), ("artifact", "signatures")) == 3


def test_partial_is_said_even_if_nobody_requires_the_bytes() -> None:
    assert exit_status(rows(bytes="partial"), ("artifact",)) == 8


@pytest.mark.parametrize("state", ["fail", "unknown", "not-checked"])
def test_no_row_without_a_cause_is_accepted(state: State) -> None:
    assert exit_status((Row("cosigners", state, "", 1),), ("cosigners",)) != 0


def test_a_required_row_that_is_not_there_is_not_accepted() -> None:
    assert exit_status(PASSED, (*ORDER, "time")) == 5


def test_a_verdict_as_json() -> None:
    fact = Fact("seen", "claimed", "a node", None)
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
