"""An air gap, end to end: two networks without a link, the real commands, a carried folder, and an unmodified
client.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from comity.trust.charter.document import CharterPolicy, quorum
from comity_client.founding import consent_to, draft_genesis, seal_federation
from comity_client.node_home import ListenSettings, NewNode, init_node
from support.forked import ForkedProgram
from support.officers import Officer, change, serving, wait_for
from support.partition import Divide, divide
from support.publisher import model
from support.short_form import cases
from support.waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.netns]

CODES = {"CH": 0, "ES": 0, "KR": 1}
GATEWAY = "127.0.0.1:7681"
KILLS = {"opened": ("bundle opened",), "mirrored, then opened twice": ("mirrored", "bundle opened", "bundle opened")}
"""After which events in the node's log a load is killed, before one that ends."""
STOCK = """
import sys, huggingface_hub
print(huggingface_hub.snapshot_download(sys.argv[1], revision=sys.argv[2]))
"""


@dataclass(frozen=True)
class Gap:
    """Two networks: the link was cut before a node ran. The node of KR is alone on its side."""

    divide: Divide
    outside: Officer
    inside: Officer


@pytest.fixture(name="gap")
def _gap(tmp_path: Path) -> Iterator[Gap]:
    with divide() as made, ExitStack() as running:
        made.close()
        cards = []
        for number, (code, side) in enumerate(CODES.items()):
            mutual, open_ = (f"{made.address(side)}:{port + 10 * number}" for port in (7400, 7500))
            gateway = GATEWAY if code == "KR" else ""
            listen: dict[str, Any] = {"mutual": mutual, "open_": open_, "listeners": ListenSettings(http=gateway)}
            name = f"node-{code.lower()}"
            cards.append(
                init_node(
                    tmp_path / code, NewNode(jurisdiction=code, org=f"Institute {code}", node_name=name, **listen)
                )
            )
            change(tmp_path / code, interval_seconds=0.5, first_answer_seconds=1.0, accept="any")
        policy = CharterPolicy(quorum(len(CODES)), min_copies=2, min_jurisdictions=2, cosigner_quorum=1)
        body = draft_genesis(cards, policy)
        federation = seal_federation(body, [consent_to(body, tmp_path / code) for code in CODES], cards).encode()
        officers = []
        for code, side in CODES.items():
            (tmp_path / code / "federation.json").write_bytes(federation)
            officers.append(Officer(tmp_path / code, tmp_path / f"at-{code}", made.network(side)))
            officers[-1].comity("trust", "pin", tmp_path / code / "federation.json", "--yes")
            running.enter_context(serving(tmp_path / code, network=made.network(side)))
        yield Gap(made, officers[0], officers[-1])


@pytest.mark.parametrize("kills", cases(KILLS, ["opened"]))
def test_a_model_crosses_the_gap_on_a_disk_and_the_cosignatures_come_back(gap: Gap, tmp_path: Path, kills: str) -> None:
    outside, inside = gap.outside, gap.inside
    status = json.loads(inside.run("status", "--node", inside.home, "--json").stdout)
    assert [peer["state"] for peer in status["peers"] if peer["state"] == "up"] == []
    outside.comity("publisher", "new", "Desk", "--jurisdiction", "CH", "--home", "node-ch/log")
    publish(outside, tmp_path / "one", "ch/one@v1", weights=40_000_000)

    full = outside.comity("export", "--all", "--out", tmp_path / "stick", "--node", outside.home)
    assert (full["artifacts"], full["incomplete"]) == (1, [])
    payload = sum(path.stat().st_size for path in (tmp_path / "stick").rglob("*") if path.is_file())
    assert payload <= 1.02 * full["bytes"]
    assert full["written"] <= 1.02 * full["bytes"]

    for event in KILLS[kills]:
        killed_load(inside, tmp_path / "stick", event)
    loaded = inside.comity("load", tmp_path / "stick", "--node", inside.home)
    assert not [log for log in loaded["logs"] if log["code"]]
    assert pulled_by_a_stock_client(inside, tmp_path / "cache-1", "ch/one", "v1") == tmp_path / "one"
    wait_for(lambda: pulled(inside, "ch/one@v1", tmp_path / "verified"), "a cosignature of the node inside")
    wait_for(lambda: "node-kr" in holders(inside, "ch/one@v1"), "the node inside to say that it holds it")

    publish(outside, tmp_path / "two", "ch/two@v1", weights=3_000_000)
    delta = outside.comity("export", "--since", tmp_path / "stick", "--out", tmp_path / "delta", "--node", outside.home)
    assert delta["artifacts"] == 1
    assert 3_000_000 < delta["bytes"] < 3_300_000
    assert inside.comity("load", tmp_path / "delta", "--node", inside.home)["changed"]
    assert pulled_by_a_stock_client(inside, tmp_path / "cache-2", "ch/two", "v1") == tmp_path / "two"
    assert not inside.comity("load", tmp_path / "stick", "--node", inside.home)["changed"]

    inside.comity("export", "--since", tmp_path / "delta", "--out", tmp_path / "back", "--node", inside.home)
    assert outside.comity("load", tmp_path / "back", "--node", outside.home)["changed"]
    wait_for(lambda: "node-kr" in holders(outside, "ch/one@v1"), "the copy inside to be known outside")

    outside.act("leave", "--export", tmp_path / "everything", "--text", "the mandate ends")
    carried = json.loads((tmp_path / "everything/bundle.json").read_bytes())
    assert (carried["artifacts"], len(carried["logs"])) == (2, 3)
    assert sorted(path.name for path in inside.home.glob(".load-*")) == []


def holders(officer: Officer, name: str) -> set[str]:
    return {each["node"] for each in officer.comity("whereis", name)["replicas"]}


def publish(officer: Officer, folder: Path, name: str, *, weights: int) -> None:
    model(folder, weights=weights, seed=weights)
    officer.comity("publish", folder, "--as", name, "--licence", "mit", "--node", officer.home)


def killed_load(officer: Officer, bundle: Path, event: str) -> None:
    """Begin a load, and kill it when the node logs this event."""
    log = officer.home / "node.log"
    before = log.read_text().count(event)
    command = ("load", str(bundle), "--node", str(officer.home))
    output = officer.pins / "killed-load.log"
    process = ForkedProgram.comity(*command, environ=officer.environ, log=output, network=officer.network)
    try:
        wait_for(lambda: log.read_text().count(event) > before, f"{event!r} in the node's log")
    finally:
        process.kill()


def pulled(officer: Officer, name: str, folder: Path) -> bool:
    """Whether the policy of the pins is met by the carried evidence."""
    return officer.run("pull", name, "--out", folder).returncode == 0


def pulled_by_a_stock_client(officer: Officer, cache: Path, repository: str, revision: str) -> Path:
    """The folder of the model whose files an unmodified Hub client got from the gateway behind the air gap."""
    environ = {**os.environ, "HF_ENDPOINT": f"http://{GATEWAY}", "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    command = ["ip", "netns", "exec", officer.network, sys.executable, "-c", STOCK, repository, revision]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert ran.returncode == 0, ran.stderr
    snapshot = Path(ran.stdout.strip().splitlines()[-1])
    original = cache.parent / repository.partition("/")[2]
    names = sorted(path.name for path in original.iterdir())
    assert [(snapshot / name).read_bytes() for name in names] == [(original / name).read_bytes() for name in names]
    return original
