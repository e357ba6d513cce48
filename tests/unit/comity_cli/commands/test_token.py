"""`comity token`: tokens of a gateway, which are printed once, listed without their secret, replaced and revoked."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from comity.content.gateway_tokens import TOKENS_FILE, USES_FILE, USES_SCHEMA
from comity_cli.commands.token import DAY, HOUR, command
from support.run_command import printed, refused, run, said

NOW = 1_795_000_000


@pytest.fixture(name="home")
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "node.toml").write_text("")
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    return tmp_path


def test_no_token_is_said_with_the_next_step(home: Path) -> None:
    assert said(command, "ls", "--node", home).startswith("None yet.")
    assert printed(command, "ls", "--node", home)["tokens"] == []


def test_a_token_is_printed_once_and_its_hash_is_stored(home: Path) -> None:
    made = printed(command, "new", "ci", "--reach", "swiss-ai/*", "--reach", "acme/model", "--days", 90, "--node", home)
    assert (made["reach"], made["created"], made["expires"]) == (["swiss-ai/*", "acme/model"], NOW, NOW + 90 * DAY)
    assert made["token"] not in (home / TOKENS_FILE).read_text()
    (listed,) = printed(command, "ls", "--node", home)["tokens"]
    assert "token" not in listed and (listed["id"], listed["used"]) == (made["id"], None)
    assert made["token"] not in run(command, "ls", "--node", home).output


def test_a_token_without_days_does_not_end_and_one_without_reach_reads_everything(home: Path) -> None:
    made = printed(command, "new", "ci", "--node", home)
    assert (made["expires"], made["reach"]) == (None, ["*"])
    assert "never" in said(command, "ls", "--node", home)


def test_quiet_prints_the_token_alone(home: Path) -> None:
    result = run(command, "new", "ci", "--node", home, "--quiet")
    assert result.exit_code == 0 and len(result.stdout.split()) == 1 and len(result.stdout) > 30


@pytest.mark.parametrize("days", [0, 3651, -1])
def test_days_have_bounds(home: Path, days: int) -> None:
    assert run(command, "new", "ci", "--days", days, "--node", home).exit_code == 2
    assert not (home / TOKENS_FILE).exists()


@pytest.mark.parametrize("reach", ["", "swiss-ai", "*/x", "a/b/c", "../x"])
def test_a_reach_that_names_nothing_is_refused(home: Path, reach: str) -> None:
    refused(command, "new", "ci", "--reach", reach, "--node", home)
    assert printed(command, "ls", "--node", home)["tokens"] == []


@pytest.mark.parametrize(("overlap", "ends"), [(0, NOW), (5, NOW + 5 * HOUR)])
def test_the_old_token_ends_after_the_overlap(home: Path, overlap: int, ends: int) -> None:
    old = printed(command, "new", "ci", "--reach", "acme/*", "--days", 10, "--node", home)
    new = printed(command, "rotate", old["id"], "--overlap", overlap, "--node", home)
    assert new["token"] != old["token"] and (new["name"], new["reach"]) == ("ci", ["acme/*"])
    assert new["expires"] == NOW + 10 * DAY
    listed = {each["id"]: each["expires"] for each in printed(command, "ls", "--node", home)["tokens"]}
    assert listed[new["id"]] == NOW + 10 * DAY and listed.get(old["id"], ends) == ends


def test_a_token_is_revoked_by_its_name_or_id_once(home: Path) -> None:
    made = printed(command, "new", "ci", "--node", home)
    revoked = printed(command, "revoke", "ci", "--node", home)
    assert (revoked["id"], revoked["name"], revoked["revoked"]) == (made["id"], "ci", True)
    refused(command, "revoke", made["id"], "--node", home)
    refused(command, "rotate", "ci", "--node", home)


def test_the_last_use_is_shown_to_the_minute(home: Path) -> None:
    made = printed(command, "new", "ci", "--node", home)
    (home / USES_FILE).touch(0o600)
    (home / USES_FILE).write_text(json.dumps({"schema": USES_SCHEMA, "uses": {made["id"]: NOW - 60}}))
    assert [each["used"] for each in printed(command, "ls", "--node", home)["tokens"]] == [NOW - 60]
    assert "2026-11-18 11:05 UTC" in said(command, "ls", "--node", home)
    (home / USES_FILE).write_text("damaged")
    assert [each["used"] for each in printed(command, "ls", "--node", home)["tokens"]] == [None]
