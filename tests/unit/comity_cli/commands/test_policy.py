"""`comity policy`: what is written, found wrong and explained of policies, and with which exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.errors import ComityError
from comity_cli.commands.policy import command
from comity_client.client import Client
from comity_client.home import Home
from support.case import case, nodes
from support.run_command import printed, refused, run, said
from support.world import found

GOOD = case()


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a policy and its federation file; the user's home is empty."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    (tmp_path / "policy.toml").write_text(GOOD.policy_text)
    (tmp_path / "federation.json").write_bytes(GOOD.federation.encode())
    return tmp_path


def pin(folder: Path, data: bytes) -> None:
    path = folder / "pinned.json"
    path.write_bytes(data)
    Client(Home(folder / "home")).pin(path)


def change(folder: Path, old: str, new: str) -> Path:
    path = folder / "policy.toml"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    return path


def test_a_new_policy_pins_what_is_pinned(folder: Path) -> None:
    pin(folder, GOOD.federation.encode())
    target = folder / "mine.toml"
    text = said(command, "new", "--out", target)
    assert f"comity policy check {target}" in text and "no federation is pinned" not in text
    checked = printed(command, "check", target)
    assert checked["can_be_met"] and [each["body"] for each in checked["pins"]] == [GOOD.federation.body.digest]
    refused(command, "new", "--out", target)  # it is not overwritten


def test_a_new_policy_without_pins_or_names_says_what_is_missing(folder: Path) -> None:
    assert "no federation is pinned yet" in said(command, "new", "--out", folder / "a.toml")
    pin(folder, found(nodes(2), {}).encode())
    assert "no pinned charter gives a name to a publisher" in said(command, "new", "--out", folder / "b.toml")
    assert printed(command, "new", "--out", folder / "c.toml")["files"][0] == str(folder / "c.toml")


def test_a_policy_that_can_be_met_ends_with_0(folder: Path) -> None:
    document = printed(command, "check", folder / "policy.toml")
    assert document["can_be_met"] and not [each for each in document["findings"] if each["kind"] == "never"]
    assert document["required"] == ["artifact", "bytes", "signatures", "transparency", "cosigners"]
    assert "the policy is consistent" in said(command, "check", folder / "policy.toml")


def test_a_row_that_can_never_pass_ends_with_4(folder: Path) -> None:
    path = change(folder, '[[pin]]\nfile = "federation.json"\n', "")
    document = printed(command, "check", path, status=4)
    never = [each["row"] for each in document["findings"] if each["kind"] == "never"]
    assert not document["can_be_met"] and never == ["transparency", "cosigners"] and document["pins"] == []
    result = run(command, "check", path)
    assert result.exit_code == 4 and "can never pass: cosigners" in " ".join(result.output.split())
    assert "This policy can accept no model." in result.output


def test_a_line_without_effect_is_named_and_can_be_met(folder: Path) -> None:
    def idle(path: Path) -> set[str]:
        document = printed(command, "check", path)
        assert document["can_be_met"] and all(each["kind"] == "idle" for each in document["findings"])
        return {each["row"] for each in document["findings"]}

    before = idle(folder / "policy.toml")
    path = change(folder, 'outside = ["publisher"]', 'outside = ["publisher", "FR"]')
    assert idle(path) - before == {"cosigners"}
    assert "has no effect: cosigners: cosigners.outside names FR" in said(command, "check", path)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("at_least = 2", "at_least = two", "POLICY-SYNTAX"),
        ("at_least = 2", "at_leest = 2", "POLICY-SYNTAX"),
        ("comity/policy/v1", "comity/policy/v9", "POLICY-SYNTAX"),
    ],
)
def test_a_policy_that_cannot_be_read_is_refused(folder: Path, old: str, new: str, code: str) -> None:
    path = change(folder, old, new)
    for verb in ("check", "explain"):
        assert refused(command, verb, path).code == code


def test_a_pin_that_is_not_valid_is_refused(folder: Path) -> None:
    (folder / "federation.json").write_bytes(GOOD.federation.encode()[:-5])
    error = refused(command, "check", folder / "policy.toml")
    assert isinstance(error, ComityError)


def test_each_table_is_explained(folder: Path) -> None:
    document = printed(command, "explain", folder / "policy.toml")
    titles = [rule["title"] for rule in document["rules"]]
    assert len(titles) == len(set(titles)) > 5 and all(rule["says"] for rule in document["rules"])
    text = said(command, "explain", folder / "policy.toml")
    assert all(title in text for title in titles) and "[cosigners]" in text
    more = printed(command, "explain", change(folder, "at_least = 2", "at_least = 3"))
    changed = [rule["table"] for rule, other in zip(document["rules"], more["rules"], strict=True) if rule != other]
    assert changed == ["cosigners"]
