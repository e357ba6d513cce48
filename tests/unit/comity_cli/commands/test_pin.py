"""`comity pin`: which pins are put and ended, and how each state of a pin is told."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from comity.rules.artifact_pins import PINNED_STATES, Pin
from comity.rules.copy_counts import CopyPolicy
from comity.trust.encoding import Digest, sha256
from comity.trust.exit_statuses import PARTIAL
from comity.wire.pin import ListedPin, ListedPinnedCopy
from comity_cli.commands.pin import WORDS, command
from comity_client import own_node
from support.run_command import printed, refused, run, said

ARTIFACT = sha256(b"model")
WHERE = ("--socket", "x.sock")


class Node:
    """A node that keeps pins."""

    def __init__(self) -> None:
        self.pins: list[Pin] = []
        self.listed: list[ListedPin] = []
        self.asked: list[Digest | None] = []

    def put_pin(self, socket: Path, pin: Pin) -> None:
        assert socket == Path("x.sock")
        self.pins.append(pin)

    def end_pin(self, socket: Path, artifact: Digest) -> None:
        self.asked.append(artifact)

    def list_pins(self, socket: Path, artifact: Digest | None = None) -> list[ListedPin]:
        self.asked.append(artifact)
        return self.listed


@pytest.fixture(name="node")
def _node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    for name in ("put_pin", "end_pin", "list_pins"):
        monkeypatch.setattr(own_node, name, getattr(made, name))
    return made


def listed(verified: int, hoped: int, *, met: bool = False, asked: bool = False, reaches: int = 0) -> ListedPin:
    wanted = CopyPolicy(3, 2, reaches)
    return ListedPin(
        Pin(ARTIFACT, "inst/tiny@v1", wanted),
        CopyPolicy(verified, 1, 1),
        CopyPolicy(hoped, 1, 1),
        met,
        asked,
        tuple(ListedPinnedCopy("node.example", "CH", state) for state in PINNED_STATES),
    )


def test_a_pin_has_the_numbers_that_were_given(node: Node) -> None:
    said(command, "add", ARTIFACT, *WHERE)
    text = said(command, "add", f"sha256:{ARTIFACT}", "--copies", 5, "--jurisdictions", 4, "--reaches", 2, *WHERE)
    assert [pin.policy for pin in node.pins] == [CopyPolicy(3, 1, 0), CopyPolicy(5, 4, 2)]
    assert {pin.artifact for pin in node.pins} == {ARTIFACT}
    assert f"comity pin ls sha256:{ARTIFACT} --node x.sock" in text


@pytest.mark.parametrize("words", [("--copies", "0"), ("--copies", "-1"), ("--copies", "2", "--jurisdictions", "3")])
def test_a_pin_is_refused_if_its_policy_cannot_be_met(node: Node, words: tuple[str, ...]) -> None:
    refused(command, "add", ARTIFACT, *words, *WHERE)
    assert node.pins == []


def test_a_node_is_named_once(node: Node) -> None:
    assert run(command, "add", ARTIFACT, *WHERE, "--node", "home").exit_code == 2
    assert run(command, "ls", *WHERE, "--dir", "home").exit_code == 2
    assert node.pins == []


def test_no_pin_is_said(node: Node) -> None:
    assert said(command, "ls", *WHERE) == "Nothing is pinned. 0 pins, 0 not met"
    assert printed(command, "ls", *WHERE)["pins"] == []


@pytest.mark.parametrize(
    ("pin", "status", "text"),
    [
        (listed(3, 3, met=True), 0, "3 of 3 1 of 2 not asked met"),
        (listed(1, 3, asked=True), PARTIAL, "1 of 3 1 of 2 not asked 2 more claimed, others are asked"),
        (listed(1, 1), PARTIAL, "1 of 3 1 of 2 not asked nobody asked yet"),
        (listed(2, 1, asked=True, reaches=2), PARTIAL, "2 of 3 1 of 2 1 of 2 others are asked"),
    ],
)
def test_the_state_of_a_pin_is_told(node: Node, pin: ListedPin, status: int, text: str) -> None:
    node.listed = [pin]
    result = run(command, "ls", *WHERE)
    assert result.exit_code == status and f"inst/tiny@v1 {text}" in " ".join(result.output.split())
    (item,) = printed(command, "ls", *WHERE, status=status)["pins"]
    assert (item["met"], item["asked"], item["asked_for"]["copies"]) == (pin.met, pin.asked, 3)


def test_copies_are_shown_of_the_artifact_that_is_named(node: Node) -> None:
    node.listed = [listed(3, 3, met=True)]
    assert set(WORDS) == set(PINNED_STATES)
    text = said(command, "ls", ARTIFACT, *WHERE)
    assert all(word in text for word in WORDS.values()) and node.asked == [ARTIFACT]
    assert not any(word in said(command, "ls", *WHERE) for word in WORDS.values())


def test_a_pin_is_ended(node: Node) -> None:
    assert said(command, "rm", ARTIFACT, *WHERE) == f"✓ {ARTIFACT} is pinned no longer"
    assert node.asked == [ARTIFACT]


def test_a_pin_without_a_name_is_named_by_its_digest_in_a_table_of_80_columns(node: Node) -> None:
    unnamed = replace(listed(1, 2, asked=True), pin=Pin(ARTIFACT, "", CopyPolicy(3, 2, 1)))
    node.listed = [listed(3, 3, met=True), unnamed]
    lines = run(command, "ls", *WHERE).output.splitlines()
    rows = [re.split(r"\s{2,}", line) for line in lines]
    assert [ARTIFACT[:12], "1 of 3", "1 of 2", "1 of 1", "1 more claimed, others are asked"] in rows
    assert max(map(len, lines)) <= 80 and "2 pins, 1 not met" in lines
