"""`comity advisory`: what is logged for whom, and which warnings are listed with what a limit left out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from comity.trust.encoding import sha256
from comity.trust.statement import Author
from comity.trust.statements import ADVISORIES, KEY_COMPROMISE, SEVERITIES, Advisory, Compromise
from comity.wire.messages import LocatedEntry
from comity_cli.commands import advisory as module
from comity_cli.commands.advisory import command
from comity_client.evidence.known_since import ClaimedTimes
from support.run_command import printed, run, said

ARTIFACT, WHO = sha256(b"model"), Author("identity", sha256(b"desk"))
YANK = Advisory(WHO, ARTIFACT, "yank", "high", "wrong tokenizer")
LOST = Advisory(WHO, WHO.id, KEY_COMPROMISE, "critical", "the laptop is gone", Compromise(sha256(b"key"), "a/log", 7))


class Nodes:
    """A client whose nodes have these warnings; `said` is what was logged."""

    def __init__(self) -> None:
        self.warnings: list[Advisory] = []
        self.lost: list[Any] = []
        self.bounds: tuple[str, ...] = ()
        self.said: list[tuple[Any, ...]] = []

    def resolve(self, reference: str, policy: Any = None) -> Any:
        evidence, times = SimpleNamespace(bounds=self.bounds), ClaimedTimes()
        times.add(WHO.id, [LocatedEntry("a.example/log", 0, b"yank", known_since=86_400)])
        return SimpleNamespace(
            advised=[(SimpleNamespace(line=b"yank"), each) for each in self.warnings],
            lost_keys=self.lost,
            evidence=evidence,
            inquiry=SimpleNamespace(claimed_times=times),
        )

    def advise(self, reference: str, kind: str, severity: str, text: str, **more: Any) -> Any:
        self.said.append((reference, kind, severity, text, more["nodes"]))
        return SimpleNamespace(title="inst/tiny@v1", artifact=ARTIFACT)

    def report_lost_key(self, signer: Any, since: int, text: str, **more: Any) -> Any:
        self.said.append((signer.label, since, text, more["key"]))
        return SimpleNamespace(title="Swiss AI")


@pytest.fixture(name="nodes")
def _nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    made = Nodes()
    monkeypatch.setattr(module, "client", lambda: made)
    monkeypatch.setattr(
        module, "signing", lambda api, name: SimpleNamespace(label=name or "only", home="a.example/log")
    )
    monkeypatch.setattr(module, "show_receipt", lambda out, receipt, nodes: 8 if nodes else 0)
    return made


def test_no_warning_is_said(nodes: Nodes) -> None:
    assert said(command, "ls", "inst/tiny@v1") == "None known to the reachable nodes."
    document = printed(command, "ls", "inst/tiny@v1")
    assert (document["advisories"], document["not_read"]) == ([], [])


def test_warnings_about_bytes_and_keys_are_listed_with_their_signer(nodes: Nodes) -> None:
    nodes.warnings = [YANK]
    statement = SimpleNamespace(entry=SimpleNamespace(statement=LOST.statement(), line=b"lost"))
    nodes.lost, nodes.bounds = [statement], ("statements of others",)
    document = printed(command, "ls", "inst/tiny@v1")
    assert [(each["kind"], each["severity"], each["by"], each["text"]) for each in document["advisories"]] == [
        ("yank", "high", WHO.id, "wrong tokenizer"),
        (KEY_COMPROMISE, "critical", WHO.id, "the laptop is gone"),
    ]
    known = {"at": 86_400, "basis": "claimed", "members": 1}
    assert [each["known_since"] for each in document["advisories"]] == [known, None]
    assert document["not_read"] == ["statements of others"]
    text = said(command, "ls", "inst/tiny@v1")
    assert (
        f"yank high identity {WHO.id[:12]} 1970-01-02 wrong tokenizer" in text
        and "not read statements of others" in text
    )


@pytest.mark.parametrize("kind", ADVISORIES)
def test_a_warning_is_logged_as_it_is_given(nodes: Nodes, kind: str) -> None:
    text = said(command, "new", "inst/tiny", "--kind", kind, "--text", "why")
    assert nodes.said == [("inst/tiny", kind, "info", "why", ())]
    assert f"{kind} on inst/tiny@v1 sha256:{ARTIFACT}" in text and "comity advisory ls inst/tiny@v1" in text


def test_the_exit_status_is_that_of_the_receipt(nodes: Nodes) -> None:
    assert run(command, "new", "x", "--kind", "yank", "--text", "why", "--node", "node-ch").exit_code == 8
    assert run(command, "lost-key", "--since", 0, "--text", "why", "--node", "node-ch").exit_code == 8


@pytest.mark.parametrize(
    "words",
    [
        ("new", "x", "--kind", "rumour", "--text", "why"),
        ("new", "x", "--kind", "yank"),
        ("new", "x", "--kind", "yank", "--text", "why", "--severity", "huge"),
        ("lost-key", "--text", "why"),
        ("lost-key", "--since", "-1", "--text", "why"),
    ],
)
def test_a_warning_of_no_kind_is_not_logged(nodes: Nodes, words: tuple[str, ...]) -> None:
    assert "huge" not in SEVERITIES and run(command, *words).exit_code == 2 and nodes.said == []


def test_a_lost_key_is_told_with_its_log(nodes: Nodes) -> None:
    text = said(command, "lost-key", "--since", 812, "--text", "gone", "--key", "5f01")
    assert nodes.said == [("only", 812, "gone", "5f01")]
    assert "was compromised from entry 812 of a.example/log on" in text
