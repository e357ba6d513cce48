"""A node that is killed and restarted under attack holds and signs the same as without the attack."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from interference.federation import Hostile, running
from interference.groups import together
from interference.honest import Prepared, Script, prepared, spread
from support.hub_like import hub_like
from support.short_form import cases

pytestmark = pytest.mark.slow


SHORT = ("floods of warnings and names",)
"""Groups of the short form: not those of the short form of tests/interference."""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    with hub_like() as hub:
        yield prepared(tmp_path_factory.mktemp("d"), hub)


@pytest.mark.parametrize("group", cases(together(), SHORT))
def test_a_node_killed_under_attack_restarts_with_all_publications(
    group: str, before: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = Script(before, tmp_path_factory.mktemp("d") / "r")  # short: sockets are below it
    homes = script.members.honest
    dies = random.Random(group).choice(homes)
    others = [home for home in homes if home is not dies]
    hostile = Hostile(script.members)
    try:
        with running(*others):
            with running(dies) as (victim,):
                hostile.attack(together()[group], before.known)
                published = script.publish()
                victim.process.kill()
                victim.process.join()
            with running(dies):
                held = spread(homes, sorted(published.values()))  # type: ignore[attr-defined]  # facts of a script are of any type
                assert all(set(each) == set(published.values()) for each in held.values())  # type: ignore[attr-defined]  # facts of a script are of any type
                assert all(len(each) == len(homes) - 1 for each in script.cosigners().values())  # type: ignore[attr-defined]  # facts of a script are of any type
    finally:
        hostile.close()
