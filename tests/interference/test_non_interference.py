"""I12: strangers, or one member with all its keys and its node, may say, send, sign, withhold or delay anything; this
changes no result of the others. The same honest script runs without and with each attacker; the outcomes have to be
equal.

    python -m pytest tests/interference -m 'slow and not long'  the short form: one group for each kind of attacker
    python -m pytest tests/interference -m 'long or not long'   every group, and every attacker alone
    python bench/attacked.py                                the same with memory, disk and latency measured
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet
from attackers import ATTACKERS
from interference.federation import HONEST
from interference.groups import FAST, together
from interference.honest import Outcome, Prepared, play, prepared
from support.hub_like import hub_like

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    with hub_like() as hub:
        yield prepared(tmp_path_factory.mktemp("i"), hub)


@pytest.fixture(scope="module")
def undisturbed(before: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return play(before, tmp_path_factory.mktemp("u") / "r")


def changed(outcome: Outcome, undisturbed: Outcome) -> dict[str, object]:
    """The results that differ, and how."""
    return {step: found for step, found in outcome.facts.items() if found != undisturbed.facts[step]}


def test_without_an_attacker_the_script_completes(undisturbed: Outcome) -> None:
    said = repr(undisturbed.facts)
    assert "Error" not in said and "Exception" not in said
    assert undisturbed.facts["grant"] == "accepted"
    counted = undisturbed.facts["counted"]
    assert all(len(nodes) == HONEST for nodes in counted.values())  # type: ignore[attr-defined]  # facts are of any type
    assert undisturbed.report.mirrored == (2, 2, 2, 2)  # the hostile member's log is followed like any other
    assert all(undisturbed.facts["alive"].values())  # type: ignore[attr-defined]  # facts are of any type


def marked(name: str, *, long: bool) -> ParameterSet:
    return pytest.param(name, marks=[pytest.mark.long] if long else [], id=name)


GROUPS = [marked(name, long=name not in FAST) for name in together()]
ALONE = [marked(name, long=True) for name in ATTACKERS]


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_of_attackers_changes_nothing_for_the_others(
    group: str, before: Prepared, undisturbed: Outcome, tmp_path: Path
) -> None:
    assert not changed(play(before, tmp_path / "r", together()[group]), undisturbed)


@pytest.mark.parametrize("name", ALONE)
def test_an_attacker_changes_nothing_for_the_others(
    name: str, before: Prepared, undisturbed: Outcome, tmp_path: Path
) -> None:
    assert not changed(play(before, tmp_path / "r", [name]), undisturbed)
