"""The client's paths (publish, pull, verify) with real nodes, each a process of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from comity.transfer.limits import TransferLimits
from comity.trust.errors import ComityError, PolicyNotMet, Refused
from comity_cli.main import main
from comity_client.approving import ApprovalEnding, ApprovalTerms
from comity_client.client import Client
from comity_client.events import Event, Progress
from comity_client.home import Home
from comity_client.policy_text import write_policy
from comity_client.publishers import Publisher
from support.federation import Founded, NodeProcess, converged, found, processes
from support.publisher import model
from support.waiting import PATIENCE, eventually

pytestmark = pytest.mark.slow

BYTES = 24 * 1024 * 1024


@dataclass(frozen=True)
class Lab:
    """Running nodes, a client that pinned them, and a publisher."""

    founded: Founded
    nodes: tuple[NodeProcess, ...]
    client: Client
    publisher: Publisher


@contextmanager
def lab(folder: Path, count: int = 4) -> Iterator[Lab]:
    founded = found(folder / "nodes", count)
    client = Client(Home(folder / "home"), limits=TransferLimits(patience=PATIENCE))
    client.pin(founded.federation.encode())
    publisher = client.new_publisher("Swiss AI", "CH", founded.homes[0].origin)
    with processes(*founded.homes) as nodes:
        for node in nodes:
            asyncio.run(node.ready())
        yield Lab(founded, nodes, client, publisher)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def all_hold(client: Client, reference: str) -> bool:
    try:
        return all(replica.complete for replica in client.whereis(reference))
    except ComityError:
        return False


def publish(lab: Lab, source: Path, name: str = "swiss-ai/tiny@v1", **more: Any) -> None:
    receipt = lab.client.publish(source, name, publisher=lab.publisher, licence="MIT", **more)
    assert receipt.logged[0].log == lab.publisher.home
    assert receipt.logged[0].size > receipt.logged[0].index


def test_an_artifact_is_published_copied_pulled_verified_and_outlives_its_node(tmp_path: Path, running: Lab) -> None:
    source = model(tmp_path / "source", weights=BYTES)
    publish(running, source)
    first = eventually(lambda: running.client.pull("swiss-ai/tiny", to=tmp_path / "first"))
    assert contents(tmp_path / "first") == contents(source)
    assert first.verdict.accepted
    eventually(lambda: all_hold(running.client, "swiss-ai/tiny"), bool)
    running.nodes[0].kill()
    shutil.rmtree(running.founded.homes[0].directory)
    stranger = Client(Home(tmp_path / "stranger"))
    stranger.pin(running.founded.federation.encode())
    later = eventually(lambda: stranger.pull("swiss-ai/tiny@v1", hub_cache=tmp_path / "hub"))
    assert {path.name for path in later.folder.iterdir()} == {".comity", *contents(source)}
    assert later.verdict.row("cosigners").state == "pass"
    assert running.founded.homes[0].name not in later.tally.by_node
    silent = [running.founded.homes[0].name]
    eventually(
        lambda: [state.name for state in stranger.status() if not state.reachable], lambda found: found == silent
    )
    check = stranger.log_check(running.publisher.home)
    assert check.size > 0
    for node in running.nodes[1:]:
        node.kill()
    assert stranger.verify("swiss-ai/tiny", hub_cache=tmp_path / "hub").exit_status == 0
    assert running.client.verify(tmp_path / "first").exit_status == 0


def test_a_pull_continues_when_all_holders_but_one_are_killed(tmp_path: Path, running: Lab) -> None:
    source = model(tmp_path / "source", weights=4 * BYTES)
    publish(running, source)
    eventually(lambda: all_hold(running.client, "swiss-ai/tiny"), bool)
    eventually(lambda: running.client.pull("swiss-ai/tiny", to=tmp_path / "probe", include=["config.json"]))
    killed = False

    def kill_early(event: Event) -> None:
        nonlocal killed
        if isinstance(event, Progress) and event.path == "weights.bin" and not killed:
            killed = True
            for node in running.nodes[1:]:
                node.kill()

    running.client.pull("swiss-ai/tiny", to=tmp_path / "model", on_event=kill_early)
    assert killed
    assert contents(tmp_path / "model") == contents(source)


def test_a_killed_client_continues_where_it_was(tmp_path: Path, running: Lab) -> None:
    source = model(tmp_path / "source", weights=8 * BYTES)
    publish(running, source)
    eventually(lambda: running.client.pull("swiss-ai/tiny", to=tmp_path / "probe", include=["config.json"]))
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from comity_client.client import Client\n"
        "from comity_client.events import Progress\n"
        "from comity_client.home import Home\n"
        "done = 0\n"
        "def die(event):\n"
        "    global done\n"
        "    done += event.count if isinstance(event, Progress) and event.path == 'weights.bin' else 0\n"
        "    if done > 60_000_000: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Client(Home(Path(sys.argv[1]))).pull('swiss-ai/tiny', to=Path(sys.argv[2]), on_event=die)\n"
    )
    command = [sys.executable, "-c", program, str(running.client.home.root), str(tmp_path / "model")]
    assert subprocess.run(command, env=os.environ, timeout=PATIENCE).returncode == -signal.SIGKILL
    assert contents(tmp_path / "model") == {}
    pulled = running.client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert contents(tmp_path / "model") == contents(source)
    assert pulled.tally.resumed >= 40_000_000


def test_an_operator_publishes_by_link_where_the_open_port_is_closed(tmp_path: Path) -> None:
    founded = found(tmp_path / "nodes", 2)
    for home in founded.homes:
        home.set("publishing", accept="none")
    client = Client(Home(tmp_path / "home"))
    client.pin(founded.federation.encode())
    publisher = client.new_publisher("Operator", "CH", founded.homes[0].origin)
    source = model(tmp_path / "source")
    with processes(*founded.homes) as nodes:
        for node in nodes:
            asyncio.run(node.ready())
        with pytest.raises(Refused):
            client.publish(source, "swiss-ai/tiny@v1", publisher=publisher, licence="MIT")
        socket = f"unix:{founded.homes[0].socket}"
        client.publish(source, "swiss-ai/tiny@v1", publisher=publisher, licence="MIT", nodes=[socket], link=True)
        eventually(lambda: client.pull("swiss-ai/tiny", to=tmp_path / "model"))
    assert contents(tmp_path / "model") == contents(source)


def test_a_bare_name_gives_the_new_version_and_after_a_yank_the_older_one(tmp_path: Path, running: Lab) -> None:
    publish(running, model(tmp_path / "one"), "swiss-ai/tiny@v1")
    publish(running, model(tmp_path / "two", seed=2), "swiss-ai/tiny@v2")
    eventually(lambda: running.client.resolve("swiss-ai/tiny").title, lambda title: title == "swiss-ai/tiny@v2")
    running.client.advise("swiss-ai/tiny@v2", "yank", "high", "wrong weights", publisher=running.publisher)
    eventually(lambda: running.client.resolve("swiss-ai/tiny").title, lambda title: title == "swiss-ai/tiny@v1")
    names = ["swiss-ai/tiny@v1", "swiss-ai/tiny@v2"]
    found = eventually(lambda: running.client.search("tiny"), lambda found: [each.name for each in found] == names)
    assert [each.withdrawn for each in found] == [False, True]
    assert all(each.known_since is not None and each.known_since.basis == "claimed" for each in found)
    shown = running.client.show("swiss-ai/tiny@v1")
    assert shown.known.keys() >= {each.publication.entry.line for each in shown.versions} and not shown.withdrawn
    advisories = eventually(lambda: running.client.show("swiss-ai/tiny@v2").advisories, bool)
    assert [advisory.kind for advisory in advisories] == ["yank"]


def test_a_members_vouched_statement_under_governance_keys_counts(
    tmp_path: Path, running: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(running, model(tmp_path / "source", weights=100_000))
    eventually(lambda: running.client.pull("swiss-ai/tiny", to=tmp_path / "model"))
    monkeypatch.setenv("COMITY_HOME", str(running.client.home.root))
    member, target = running.founded.homes[1].directory, str(tmp_path / "model")
    with pytest.raises(SystemExit) as ended:
        main(["vouch", target, "--statement", "rehashed", "--dir", str(member), "--yes"])
    assert not ended.value.code
    (vouch,) = eventually(lambda: running.client.show("swiss-ai/tiny").vouches, bool)
    assert vouch.by.member is not None

    def documents() -> str:
        return running.client.pull("swiss-ai/tiny", to=tmp_path / "again").verdict.row("documents").summary

    eventually(documents, lambda summary: summary.endswith("rehashed, by 1 member"))


def test_approvals_of_officers_are_mirrored_and_an_end_counts_at_the_node_that_is_left(tmp_path: Path) -> None:
    scope, since, until = "hospital-bern", 1_795_000_000, 1_800_000_000
    terms, name = ApprovalTerms(scope, since, until), "swiss-ai/tiny@v1"
    with lab(tmp_path, 2) as running:
        client, approvals = running.client, running.client.approvals()
        homes = [home.origin for home in running.founded.homes]
        officers = [client.new_publisher(label, "CH", homes[at]) for label, at in (("Anna", 0), ("Ben", 1), ("Eva", 1))]
        write_policy(tmp_path / "policy.toml", client.pins())
        text = (tmp_path / "policy.toml").read_text("utf-8")
        text = (
            text.replace("[time]\n", "[time]\nas_of = 2026-12-24T00:00:00Z\n")
            .replace('"cosigners", ', "")
            .replace('"key policy", ', "")
        )
        named = "".join(f'{who.label} = "{who.id}"\n' for who in officers)
        rule = f'[approvals]\nscope = "{scope}"\nat_least = 2\nfour_eyes = true\n[approvals.officers]\n{named}'
        (tmp_path / "policy.toml").write_text(text + rule, "utf-8")
        policy = client.policy(tmp_path / "policy.toml")

        def pull(folder: str) -> int:
            return client.pull(name, to=tmp_path / folder, policy=policy).verdict.exit_status

        def refusal() -> str:
            try:
                return f"accepted: {pull('refused')}"
            except PolicyNotMet as error:
                return str(error)

        publish(running, model(tmp_path / "source", weights=1000))
        subject = eventually(lambda: approvals.subject(name))
        approvals.approve(subject, terms, by=officers[0])
        eventually(refusal, lambda said: "1 of 2" in said)
        (logged,) = approvals.approve(subject, terms, by=officers[1]).logged
        assert eventually(lambda: pull("two")) == 0
        asyncio.run(converged(running.founded.homes, running.founded.homes[1], least=logged.index + 1))
        running.nodes[1].kill()
        assert eventually(lambda: pull("three")) == 0, "the entries of the second node are mirrored"
        ending = ApprovalEnding(scope, since + 1, "a new version")
        approvals.end(subject, ending, by=officers[1], nodes=[running.founded.homes[0].name])
        eventually(refusal, lambda said: "its officer ended it" in said)
        approvals.approve(subject, terms, by=officers[2], nodes=[running.founded.homes[0].name])
        assert eventually(lambda: pull("four")) == 0
