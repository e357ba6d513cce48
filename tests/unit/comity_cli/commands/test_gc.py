"""`comity gc`: what is shown, asked and counted of the copies that retention rules let go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import Refused
from comity.wire.audit import HoldDecision, RetainedCopy
from comity_cli.commands import gc
from comity_cli.commands.gc import command
from comity_client import own_node
from comity_client.own_node import CollectedCopy
from support.run_command import printed, run, said

GOES = RetainedCopy(sha256(b"1"), "inst/old@v1", True, "older than 90 days", "old", 5_000, 120)
STAYS = RetainedCopy(sha256(b"2"), "", False, "pinned", "pins", 7_000, 3)
KEPT = Refused("too few copies", why="1 of 2 members proved theirs", code="TOO-FEW-COPIES")
Show = Callable[[CollectedCopy], None]


class Node:
    """A node whose rules let copies go; `asked` says of each call whether it may remove."""

    def __init__(self) -> None:
        self.asked: list[bool] = []
        self.copies: Sequence[CollectedCopy] = (
            CollectedCopy(GOES, HoldDecision(b"", 17, (), (), 4_000)),
            CollectedCopy(STAYS),
            CollectedCopy(GOES, refused=KEPT),
        )

    def collect(self, socket: Path, show: Show, *, remove: bool) -> None:
        assert socket == Path("socket")
        self.asked.append(remove)
        for item in self.copies:
            show(item if remove else CollectedCopy(item.copy))


@pytest.fixture(name="node")
def _node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(own_node, "collect", made.collect)
    return made


WHERE = ("--socket", "socket")


def test_a_trial_removes_nothing_and_says_what_would_go(node: Node) -> None:
    text = said(command, "--dry-run", *WHERE)
    assert "goes inst/old@v1: older than 90 days; 5.0 kB" in text
    assert f"stays sha256:{STAYS.artifact}: pinned" in text
    assert "2 copies would go if the others prove theirs, and free 10.0 kB; 1 copy would stay." in text
    assert node.asked == [False]


def test_what_goes_is_shown_before_the_question(node: Node) -> None:
    declined = run(command, *WHERE, answer="n\n")
    assert node.asked == [False] and declined.exit_code != 0
    assert declined.output.index("goes     inst/old") < declined.output.index("Remove every copy that goes?")
    agreed = run(command, *WHERE, answer="y\n")
    assert agreed.exit_code == 0 and node.asked == [False, False, True]


def test_nothing_is_asked_where_nothing_goes(node: Node) -> None:
    node.copies = (CollectedCopy(STAYS),)
    assert "0 copies would go" in said(command, *WHERE)
    assert node.asked == [False]


def test_removals_and_refusals_are_counted(node: Node) -> None:
    document = printed(command, "--yes", *WHERE)
    counts = {name: document[name] for name in ("trial", "goes", "stays", "removed", "refused", "bytes", "left_out")}
    assert counts == {
        "trial": False, "goes": 2, "stays": 1, "removed": 1, "refused": 1, "bytes": 4_000, "left_out": 0,
    }  # fmt: skip
    assert [(each["removed"], each["refused"]) for each in document["copies"]] == [
        (True, ""),
        (False, ""),
        (False, "TOO-FEW-COPIES"),
    ]
    text = said(command, "--yes", *WHERE)
    assert "removed inst/old@v1: older than 90 days; entry 17; 4.0 kB" in text
    assert "stays inst/old@v1: too few copies: 1 of 2 members proved theirs" in text
    assert "1 copy removed; 4.0 kB freed." in text and "1 copy stay although the rules let them go" in text


def test_only_so_many_copies_are_listed_and_all_are_counted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "MAX_LISTED", 2)
    document = printed(command, "--dry-run", *WHERE)
    assert (len(document["copies"]), document["left_out"], document["goes"] + document["stays"]) == (2, 1, 3)
