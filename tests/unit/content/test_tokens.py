"""Tokens of a gateway: what is stored of them, what they allow, and that a damaged file allows nothing."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from comity.content.gateway_tokens import (
    KEPT_EXPIRED,
    MAX_TOKENS,
    MAX_USES,
    TokenFile,
    TokenUses,
    check_reach,
    looks_like_token,
    read_uses,
    token_hash,
)
from comity.trust.errors import Malformed, NotFound, OutOfSpace, Refused
from comity_cli.main import main


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.json")


def test_a_token_has_the_shape_that_hub_clients_send_and_only_its_hash_is_kept(file: TokenFile, tmp_path: Path) -> None:
    secret, token = file.add("ci", ("*",), 1_800_000_000)
    assert re.fullmatch("hf_[A-Za-z0-9]{40}", secret) and looks_like_token(secret)
    kept = (tmp_path / "tokens.json").read_text()
    assert secret not in kept and secret[3:] not in kept
    assert token_hash(secret) in kept
    assert file.read() == (token,)
    assert stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("reach", "repository", "opens"),
    (
        ("*", "any/thing", True),
        ("swiss-ai/*", "swiss-ai/apertus", True),
        ("swiss-ai/*", "Swiss-AI/Apertus", True),
        ("swiss-ai/*", "swiss-ai2/apertus", False),
        ("swiss-ai/apertus", "swiss-ai/apertus", True),
        ("swiss-ai/apertus", "swiss-ai/apertus-2", False),
        ("swiss-ai/*", "gpt2", False),
    ),
)
def test_a_token_gives_access_to_its_reach(file: TokenFile, reach: str, repository: str, opens: bool) -> None:
    _, token = file.add("ci", (reach,), 0)
    assert token.allows(repository) is opens


@pytest.mark.parametrize("reach", ("", "**", "a", "*/b", "a/*/c", "a/..", "../b", "a b/c"))
def test_a_reach_that_means_nothing_is_refused(file: TokenFile, reach: str) -> None:
    with pytest.raises(Malformed):
        check_reach(reach)
    with pytest.raises(Malformed):
        file.add("ci", (reach,), 0)
    assert file.read() == ()


def test_a_token_is_revoked_by_its_id_or_by_a_unique_name(file: TokenFile) -> None:
    tokens = [file.add(name, ("*",), 0)[1] for name in ("a", "b", "b", "c")]
    file.revoke("a")
    file.revoke(tokens[3].id)
    with pytest.raises(NotFound, match="several"):
        file.revoke("b")
    with pytest.raises(NotFound):
        file.revoke("a")
    assert file.read() == tuple(tokens[1:3])


def test_a_file_that_others_can_read_or_that_is_damaged_gives_no_access(file: TokenFile, tmp_path: Path) -> None:
    file.add("ci", ("*",), 0)
    path = tmp_path / "tokens.json"
    path.chmod(0o644)
    with pytest.raises(Refused):
        file.read()
    path.chmod(0o600)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(Malformed):
        file.read()


def test_tokens_are_bounded(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.content.gateway_tokens.MAX_TOKENS", 2)
    assert MAX_TOKENS > 2
    file.add("a", ("*",), 0)
    file.add("b", ("*",), 0)
    with pytest.raises(OutOfSpace):
        file.add("c", ("*",), 0)


def test_the_command_shows_a_token_once_and_never_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "node.toml").touch()
    made = run(capsys, "token", "new", "ci", "--reach", "acme/*", "--dir", str(tmp_path))
    assert made["schema"] == "comity.dev/token/v1" and looks_like_token(made["token"])
    listed = run(capsys, "token", "ls", "--dir", str(tmp_path))
    assert [(t["id"], t["name"], t["reach"]) for t in listed["tokens"]] == [(made["id"], "ci", ["acme/*"])]
    assert made["token"] not in json.dumps(listed)
    run(capsys, "token", "revoke", "ci", "--dir", str(tmp_path))
    assert run(capsys, "token", "ls", "--dir", str(tmp_path))["tokens"] == []


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert ended.value.code == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_quiet_prints_the_token_and_nothing_else(
    tmp_path: Path, file: TokenFile, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "node.toml").touch()
    with pytest.raises(SystemExit) as ended:
        main(["token", "new", "ci", "--dir", str(tmp_path), "-q"])
    printed = capsys.readouterr()
    assert ended.value.code == 0
    assert printed.err == ""
    secret = printed.out.removesuffix("\n")
    assert looks_like_token(secret)
    assert [token.hash for token in file.read()] == [token_hash(secret)]


def test_a_token_expires_at_its_time(file: TokenFile) -> None:
    _, token = file.add("ci", ("*",), 1_000, 2_000)
    assert [token.expired(now) for now in (1_999, 2_000)] == [False, True]
    assert not file.add("always", ("*",), 1_000)[1].expired(10**12)
    assert file.read()[0] == token
    with pytest.raises(Malformed, match="before it begins"):
        file.add("never", ("*",), 1_000, 1_000)


def test_a_file_without_ends_is_written_as_before(file: TokenFile, tmp_path: Path) -> None:
    file.add("ci", ("*",), 1_000)
    (written,) = json.loads((tmp_path / "tokens.json").read_text())["tokens"]
    assert set(written) == {"id", "name", "reach", "created", "sha256"}


def test_rotation_makes_a_successor_and_ends_the_old_token_later(file: TokenFile) -> None:
    _, first = file.add("ci", ("a/*",), 1_000, 1_500)
    secret, second, old = file.rotate("ci", 1_200, 86_400)
    assert (second.name, second.reach, second.created, second.expires) == ("ci", ("a/*",), 1_200, 1_700)
    assert (old.id, old.expires) == (first.id, 1_500)  # its time of expiry is unchanged
    assert file.read() == (old, second)
    assert token_hash(secret) == second.hash
    with pytest.raises(NotFound, match="several"):
        file.rotate("ci", 1_300, 0)
    _, third, ending = file.rotate(second.id, 1_300, 60)
    assert (ending.id, ending.expires, third.expires) == (second.id, 1_360, 1_800)
    _, _, at_once = file.rotate(third.id, 1_400, 0)
    assert at_once.expired(1_400)


def test_a_token_that_expired_long_ago_is_removed(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.content.gateway_tokens.MAX_TOKENS", 2)
    file.add("a", ("*",), 1_000, 2_000)
    file.add("b", ("*",), 1_000)
    with pytest.raises(OutOfSpace):
        file.add("c", ("*",), 2_000)
    file.add("c", ("*",), 2_000 + KEPT_EXPIRED)
    assert [token.name for token in file.read()] == ["b", "c"]


def test_the_last_use_is_kept_to_the_minute_and_written_seldom(tmp_path: Path) -> None:
    path = tmp_path / "token-uses.json"
    uses = TokenUses(path)
    assert uses.seen("k3", 1_000_030.0)
    uses.write()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_uses(path) == {"k3": 999_960 + 60 * ((1_000_030 - 999_960) // 60)}
    assert not uses.seen("k3", 1_000_035.0)  # the same minute
    assert not uses.seen("k4", 1_000_036.0)  # written less than a minute ago
    assert uses.seen("k4", 1_000_100.0)
    uses.seen("k5", 1_000_120.0)
    uses.flush()
    assert set(read_uses(path)) == {"k3", "k4", "k5"}
    for number in range(MAX_USES):
        uses.seen(f"id {number}", 2_000_000.0)
    assert len(uses.times) == MAX_USES


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema":"comity/token-uses/v1","uses":{"a":-1}}', "\x00"])
def test_uses_that_cannot_be_read_are_unknown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token-uses.json"
    path.write_text(text)
    path.chmod(0o600)
    assert read_uses(path) == {}


def test_the_command_rotates_and_lists_when_a_token_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "node.toml").touch()
    made = run(capsys, "token", "new", "ci", "--days", "90", "--node", str(tmp_path))
    assert made["expires"] == made["created"] + 90 * 86_400
    rotated = run(capsys, "token", "rotate", "ci", "--node", str(tmp_path))
    assert rotated["token"] != made["token"] and rotated["id"] != made["id"]
    old, new = run(capsys, "token", "ls", "--node", str(tmp_path))["tokens"]
    assert (old["id"], new["id"], new["used"]) == (made["id"], rotated["id"], None)
    assert old["expires"] < made["expires"]


def test_tokens_that_root_makes_belong_to_the_owner_of_the_home(
    file: TokenFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node, which is not root, reads them, and changes them in its console."""
    given = dict[str, int]()

    def chown(path: Path, user: int, group: int, *, follow_symlinks: bool) -> None:
        given[path.name] = user

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", chown)
    file.add("ci", ("*",), 1_800_000_000)
    owner = tmp_path.stat().st_uid
    assert given == {"tokens.json": owner, ".tokens.json.lock": owner}
