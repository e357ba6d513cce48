"""`comity status` about the nodes of a federation: it shows what each lacks; the exit status says if all is well."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest
from comity.trust.errors import Unavailable
from comity.wire.node import ReplicaCounts
from comity.wire.node_status import NodeStatus, StoreStatus
from comity_cli import output
from comity_cli.main import main
from comity_client import own_node
from comity_client.client import Client
from comity_client.home import Home
from support.fakes import FakeFederation, fork

WELL = ReplicaCounts(held=12, lacking=0, min_copies=3, counted=12, short=0)
LACKING = ReplicaCounts(held=10, lacking=2, min_copies=3, counted=12, short=0)
SHORT = ReplicaCounts(held=12, lacking=0, min_copies=3, counted=12, short=5)


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFederation]:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "user"))
    with FakeFederation(("CH", "ES")).running() as made:
        Client(Home.default()).pin(made.file())
        for node in made.nodes:
            node.replicas = WELL
        yield made


class Ran(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str


def status(*arguments: str) -> Ran:
    """Run the command as a shell does."""
    with redirect_stdout(StringIO()) as stdout, redirect_stderr(StringIO()) as stderr:
        try:
            main(["status", *arguments])
        except SystemExit as ended:
            return Ran(int(ended.code or 0), stdout.getvalue(), stderr.getvalue())
    raise AssertionError("main always exits")


def test_status_ends_with_0_where_nothing_is_down_lacking_or_short(federation: FakeFederation) -> None:
    ran = status("--json")
    assert ran.exit_code == 0
    told = json.loads(ran.stdout)
    assert told["exit_status"] == 0
    assert [node["replicas_claimed"]["held"] for node in told["nodes"]] == [12, 12]


@pytest.mark.parametrize("counts", [LACKING, SHORT])
def test_status_shows_what_a_node_lacks_and_exits_with_8(federation: FakeFederation, counts: ReplicaCounts) -> None:
    federation.nodes[1].replicas = counts
    ran = status()
    assert ran.exit_code == 8
    header, *rows = ran.stdout.splitlines()
    assert header.split()[-3:] == ["HOLDS", "LACKS", "SHORT"]
    assert rows[1].split()[-3:] == [str(counts.held), str(counts.lacking), str(counts.short)]
    assert f"on the machine of {federation.nodes[1].node.record.name}: comity status --node HOME" in ran.stderr


def test_a_node_of_an_older_version_without_counts_is_ok(federation: FakeFederation) -> None:
    federation.nodes[0].replicas = None
    ran = status()
    assert ran.exit_code == 0
    assert ran.stdout.splitlines()[1].split()[-3:] == ["-", "-", "-"]


def test_a_node_that_is_down_ends_with_5_and_one_line_each_fits_the_terminal(
    federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = federation.nodes[1]
    federation.kill(down.node.record.name)
    monkeypatch.setattr(output, "terminal_width", lambda: 80)
    ran = status()
    assert ran.exit_code == 5
    lines = ran.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[2] for line in lines[:3]] == ["STATE", "up", "DOWN"]
    assert f"! {down.node.record.name}" in ran.stderr


def test_waiting_asks_again_until_all_is_ok(federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    federation.nodes[0].replicas = LACKING

    def recovered(seconds: float) -> None:
        federation.nodes[0].replicas = WELL

    monkeypatch.setattr(time, "sleep", recovered)
    assert status("--wait", "--json").exit_code == 0


def test_waiting_ends_with_the_state_when_its_time_is_over(
    federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation.nodes[0].replicas = LACKING
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def passes(seconds: float) -> None:
        clock[0] += 30

    monkeypatch.setattr(time, "sleep", passes)
    assert status("--wait", "60").exit_code == 8


def test_watching_shows_the_state_again_until_it_is_stopped(
    federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def stopped(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stopped)
    ran = status("--watch", "7")
    assert slept == [7, 7]
    assert ran.stdout.count("NODE ") == 2


def test_a_log_with_two_histories_is_an_alarm_that_stays_on_the_screen(
    federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert status().exit_code == 0
    origin = federation.nodes[0].node.origin
    forked = fork(federation.nodes[0].log, 1)
    forked.append(federation.publisher.entry.line)
    for fake in federation.nodes:
        fake.logs_held[origin] = forked
    ran = status("--wait", "--json")
    told = json.loads(ran.stdout)
    assert (ran.exit_code, told["exit_status"], len(told["alarms"])) == (3, 3, 1)
    order: list[str] = []
    monkeypatch.setattr(output.Output, "clear", lambda self: order.append("cleared"))
    monkeypatch.setattr(output.Output, "warn", lambda self, text: order.append(text))
    monkeypatch.setattr(time, "sleep", _interrupt)
    status("--watch")
    assert order[0] == "cleared"
    assert f"ALERT log {origin} showed two histories" in order[1]


def test_a_node_that_starts_is_waited_for_and_one_that_stops_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node.toml").touch()
    answers: list[Exception | None] = [Unavailable("no node answers"), None, Unavailable("no node answers"), None]
    started = NodeStatus("comity/fake", "node-ch.example/log", 0, (), (), StoreStatus(0, 0, None, 0), 0, 0, (), ())

    def answer(socket: Path) -> NodeStatus:
        if error := answers.pop(0):
            raise error
        return started

    def sleep(seconds: float) -> None:
        if not answers:
            raise KeyboardInterrupt

    monkeypatch.setattr(own_node, "operator_status", answer)
    monkeypatch.setattr(time, "sleep", sleep)
    assert status("--node", str(tmp_path), "--wait").exit_code == 0
    ran = status("--node", str(tmp_path), "--watch")
    assert "! no node answers" in ran.stderr
    assert ran.stdout.count(started.origin) == 1
    answers.append(Unavailable("no node answers"))
    ran = status("--node", str(tmp_path))
    assert (ran.exit_code, ran.stdout) == (5, "")
    assert "error: no node answers" in ran.stderr


def _interrupt(seconds: float) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("others", [["--json"], ["--wait", "5"]])
def test_watching_is_for_people_and_does_not_wait(federation: FakeFederation, others: list[str]) -> None:
    assert status("--watch", "5", *others).exit_code == 2


def test_one_node_is_named_by_its_name_its_log_its_address_or_a_url(federation: FakeFederation) -> None:
    wanted = federation.nodes[1].node.record
    federation.nodes[0].replicas = LACKING
    pinned = Client(Home.default()).pins()[0].federation.nodes
    (address,) = next(node.open for node in pinned if node.record == wanted)
    for name in (wanted.name, wanted.origin, address, f"https://{address}"):
        ran = status("--node", name, "--json")
        assert ran.exit_code == 0, name
        assert [node["name"] for node in json.loads(ran.stdout)["nodes"]] == [wanted.name]


def test_a_name_that_no_node_has_is_not_found(federation: FakeFederation) -> None:
    ran = status("--node", "nobody")
    assert ran.exit_code == 5
    assert "no node 'nobody'" in ran.stderr
