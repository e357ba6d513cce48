"""Usage of grants, answers to defaults, and the nodes that are granted at each instant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.offers.amounts import DefaultAnswer, Profile, Usage
from comity.rules.offers.offer import Window
from comity.rules.signing import statement_of
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.statement import SideObject, Statement, Subject
from support.offers import NODE, START

CHAIN, GRANT = sha256(b"a chain"), sha256(b"a grant")
USED = Usage(CHAIN, GRANT, Window(START, START + 3600), (5, 0), "two jobs")
ANSWER = DefaultAnswer(CHAIN, GRANT, sha256(b"a default"), "the cluster was down")
USAGE_SAID, ANSWER_SAID = statement_of(USED, NODE), statement_of(ANSWER, NODE)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"predicate": "offer"}, id="another predicate"),
        pytest.param({"by": None}, id="no author"),
        pytest.param({"by": replace(NODE, kind="identity")}, id="by an identity"),
        pytest.param({"subjects": (Subject("", CHAIN),)}, id="another name of its subject"),
        pytest.param({"subjects": (Subject("offer", CHAIN),) * 2}, id="two subjects"),
        pytest.param({"objects": (SideObject.of(b"x"),)}, id="a side object"),
    ],
)
def test_usage_and_answers_are_statements_of_a_node_about_one_offer(change: dict[str, Any]) -> None:
    assert (Usage.parse(USAGE_SAID), DefaultAnswer.parse(ANSWER_SAID)) == (USED, ANSWER)
    with pytest.raises(Malformed):
        Usage.parse(replace(USAGE_SAID, **change))
    with pytest.raises(Malformed):
        DefaultAnswer.parse(replace(ANSWER_SAID, **change))


@pytest.mark.parametrize("name", ["more", "grant", "text"])
def test_members_of_usage_and_of_answers_are_known_and_typed(name: str) -> None:
    def changed(statement: Statement) -> Statement:
        return replace(statement, body={**statement.body, name: 1})

    with pytest.raises(Malformed):
        Usage.parse(changed(USAGE_SAID))
    with pytest.raises(Malformed):
        DefaultAnswer.parse(changed(ANSWER_SAID))


def test_what_nobody_could_read_is_not_stated() -> None:
    for used in (replace(USED, amounts=()), replace(USED, amounts=(-1,)), replace(USED, text="\x1b[2J")):
        with pytest.raises(Malformed):
            statement_of(used, NODE)
    with pytest.raises(Malformed):
        statement_of(replace(ANSWER, text="\x1b[2J"), NODE)


def test_an_empty_interval_has_no_nodes_and_adds_none() -> None:
    profile = Profile()
    profile.add(0, 10, 3)
    for start, end in ((5, 5), (7, 3), (0, 0), (10, 10)):
        profile.add(start, end, 9)
        assert profile.peak(start, end) == 0
    profile.add(2, 4, 0)
    assert profile.steps() == ((0, 3), (10, 0))
    assert (profile.peak(0, 1), profile.peak(9, 10), profile.peak(10, 11)) == (3, 3, 0)


def test_steps_that_meet_at_one_level_are_one_step() -> None:
    profile = Profile()
    for start, end in ((0, 5), (10, 15), (5, 10)):
        profile.add(start, end, 2)
    assert profile.steps() == ((0, 2), (15, 0))
    profile.add(0, 15, -2)
    assert profile.steps() == ()
