"""The last check of a kit is kept, with when the kit passed last."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity_client.home import Home
from comity_client.kits.check import CheckedRow, KitChecked
from comity_client.kits.kept_checks import KeptCheck, keep_check, last_check

KIT, OTHER = sha256(b"kit"), sha256(b"other")


def found(state: str, at: int, summary: str = "because") -> KitChecked:
    return KitChecked("small-chat", KIT, None, (CheckedRow("engine", state, summary),), at)


def test_the_last_check_and_the_last_one_that_passed_are_kept(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert last_check(home, KIT) is None
    for state, at, said, passed in (
        ("failed", 10, "failed", None),
        ("passed", 20, "passed", 20),
        ("not checked", 30, "partial", 20),
        ("failed", 40, "failed", 20),
        ("passed", 50, "passed", 50),
    ):
        kept = keep_check(home, found(state, at))
        assert (kept.state, kept.at, kept.last_passed) == (said, at, passed)
        assert last_check(home, KIT) == kept
    assert last_check(home, OTHER) is None


def test_what_an_engine_said_is_kept_shortened_and_without_control_characters(tmp_path: Path) -> None:
    home = Home(tmp_path)
    kept = keep_check(home, found("failed", 1, "\x1b[2J" + "x" * 5000))
    assert len(kept.rows[0].summary) <= 1000 and "\x1b" not in kept.rows[0].summary
    assert last_check(home, KIT) == kept


@pytest.mark.parametrize("damage", ["other", "cut", "large"])
def test_a_damaged_record_is_an_error_and_is_replaced_by_the_next_check(tmp_path: Path, damage: str) -> None:
    home = Home(tmp_path)
    record = keep_check(home, found("passed", 1))
    (file,) = home.kits.iterdir()
    data = file.read_bytes()
    changed = {"other": data.replace(KIT.encode(), OTHER.encode()), "cut": data[:-9], "large": b" " * 100_000}
    file.write_bytes(changed[damage])
    with pytest.raises(Malformed):
        last_check(home, KIT)
    assert keep_check(home, found("failed", 2)).last_passed is None
    assert KeptCheck.from_json(record.to_json()) == record
