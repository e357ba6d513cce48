"""Continuity plans as files: what is begun is refused until it is filled in, and only its owner signs one."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.errors import Malformed, NotFound, Refused
from comity_client.continuity.plan_files import TO_FILL_IN, new_plan, owner_of, read_plan, sign_plan
from comity_client.publishers import Publisher, new_publisher
from support.continuity import PLAN


@pytest.fixture
def owner(tmp_path: Path) -> Publisher:
    (tmp_path / "keys").mkdir()
    return new_publisher(tmp_path / "keys", label='The "Ministry"', jurisdiction="CH", home="node-ch.example/log")


def filled_in(text: str) -> str:
    kept = (line for line in text.splitlines() if not line.startswith(("evaluation = ", "approval = ")))
    return "\n".join(kept).replace(TO_FILL_IN, "somebody") + "\n"


def test_a_begun_plan_is_refused_until_it_is_filled_in(tmp_path: Path, owner: Publisher) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(new_plan(file, owner, "chat", "2030-01-01", "org/chat@v1", owner.id))
    with pytest.raises(Malformed, match="not filled in"):
        read_plan(file)
    file.write_text(filled_in(file.read_text()))
    plan, entry = sign_plan(file, owner, 1_796_000_000)
    assert plan.owner == owner.id and entry.statement.subject == plan.digest
    assert owner_of(plan, [owner]) == owner


def test_somebody_else_is_not_the_owner_of_a_plan(tmp_path: Path, owner: Publisher) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    with pytest.raises(Refused):
        sign_plan(file, owner, 1)
    with pytest.raises(NotFound, match="none of your identities"):
        owner_of(read_plan(file), [owner])
