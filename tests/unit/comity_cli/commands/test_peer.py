"""`comity peer`: which peers are down, and at which addresses one was called."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from comity.node.maintenance import network_checks
from comity.node.maintenance.network_checks import PingedAddress
from comity.trust.exit_statuses import EVIDENCE_MISSING
from comity.wire.node_status import NodeStatus, PeerStatus, StoreStatus
from comity_cli.commands.peer import command
from comity_client import own_node
from support.run_command import printed, refused, run

NOW = 1_800_000_000
PEER = PeerStatus("node-es.example", "ES", "node-es.example:7443", True, NOW - 90, 7, "")
SILENT = replace(PEER, name="node-kr.example", reachable=False, last_seen=0, address="", last_error="timed out")
STATUS = NodeStatus("comity", "node-ch.example/log", NOW, (), (), StoreStatus(0, 0, None, 0), 0, 0, (), ())


def listed(monkeypatch: pytest.MonkeyPatch, *peers: PeerStatus) -> None:
    monkeypatch.setattr(own_node, "own_socket", lambda node: Path("socket"))
    monkeypatch.setattr(own_node, "operator_status", lambda socket: replace(STATUS, peers=peers))
    monkeypatch.setattr(time, "time", lambda: float(NOW))


def text_of(*words: object) -> str:
    return " ".join(run(command, *words).output.split())


def test_peers_that_answer_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, PEER)
    assert "node-es.example ES up node-es.example:7443 7" in text_of("ls")
    document = printed(command, "ls")
    assert document["node"] == "node-ch.example/log" and [each["name"] for each in document["peers"]] == [PEER.name]
    listed(monkeypatch)
    assert text_of("ls") == "None is known." and printed(command, "ls")["peers"] == []


def test_a_peer_that_does_not_answer_is_an_exit_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed(monkeypatch, PEER, SILENT)
    assert printed(command, "ls", status=EVIDENCE_MISSING)["peers"][1]["last_error"] == "timed out"
    text = text_of("ls", "--node", tmp_path)
    assert "node-kr.example KR" not in text and "node-kr.example ES DOWN - 7 never" in text
    assert "node-kr.example: timed out" in text and f"comity peer ping node-kr.example --node {tmp_path}" in text
    assert "comity peer ping node-kr.example --node HOME" in text_of("ls", "--node", "x.sock")
    listed(monkeypatch, replace(SILENT, former=True))
    assert run(command, "ls").exit_code == 0


def pinged(monkeypatch: pytest.MonkeyPatch, *addresses: PingedAddress) -> list[str]:
    asked: list[str] = []

    def ping(file: Path, name: str) -> tuple[PingedAddress, ...]:
        asked.append(name)
        return addresses

    monkeypatch.setattr(network_checks, "ping_peers", ping)
    return asked


WELL = PingedAddress("node-es.example", "ES", "mutual", "es:1", 0.01234, "comity 1")
LOST = PingedAddress("node-es.example", "ES", "open", "es:2", error="refused", code="UNREACHABLE", hint="open it")


def test_a_peer_answers_if_one_of_its_addresses_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("")
    asked = pinged(monkeypatch, WELL, LOST)
    document = printed(command, "ping", "node-es", "--node", tmp_path)
    assert document["unreachable"] == [] and asked == ["node-es"]
    text = text_of("ping", "--node", tmp_path)
    assert "mutual es:1 12.3 ms comity 1" in text and "open es:2 - -" in text
    assert "node-es.example at es:2: refused [UNREACHABLE]" in text and "try open it" in text
    assert "answered nowhere" not in text


def test_a_peer_that_answers_nowhere_is_an_exit_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("")
    pinged(monkeypatch, LOST, replace(LOST, port="mutual"), replace(WELL, peer="node-kr.example"))
    assert printed(command, "ping", "--node", tmp_path, status=EVIDENCE_MISSING)["unreachable"] == ["node-es.example"]
    assert "1 peer answered nowhere: node-es.example" in text_of("ping", "--node", tmp_path)


def test_a_folder_that_is_no_home_is_refused(tmp_path: Path) -> None:
    refused(command, "ping", "--node", tmp_path)
