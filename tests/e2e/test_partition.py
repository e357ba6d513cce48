"""A federation whose network is partitioned: neither side certifies an epoch, both sides continue to serve, and the
pending vote is completed after the partition ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from comity.trust.charter.document import CharterPolicy, quorum
from comity_client.founding import consent_to, draft_genesis, seal_federation
from comity_client.node_home import ListenSettings, NewNode, init_node
from support.officers import Officer, change, known_by, serving, together, wait_for
from support.partition import Divide, divide
from support.publisher import model

pytestmark = [pytest.mark.slow, pytest.mark.netns]

CODES = ("CH", "ES", "KR", "SG", "BR")
SIDE = dict(zip(CODES, (0, 0, 0, 1, 1), strict=True))


@dataclass(frozen=True)
class PartitionedFederation:
    """Five members with their nodes, three on one side of the partition and two on the other."""

    divide: Divide
    officers: tuple[Officer, ...]

    def on(self, side: int) -> list[Officer]:
        return [one for one in self.officers if SIDE[one.home.name] == side]


@pytest.fixture(name="divided")
def _parted(tmp_path: Path) -> Iterator[PartitionedFederation]:
    with divide() as made, ExitStack() as running:
        cards = []
        for number, (code, side) in enumerate(SIDE.items()):
            mutual, open_ = (f"{made.address(side)}:{port + 10 * number}" for port in (7400, 7500))
            home, name = tmp_path / code, f"node-{code.lower()}"
            listen: dict[str, Any] = {"mutual": mutual, "open_": open_, "listeners": ListenSettings(http="")}
            cards.append(init_node(home, NewNode(jurisdiction=code, org=f"Institute {code}", node_name=name, **listen)))
            change(home, interval_seconds=0.5, first_answer_seconds=1.0, accept="any")
        policy = CharterPolicy(quorum(len(CODES)), min_copies=2, min_jurisdictions=2, cosigner_quorum=1)
        body = draft_genesis(cards, policy)
        federation = seal_federation(body, [consent_to(body, tmp_path / code) for code in CODES], cards).encode()
        for code in CODES:
            (tmp_path / code / "federation.json").write_bytes(federation)
        officers = [
            Officer(tmp_path / code, tmp_path / f"at-{code}", made.network(side)) for code, side in SIDE.items()
        ]
        together(lambda one: one.comity("trust", "pin", one.home / "federation.json", "--yes"), officers)
        for side in (0, 1):
            homes = [tmp_path / code for code in CODES if SIDE[code] == side]
            running.enter_context(serving(*homes, network=made.network(side)))
        yield PartitionedFederation(made, tuple(officers))


def test_during_a_partition_nothing_is_decided_and_every_reader_keeps_access(
    divided: PartitionedFederation, tmp_path: Path
) -> None:
    first, second = divided.on(0)[0], divided.on(1)[0]
    draft = first.act("proposal", "new", "policy", "min_copies=3", "--text", "one more copy")["subject"]
    known_by(divided.officers, draft)

    divided.divide.close()
    together(lambda one: one.act("proposal", "approve", draft[:12]), divided.officers)
    waiting = together(lambda one: one.act("proposal", "approve", draft[:12]), [first, second])
    assert [each["complete"] for each in waiting] == [False, False]
    for side, intents in ((0, 3), (1, 2)):
        known_by(divided.on(side), draft, intents=intents)
    seen = together(lambda one: one.comity("proposal", "ls"), [first, second])
    assert [(each["epoch"], len(each["drafts"][0]["intents"]["1"])) for each in seen] == [(0, 3), (0, 2)]

    together(lambda one: publish(one, tmp_path / f"model-{one.home.name}"), [first, second])
    for one in (first, second):
        wait_for(partial(pulled, one, one, tmp_path), "a cosigner on the same side")

    divided.divide.open()
    wait_for(lambda: not unreachable(first) and not unreachable(second), "the nodes to reach one another again")
    known_by(divided.officers, draft, intents=5)
    voters = [*divided.on(0)[:2], *divided.on(1)]  # all have said INTENT; a quorum of both sides ratifies
    together(lambda one: one.act("proposal", "approve", draft[:12]), voters)
    wait_for(lambda: all(one.governance["epoch"] == 1 for one in divided.officers), "epoch 1 at every node")
    for one, other in ((first, second), (second, first)):
        wait_for(partial(pulled, one, other, tmp_path), "the publication of the other side")


def publish(officer: Officer, folder: Path) -> None:
    model(folder, weights=20_000, seed=len(officer.home.name) + ord(officer.home.name[0]))
    name = officer.home.name.lower()
    officer.comity("publisher", "new", f"Desk {name}", "--jurisdiction", "NO", "--home", f"node-{name}/log")
    officer.comity("publish", folder, "--as", f"{name}/model@v1", "--licence", "mit", "--node", f"node-{name}")


def pulled(officer: Officer, publisher: Officer, folder: Path) -> bool:
    """Whether the artifact could be fetched, and satisfied the pins."""
    name = publisher.home.name.lower()
    return officer.run("pull", f"{name}/model@v1", "--to", folder / f"{officer.home.name}-{name}").returncode == 0


def unreachable(officer: Officer) -> list[str]:
    """Peers of the member's node that it does not reach now."""
    peers = officer.state["peers"]
    return [peer["name"] for peer in peers if peer["state"] != "up"]
