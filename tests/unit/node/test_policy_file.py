"""The policy of a node's owner: a change counts without a restart, a mistake never makes the node accept more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from comity.node import policy_file
from comity.node.policy_file import PolicyFile
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound
from comity.verifier import read_policy
from structlog.testing import capture_logs
from support.case import nodes
from support.world import found

FIRST, SECOND = Digest("1" * 64), Digest("2" * 64)


class Written:
    """A policy in a folder, with the federation file that it pins."""

    def __init__(self, folder: Path) -> None:
        self.file, self.pinned, self.now = folder / "policy.toml", folder / "federation.json", 0.0
        self.refuse_from(FIRST)

    def refuse_from(self, *issuers: Digest, pin: bool = False) -> None:
        text = '[[pin]]\nfile = "federation.json"\n' if pin else ""
        listed = ", ".join(f'"{issuer}"' for issuer in issuers)
        self.write(f'schema = "comity/policy/v1"\n{text}[advisories]\nrefuse_from = [{listed}]\n')

    def write(self, text: str) -> None:
        self.replace(self.file, text.encode())

    @staticmethod
    def replace(file: Path, data: bytes) -> None:
        """As an editor does: another file under the name."""
        new = file.with_name("new")
        new.write_bytes(data)
        new.replace(file)

    def opened(self) -> PolicyFile:
        return PolicyFile(self.file, lambda: self.now)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def test_a_changed_policy_counts(written: Written) -> None:
    policy = written.opened()
    before = policy.basis
    assert set(policy.named()) == {FIRST}
    written.refuse_from(FIRST, SECOND)
    assert set(policy.named()) == {FIRST, SECOND}
    assert policy.basis not in ("", before)
    assert written.opened().basis == policy.basis, "the same after a restart"


def test_a_policy_that_is_written_in_place_counts(written: Written) -> None:
    policy = written.opened()
    with written.file.open("a") as file:
        file.write("# a remark\n")
    before = policy.basis
    policy.refresh()
    assert policy.basis != before


@pytest.mark.parametrize("mistake", ["not a policy", 'schema = "comity/policy/v9"', None])
def test_what_cannot_be_read_changes_nothing_and_is_told(written: Written, mistake: str | None) -> None:
    policy = written.opened()
    before = policy.policy, policy.basis
    if mistake is None:
        written.file.unlink()
    else:
        written.write(mistake)
    with capture_logs() as events:
        policy.refresh()
        policy.refresh()
    assert (policy.policy, policy.basis) == before
    assert policy.problem
    assert [event["log_level"] for event in events] == ["warning"], "once"
    written.refuse_from(SECOND)
    assert set(policy.named()) == {SECOND}
    assert not policy.problem


def test_a_change_of_a_file_that_the_policy_names_counts(written: Written) -> None:
    written.pinned.write_bytes(found(nodes(3)).encode())
    written.refuse_from(FIRST, pin=True)
    policy = written.opened()
    assert policy.policy is not None
    (body,) = policy.policy.pins
    before = policy.basis
    other = found(nodes(4))
    written.replace(written.pinned, other.encode())
    policy.refresh()
    assert policy.policy.pins == (other.body,)
    assert other.body != body
    assert policy.basis != before
    written.pinned.unlink()
    policy.refresh()
    assert policy.problem
    assert policy.policy.pins == (other.body,)
    written.replace(written.pinned, other.encode())
    policy.refresh()
    assert not policy.problem, "the policy itself has not changed"


def test_a_policy_that_could_not_be_read_is_tried_again_later(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a change: such as after the node had no descriptors left."""
    policy, tried = written.opened(), list[Path]()
    written.refuse_from(SECOND)

    def failing(*asked: object) -> object:
        tried.append(written.file)
        raise NotFound("no descriptors")

    monkeypatch.setattr(policy_file, "read_policy", failing)
    for _ in range(3):
        policy.refresh()
    assert len(tried) == 1
    monkeypatch.setattr(policy_file, "read_policy", read_policy)
    written.now += policy_file.RETRY_SECONDS + 1
    assert set(policy.named()) == {SECOND}


def test_a_file_that_has_not_changed_is_not_read_again(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = written.opened()
    monkeypatch.setattr(policy_file, "read_policy", lambda *asked: pytest.fail("read again"))
    os.utime(written.file, ns=(0, written.file.stat().st_mtime_ns))
    policy.refresh()
    assert set(policy.named()) == {FIRST}


def test_a_node_does_not_start_with_a_bad_policy_and_needs_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        PolicyFile(tmp_path / "policy.toml")
    (tmp_path / "policy.toml").write_text("no policy")
    with pytest.raises(Malformed):
        PolicyFile(tmp_path / "policy.toml")
    none = PolicyFile(None)
    assert (none.configured, none.policy, none.basis, list(none.named()), none.problem) == (False, None, "", [], "")
