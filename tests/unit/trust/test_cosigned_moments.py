"""The time at which cosigners prove that an artifact existed: by as many cosigners as the policy asks for, never by one
alone.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from comity.trust.bound_nodes import ProvenCosigner, WitnessedEntry
from comity.trust.key_validity import JudgedPublication
from comity.trust.policy import CosignerRule, Policy
from comity.trust.rows.findings import cosigned_times
from support.case import nodes

CH, SG, ES, KR = (node.seat.member for node in nodes(4))
RULE = CosignerRule(2, 2, ())


def standing(*lines: tuple[int, bool] | int) -> JudgedPublication:
    """A publication in the log of CH, cosigned by SG, ES and KR at these times; (time, post-quantum)."""
    cosigners = []
    for member, line in zip((SG, ES, KR), lines, strict=False):
        at, strong = line if isinstance(line, tuple) else (line, True)
        cosigners.append(ProvenCosigner(member, "", at, strong, ((at, strong),)))
    seen = WitnessedEntry("origin", 0, 1, CH, tuple(cosigners), ())
    return cast(JudgedPublication, SimpleNamespace(witnessed=(seen,), jurisdictions=frozenset()))


def times(*standings: JudgedPublication, rule: CosignerRule = RULE) -> list[int]:
    return [moment.at for moment in cosigned_times(standings, rule)]


def test_a_single_cosigner_cannot_date_an_artifact_back() -> None:
    assert times(standing(10, 200, 300)) == [200, 300]
    assert times(standing(10, 200, 300), rule=CosignerRule(1, 1, ())) == [10, 200, 300]
    assert times(standing(10, 200, 300), rule=CosignerRule(3, 3, ())) == [300]


def test_without_required_cosigners_each_cosigners_own_time_is_given() -> None:
    assert times(standing(10, 200, 300), rule=CosignerRule(0, 0, ())) == [10, 200, 300]
    assert times(standing(), rule=CosignerRule(0, 0, ())) == []


def test_cosigners_of_one_jurisdiction_cannot_date_it_if_the_policy_asks_for_several() -> None:
    neighbours = standing(10, 20, 300)
    same = replace(ES, jurisdiction="SG")
    seen = neighbours.witnessed[0]
    cosigners = tuple(replace(each, member=same) if each.member == ES else each for each in seen.cosigners)
    alike = cast(
        JudgedPublication, SimpleNamespace(witnessed=(replace(seen, cosigners=cosigners),), jurisdictions=frozenset())
    )
    assert times(neighbours) == [20, 300]
    assert times(alike) == [300]


@pytest.mark.parametrize("rule", [CosignerRule(4, 1, ()), CosignerRule(2, 4, ()), CosignerRule(2, 2, ("SG", "ES"))])
def test_too_few_cosigners_give_no_time(rule: CosignerRule) -> None:
    assert times(standing(10, 200, 300), rule=rule) == []


def test_a_cosignature_without_a_time_gives_none() -> None:
    assert times(standing(0, 200)) == []
    assert times(standing(0, 200, 300)) == [300]


def test_if_the_policy_asks_for_post_quantum_no_classical_line_gives_a_time() -> None:
    strong = CosignerRule(2, 2, (), post_quantum=True)
    assert times(standing((10, False), 200, 300), rule=strong) == [300]
    assert times(standing((10, False), (20, False), 300), rule=strong) == []


def test_a_classical_line_of_a_cosigner_with_a_post_quantum_one_does_not_count_either() -> None:
    both = standing(200, 300)
    seen = both.witnessed[0]
    earlier = tuple(replace(each, lines=((10, False), *each.lines)) for each in seen.cosigners)
    mixed = cast(
        JudgedPublication, SimpleNamespace(witnessed=(replace(seen, cosigners=earlier),), jurisdictions=frozenset())
    )
    assert times(mixed, rule=CosignerRule(2, 2, (), post_quantum=True)) == [300]
    assert times(mixed) == [10, 200, 300]


def test_every_statement_about_the_artifact_has_its_times() -> None:
    assert times(standing(10, 20), standing(5, 30)) == [20, 30]


def test_without_required_cosigners_one_is_needed_for_a_time() -> None:
    assert times(standing(10), rule=CosignerRule(0, 0, ())) == [10]
    assert times(standing(), rule=CosignerRule(0, 0, ())) == []


def first(*lines: tuple[int, bool] | int, rule: CosignerRule = RULE) -> tuple[int, int] | None:
    """The earliest time that enough cosigners prove, and how many these are."""
    found = JudgedPublication.first_cosigned(standing(*lines), Policy(cosigners=rule))
    return (found.time, found.cosigners) if found else None


def test_a_publication_is_dated_by_the_last_of_the_cosigners_that_are_needed() -> None:
    assert first(300, 10, 200) == (200, 2)
    assert first(300, 10, 200, rule=CosignerRule(3, 1, ())) == (300, 3)
    assert first(300, 10, 200, rule=CosignerRule(1, 1, ())) == (200, 2), "one clock may say anything"
    assert first(300, rule=CosignerRule(1, 1, ())) == (300, 1)
    assert first(300, 10, rule=CosignerRule(3, 1, ())) is None
    assert first(rule=CosignerRule(0, 0, ())) is None


def test_a_later_proof_makes_no_publication_younger_and_a_cosignature_without_a_time_says_none() -> None:
    early, late = standing(100, 200).witnessed[0], standing(700, 800, 900).witnessed[0]
    both = cast(JudgedPublication, SimpleNamespace(witnessed=(late, early), jurisdictions=frozenset()))
    found = JudgedPublication.first_cosigned(both, Policy(cosigners=RULE))
    assert found is not None and found.time == 200
    assert first(0, 0, 0) is None
    strong = CosignerRule(2, 2, (), post_quantum=True)
    assert first((10, False), (200, True), (300, True), rule=strong) == (300, 2)


def newest(*lines: tuple[int, bool] | int, rule: CosignerRule = RULE) -> tuple[int, int] | None:
    """The newest time that enough cosigners prove, and how many these are."""
    found = JudgedPublication.newest_cosigned(standing(*lines), Policy(cosigners=rule))
    return (found.time, found.cosigners) if found else None


def test_each_member_counts_with_its_newest_time() -> None:
    """An older cosignature that is stronger makes nothing older."""
    assert newest(300, 10, 200) == (200, 2)
    assert newest(0, 0, 0) == (0, 2)
    seen = standing(100, 200, 300).witnessed[0]
    later = tuple(replace(each, lines=(*each.lines, (900, False))) for each in seen.cosigners)
    both = cast(
        JudgedPublication, SimpleNamespace(witnessed=(replace(seen, cosigners=later),), jurisdictions=frozenset())
    )
    for rule, time in ((RULE, 900), (replace(RULE, post_quantum=True), 200)):
        found = JudgedPublication.newest_cosigned(both, Policy(cosigners=rule))
        assert found is not None and (found.time, found.cosigners) == (time, 2)
