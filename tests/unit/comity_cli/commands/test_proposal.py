"""`comity proposal ls` and `comity proposal deliver`: a line that no member's node has is named, with who takes it, and
delivered.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from comity.content.secrets import write_keys
from comity.trust.charter.document import Body
from comity.trust.charter.votes import adopted_statement
from comity.trust.encoding import Digest
from comity.trust.exit_statuses import PARTIAL
from comity.trust.statement import sign_statement
from comity_cli.charter import signing
from comity_cli.commands.proposal import command
from comity_client.charter.drafts import draft_namespaces
from comity_client.charter.proposals import propose_plan, sign_plan
from comity_client.client import Client
from comity_client.home import Home
from comity_client.signing.votes import VoteFile, VoteHistory, open_key
from support.fake_charter import FakeCharter
from support.fakes import FakeFederation, FakeNode
from support.run_command import printed, run, said
from support.world import NOW


@pytest.fixture(name="federation")
def _federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFederation]:
    made = FakeFederation()
    for fake in made.nodes:
        fake.governance = FakeCharter(fake)
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    with made.running() as running:
        Client(Home(tmp_path / "user")).pin(running.file())
        yield running


def forget(federation: FakeFederation, *predicates: str) -> None:
    for fake in federation.nodes:
        assert isinstance(fake.governance, FakeCharter)
        fake.governance.forgets = predicates


def home_of(fake: FakeNode, folder: Path) -> Path:
    """A home with the inception and the governance key of a node's member, on another machine than the node."""
    home = folder / fake.node.record.name
    path = home / "offline" / "governance.pem"
    path.parent.mkdir(parents=True)
    (home / "inception.line").write_bytes(fake.node.seat.entry.line + b"\n")
    write_keys(path, fake.node.seat.signer.keys)
    VoteFile(path.with_suffix(".votes"), fake.node.seat.signer.public).create(VoteHistory())
    return home


def drafted(federation: FakeFederation, folder: Path) -> Digest:
    """A draft that was delivered to one node, which no node shows. Returns the digest of its line."""
    first = federation.nodes[0]
    governance = Client(Home(folder / "user")).governance()
    key = open_key(home_of(first, folder) / "offline" / "governance.pem")
    body = draft_namespaces(governance.federation.body, {"alia": Digest("5" * 64)})
    plan = sign_plan(propose_plan(governance.charter_state(), key.public, body, "ours"), key)
    governance.deliver(plan.material, first.node.record.name)
    forget(federation, "draft")
    return plan.entry.digest


def test_what_no_node_has_is_named_with_the_command_that_delivers_it(
    federation: FakeFederation, tmp_path: Path
) -> None:
    assert printed(command, "ls")["lacked"] == []
    line = drafted(federation, tmp_path)
    (lacked,) = printed(command, "ls")["lacked"]
    assert (lacked["line"], lacked["what"], lacked["held_by"]) == (line, "the draft of Institute CH (CH)", [])
    text = " ".join(said(command, "ls").split())
    assert "no member's node has the draft of Institute CH (CH)" in text
    assert "comity proposal deliver" in text
    left = run(command, "deliver", "--json")
    assert left.exit_code == PARTIAL, "they took the line, and still show it to nobody"
    forget(federation)
    delivered = printed(command, "deliver")
    assert (delivered["lines"], delivered["lacked"]) == ({}, [])
    assert "have all that is known here" in said(command, "deliver")


def test_a_charter_that_the_nodes_of_a_quorum_follow_is_told_from_one_that_is_only_known_here(
    federation: FakeFederation, tmp_path: Path
) -> None:
    assert printed(command, "ls")["followed"] == {
        "epoch": 0,
        "body": printed(command, "ls")["body"],
        "members": 4,
        "needed": 0,
    }
    body = draft_namespaces(Client(Home(tmp_path / "user")).governance().federation.body, {"alia": Digest("5" * 64)})
    for fake in federation.nodes[:3]:
        adopted = adopted_statement(body, fake.node.record.node.id)
        fake.log.append(sign_statement(adopted, fake.node.online).line)
    followed = printed(command, "ls")["followed"]
    assert (followed["epoch"], followed["members"]) == (0, 4), "no certificate of that charter is known here"


@pytest.mark.slow
def test_one_command_signs_both_votes_of_a_member_and_waits_for_the_others(
    federation: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = {fake.node.record.name: home_of(fake, tmp_path) for fake in federation.nodes[:3]}
    (first, *others), waited = list(homes), list[float]()
    proposed = printed(command, "new", "policy", "min_copies=1", *at(homes, first), "--yes")
    body = proposed["subject"]
    charter = drafted_body(tmp_path, body)

    def the_others_vote(seconds: float) -> None:
        waited.append(seconds)
        for name in others:
            run(command, "approve", body[:12], *at(homes, name), "--yes")
        if Client(Home(tmp_path / "user")).governance().charter_state().current.epoch == 1:
            for fake in federation.nodes:
                adopted = adopted_statement(charter, fake.node.record.node.id)
                fake.log.append(sign_statement(adopted, fake.node.online).line)

    monkeypatch.setattr(signing, "FOLLOW_SECONDS", 0.0)
    monkeypatch.setattr(signing, "time", SimpleNamespace(sleep=the_others_vote, monotonic=time.monotonic))
    declined = run(command, "approve", body[:12], "--wait", *at(homes, first), answer="n\n")
    assert declined.exit_code != 0 and waited == []
    assert run(command, "approve", body[:12], "--wait", "--out", tmp_path / "x", "--node", homes[first]).exit_code == 2
    decided = printed(command, "approve", body[:12], "--wait", *at(homes, first), "--yes")
    assert (decided["body"], decided["epoch"]) == (body, 1)
    assert decided["followed"]["epoch"] == 1
    assert 2 <= len(waited) <= 4, "for the INTENT of the others, for their RATIFY, and for nodes to follow"
    again = printed(command, "ls")
    assert again["epoch"] == 1 and again["drafts"] == []
    (newest, genesis) = printed(command, "ls", "--decided")["epochs"]
    assert (newest["epoch"], newest["body"], newest["seen"]) == (1, body, NOW)
    assert [(each["name"], each["after"]) for each in newest["changes"]] == [("min_copies", "1")]
    members = {fake.node.seat.id for fake in federation.nodes[:3]}
    assert set(newest["ratified"]) == set(newest["intents"]) == members
    assert (genesis["epoch"], len(genesis["ratified"]), genesis["seen"]) == (0, 4, None)
    text = said(command, "ls", "--decided")
    assert "Epoch 1" in text and "RATIFY by Institute CH, Institute ES, Institute SG" in text
    assert "seen by cosigners on 20" in text and "founded by files" in text
    assert "comity proposal ls --decided" in said(command, "ls")


def at(homes: dict[str, Path], name: str) -> tuple[object, ...]:
    """The options of a command that signs for the member of a node, and logs at it."""
    return "--node", homes[name], "--node", name


def drafted_body(folder: Path, digest: Digest) -> Body:
    return Client(Home(folder / "user")).governance().charter_state().draft(digest).body
