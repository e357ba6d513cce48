"""Members change their charter over several epochs: real nodes, the real command, one process a step.

The tests are in the order of the events, and each also runs alone: it begins from the charter that is current then.
Tests marked `long` repeat with processes what `test_governance_by_files.py` does with files, and tests marked
`integration` with nodes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from comity.trust.charter.document import quorum
from comity_cli.lab.lab import SEATS, Lab, LabNode
from support.officers import Document, Officer, change, decide, known_by, serving, together, wait_for
from support.ports import free_port
from support.publisher import model

pytestmark = pytest.mark.slow

NEWCOMER = "Example Laboratory Brasilia"
NAMES = tuple(name for _, _, name in SEATS)


@dataclass
class LiveFederation:
    """Four founders, their running nodes, and the members that joined since."""

    folder: Path
    founders: tuple[Officer, ...]
    running: ExitStack = field(default_factory=ExitStack)

    @property
    def federation(self) -> Path:
        return self.folder / "lab" / "federation.json"

    def reader(self, name: str) -> Officer:
        """A user without a node or a seat, and with pins of their own."""
        return Officer(self.folder, self.folder / name)

    @property
    def proposals(self) -> Document:
        return self.founders[0].comity("proposal", "ls")

    def voters(self) -> list[Officer]:
        """As many founders as a quorum needs."""
        return list(self.founders[: quorum(len(self.founders[0].comity("member", "ls")["members"]))])

    def taken_up(self, epoch: int) -> None:
        """Return once each founder's own node follows the charter of `epoch`."""
        wait_for(lambda: all(one.governance["epoch"] >= epoch for one in self.founders), f"epoch {epoch} at every node")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFederation]:
    folder = tmp_path_factory.mktemp("live")
    anybody = Officer(folder, folder / "pins")
    nodes = anybody.comity("lab", "up", folder / "lab")["nodes"]
    homes = [folder / "lab" / node["node"] for node in nodes]
    made = LiveFederation(folder, tuple(Officer(home, folder / f"at-{home.name}") for home in homes))
    try:
        together(lambda one: one.comity("trust", "pin", made.federation, "--yes"), made.founders)
        with made.running:
            yield made
    finally:
        Lab.open(folder / "lab").down()


@pytest.fixture(scope="module")
def fifth(live: LiveFederation) -> Officer:
    """A newcomer with keys, a mirroring node, and a request; that took `commands` after the installation."""
    home = live.folder / "node-br"
    newcomer = Officer(home, live.folder / "at-node-br")
    ports = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    made = newcomer.comity("init", "--jurisdiction", "BR", "--org", NEWCOMER, "--name", "node-br", "--dir", home,
                           "--mutual", ports[0], "--open", ports[1], "--http", "127.0.0.1:0")  # fmt: skip
    asked = newcomer.comity("join", live.federation, "--dir", home, "--yes")
    assert (asked["state"], asked["member"]) == ("asked", made["id"])
    wait_for(lambda: len(newcomer.comity("join", "--dir", home, "--yes")["waiting_at"]) == 4, "each node to have it")
    change(home, interval_seconds=0.5, accept="any")
    live.running.enter_context(serving(home))
    return newcomer


@pytest.fixture(scope="module")
def admitted(live: LiveFederation, fifth: Officer) -> Officer:
    """The newcomer with a seat."""
    (asking,) = live.founders[1].comity("member", "asks")["asks"]
    drafted = live.founders[0].act("proposal", "new", "admit", asking["id"][:16], "--text", "they mirror us")
    draft = drafted["subject"]
    known_by(live.founders, draft)
    assert ("consented", asking["id"]) in {(turn["action"], turn["member"]) for turn in drafted["next"]}
    seen = fifth.comity("join", "--dir", fifth.home, "--yes")
    assert [(each["body"], each["consented"]) for each in seen["drafts"]] == [(draft, False)]
    fifth.act("proposal", "consent", draft[:12])  # at its own node, which no member reads, and so at members' too
    epoch = decide(live.founders[:3], draft)
    live.taken_up(epoch)
    return fifth


def test_a_fifth_member_joins_a_federation_of_four(live: LiveFederation, admitted: Officer) -> None:
    """Two commands from the installation to the request (`init`, `join`), one for a vote: see the fixtures."""
    joined = admitted.comity("join", "--dir", admitted.home)
    assert (joined["state"], joined["epoch"]) == ("member", 1)
    listed = live.founders[2].comity("member", "ls")["members"]
    assert {seat["name"] for seat in listed} == {*NAMES, NEWCOMER}
    wait_for(lambda: admitted.governance["epoch"] == 1, "the newcomer's own node to follow")
    wait_for(lambda: live.founders[0].comity("member", "asks")["asks"] == [], "the request to be deleted")


@pytest.mark.long
def test_a_member_rotates_its_key_and_the_charter_lists_it(live: LiveFederation) -> None:
    changing = live.founders[0]
    before = changing.comity("keys", "show", "--dir", changing.home)
    rotated = changing.act("keys", "rotate")
    after = changing.comity("keys", "show", "--dir", changing.home)
    assert after["rotations"] == before["rotations"] + 1
    assert {key["state"] for key in after["keys"]} == {"may sign"}
    assert {key["id"] for key in after["keys"]}.isdisjoint(key["id"] for key in before["keys"])
    assert rotated["complete"]

    draft = drafted(live.founders[1], "rekey", NAMES[0])
    live.taken_up(decide(live.voters(), draft))  # the new key may vote immediately, for the seat that lists the old one
    seat = live.founders[1].comity("member", "show", NAMES[0])
    assert seat["keys"] == [key["id"] for key in after["keys"]]
    wait_for(lambda: len(own_log(changing)["cosigners"]) >= 3, "the others to cosign its longer log")
    wait_for(lambda: {peer["state"] for peer in changing.state["peers"]} == {"up"}, "its peers to answer")


@pytest.mark.long
def test_the_policy_changes_by_a_quorum(live: LiveFederation) -> None:
    draft = live.founders[2].act("proposal", "new", "policy", "min_copies=4", "--text", "more copies")["subject"]
    known_by(live.founders, draft)
    shown = live.founders[3].comity("proposal", "show", draft[:12])
    assert [(each["name"], each["before"], each["after"]) for each in shown["changes"]] == [("min_copies", "3", "4")]
    live.taken_up(decide(live.voters(), draft))
    assert live.founders[3].comity("trust", "diff")["relation"] == "forward"


@pytest.mark.long
def test_a_removed_member_reads_publishes_is_mirrored_and_its_old_proofs_hold(
    live: LiveFederation, admitted: Officer, tmp_path: Path
) -> None:
    """I10, with processes."""
    as_before, as_after = live.reader("pins the old charter"), live.reader("pins the new charter")
    invitation, old = tmp_path / "old.json", tmp_path / "first"
    admitted.comity("trust", "pin", "--yes")  # the charter that names its own node
    admitted.comity("invite", "--out", invitation)
    as_before.comity("trust", "pin", invitation, "--yes")
    publish(admitted, tmp_path / "model", "lab-br/first@v1", "node-br")
    wait_for(lambda: pulled(as_before, "lab-br/first@v1", old), "enough cosigners of its log")

    draft = live.founders[0].act("proposal", "new", "remove", NEWCOMER, "--text", "by agreement")["subject"]
    live.taken_up(decide(live.voters(), draft))
    assert NEWCOMER not in {seat["name"] for seat in live.founders[1].comity("member", "ls")["members"]}
    assert admitted.refused("proposal", "new", "policy", "min_copies=2")["code"] == "NO-SEAT"

    as_after.comity("trust", "pin", live.federation, "--yes")
    as_after.comity("trust", "pin", "--yes")
    assert as_before.comity("verify", old)["accepted"]
    judged = json.loads(as_after.run("verify", old, "--json").stdout)
    assert {row["row"]: row["state"] for row in judged["rows"]}[
        "transparency"
    ] != "pass"  # it is no longer the log of a member
    assert not judged["accepted"]

    publish(admitted, tmp_path / "model", "lab-br/second@v1", "node-br")
    wait_for(lambda: len(own_log(admitted)["cosigners"]) >= 3, "its longer log to be mirrored")
    size = own_log(admitted)["size"]
    wait_for(lambda: mirrored(live.founders[0], "node-br/log") >= size, "a copy of all its entries")
    wait_for(lambda: pulled(as_before, "lab-br/second@v1", tmp_path / "second"), "enough cosigners of what came later")
    assert pulled(admitted, "lab-br/first@v1", tmp_path / "again")
    assert admitted.comity("verify", tmp_path / "again")["accepted"]


@pytest.mark.long
def test_a_split_stalls_and_is_decided_in_the_second_round(live: LiveFederation) -> None:
    proposers = live.founders[0], live.founders[2]
    drafts = [
        one.act("proposal", "new", "namespace", f"{name}={'5' * 64}")["subject"]
        for one, name in zip(proposers, ("ours", "theirs"), strict=True)
    ]
    known_by(live.founders, *drafts)
    halves = dict(zip(live.founders, (drafts[0], drafts[0], drafts[1], drafts[1]), strict=True))
    together(lambda one: one.act("proposal", "approve", halves[one][:12]), live.founders)
    known_by(live.founders, *drafts, intents=2)
    split = live.proposals
    assert sorted(len(each["intents"]["1"]) for each in split["drafts"]) == [2, 2]
    (leading,) = {turn["body"] for turn in split["next"] if turn["round"] == 2}
    epoch = decide(live.voters(), leading, options=["--stalled"])
    assert epoch == split["epoch"] + 1
    live.taken_up(epoch)


@pytest.mark.long
def test_of_two_drafts_one_wins_and_the_other_is_rebased_on_it(live: LiveFederation) -> None:
    first, second = live.founders[1], live.founders[3]
    winning = first.act("proposal", "new", "namespace", f"first={'1' * 64}")["subject"]
    losing = second.act("proposal", "new", "namespace", f"second={'2' * 64}")["subject"]
    known_by(live.founders, winning, losing)
    epoch = decide(live.voters(), winning)
    live.taken_up(epoch)
    assert second.refused("proposal", "approve", losing[:12])["code"] == "NO-DRAFT"
    again = second.act("proposal", "rebase", losing[:12])["subject"]
    assert decide(live.voters(), again) == epoch + 1
    wanted = {change["name"] for change in second.comity("trust", "diff")["changes"] if change["what"] == "namespace"}
    assert {"first", "second"} <= wanted


def test_a_leaving_member_stays_a_member_until_a_charter_removes_it(live: LiveFederation) -> None:
    leaving = live.founders[3]
    leaving.act("leave", "--text", "our mandate ends")

    def asks_to_leave() -> list[str]:
        return [seat["name"] for seat in live.founders[0].comity("member", "ls")["members"] if seat["asks_to_leave"]]

    wait_for(asks_to_leave, "the other nodes to know it")
    assert asks_to_leave() == [NAMES[3]]
    wait_for(
        lambda: "asks to leave" in words(live.founders[1].run("member", "ls").stdout),
        "the request to leave to be shown",
    )


@pytest.mark.long
def test_every_honest_node_detects_two_votes_by_a_copied_key(live: LiveFederation, tmp_path: Path) -> None:
    honest, liar = live.founders[:3], live.founders[3]
    one = honest[0].act("proposal", "new", "policy", "min_jurisdictions=2")["subject"]
    other = honest[1].act("proposal", "new", "policy", "min_jurisdictions=1")["subject"]
    known_by(live.founders, one, other)
    stick, lie = tmp_path / "stick", tmp_path / "lie"
    liar.comity("proposal", "export", stick)
    liar.act("proposal", "approve", one[:12])

    copied = Officer(tmp_path / "second desk", liar.pins)
    shutil.copytree(liar.home, copied.home, ignore=shutil.ignore_patterns("data", "*.sock", "*.votes"))
    sits_out = copied.comity("proposal", "approve", other[:12], "--offline", "--from", stick, "--dir", copied.home)
    assert "vote state is lost" in sits_out["why"]
    (key,) = copied.comity("keys", "show", "--dir", copied.home)["keys"]
    votes = Path(key["path"]).with_suffix(".votes")
    votes.write_text(json.dumps({"key": key["id"], "schema": "comity/votes/v1"}, separators=(",", ":")) + "\n")
    votes.chmod(0o600)
    copied.act("proposal", "approve", other[:12], "--offline", "--from", stick, "--out", lie)
    honest[0].comity("proposal", "load", lie, "--dir", honest[0].home)

    wait_for(lambda: all(each.governance["liars"] == [NAMES[3]] for each in honest), "every honest node to see it")
    for command in (("proposal", "ls"), ("member", "ls")):
        assert [each["member"] for each in honest[1].comity(*command)["lies"]] == [seat_of(honest[1], NAMES[3])]
        assert "signed conflicting votes" in words(honest[1].run(*command).stderr)
    assert decide(honest, one) == live.proposals["epoch"]  # three of four are a quorum


def test_a_frozen_view_shows_its_age_and_fails_nothing(live: LiveFederation) -> None:
    first = live.founders[0]
    others = Lab.open(live.folder / "lab").nodes[1:]
    shown: list[Document] = []

    def settled() -> bool:
        """Whether the node shows all that it has received."""
        shown[:] = [first.comity("member", "ls") for _ in range(2)]
        level = all(peer["lag"] == 0 for peer in first.state["peers"])
        return level and shown[0] == shown[1] and len(own_log(first)["cosigners"]) >= 3

    wait_for(settled, "cosigners")
    before = shown[-1]
    try:
        signal_all(others, signal.SIGSTOP)  # connections stay open, and no node answers
        wait_for(lambda: down(first) >= {node.name for node in others}, "the node to report them as unreachable")
        frozen = first.comity("member", "ls")
        assert (frozen["epoch"], frozen["body"]) == (before["epoch"], before["body"])
        assert 0 < before["confirmation"]["seen"] <= frozen["confirmation"]["seen"]
        printed = words(first.run("member", "ls").stdout)
        assert re.search(r"the newest \d+ (s|min) ago", printed), printed
    finally:
        signal_all(others, signal.SIGCONT)
    wait_for(lambda: not down(first) & {node.name for node in others}, "them to answer again")


@pytest.mark.long
def test_after_the_loss_of_the_quorum_a_federation_is_founded_again_and_nothing_else_changes(
    live: LiveFederation, tmp_path: Path
) -> None:
    left, owner = live.founders[:2], live.reader("an owner")
    owner.comity("trust", "pin", live.federation, "--yes")
    kept = tmp_path / "kept"
    publish(owner, tmp_path / "model", "owner/model@v1", "node-ch")
    wait_for(lambda: pulled(owner, "owner/model@v1", kept), "enough cosigners")
    lab = Lab.open(live.folder / "lab")
    for node in lab.nodes[2:]:
        lab.destroy(node)

    genesis, successor = tmp_path / "genesis.json", tmp_path / "successor.json"
    cards = [one.card for one in left]
    drafted = left[0].comity("refound", *cards, "--out", genesis)
    consents = [tmp_path / f"consent-{one.home.name}.line" for one in left]
    for one, line in zip(left, consents, strict=True):
        one.act("found", "consent", genesis, "--out", line)
    left[1].comity("found", "seal", genesis, *consents, *cards, "--out", successor)
    old_id = owner.comity("trust", "show")["pins"][0]["federation"]
    assert drafted["predecessor"] == left[0].comity("proposal", "ls")["body"]

    lab.down()
    for one in left:
        shutil.copyfile(successor, one.home / "federation.json")
    left[0].comity("lab", "up", live.folder / "lab")
    assert owner.comity("verify", kept)["accepted"]  # by the pin of the former federation
    pinned = owner.comity("trust", "pin", successor, "--yes")
    assert {pin["federation"] for pin in owner.comity("trust", "show")["pins"]} == {old_id, pinned["federation"]}
    assert len({old_id, pinned["federation"]}) == 2
    assert [one.governance["epoch"] for one in left] == [0, 0]
    publish(owner, tmp_path / "model", "owner/model@v2", "node-ch")
    wait_for(lambda: pulled(owner, "owner/model@v2", tmp_path / "new"), "the two to cosign one another")


def drafted(officer: Officer, *change: str) -> str:
    """The body of a draft, made once the officer's node knows the statements that it depends on."""
    ran = [officer.run("proposal", "new", *change, "--dir", officer.home, "--yes", "--json")]

    def made() -> bool:
        if ran[-1].returncode:
            ran.append(officer.run("proposal", "new", *change, "--dir", officer.home, "--yes", "--json"))
        return ran[-1].returncode == 0

    wait_for(made, f"a draft: {ran[-1].stdout}")
    return str(json.loads(ran[-1].stdout)["subject"])


def words(printed: str) -> str:
    """What was printed, on one line."""
    return " ".join(printed.split())


def seat_of(officer: Officer, name: str) -> str:
    return str(officer.comity("member", "show", name)["id"])


def own_log(officer: Officer) -> Document:
    """The own log of the member's node, and who has cosigned it as it is now."""
    (own,) = [log for log in officer.state["logs"] if log["own"]]
    return dict(own)


def down(officer: Officer) -> set[str]:
    """Peers that the member's node does not reach."""
    peers = officer.state["peers"]
    return {peer["name"] for peer in peers if peer["state"] == "DOWN"}


def signal_all(nodes: Sequence[LabNode], what: signal.Signals) -> None:
    for node in nodes:
        if node.pid is not None:
            os.kill(node.pid, what)


def mirrored(officer: Officer, origin: str) -> int:
    """How many entries of a log the member's node holds."""
    logs = officer.state["logs"]
    return next(int(log["size"]) for log in logs if log["origin"] == origin)


def publish(officer: Officer, folder: Path, name: str, node: str) -> None:
    if not folder.exists():
        model(folder, weights=20_000)
        officer.comity("publisher", "new", "Laboratory", "--jurisdiction", "BR", "--home", f"{node}/log")
    officer.comity("publish", folder, "--as", name, "--licence", "mit", "--node", node)


def pulled(officer: Officer, name: str, to: Path) -> bool:
    """Whether the artifact could be fetched, and satisfied the pins."""
    return officer.run("pull", name, "--to", to).returncode == 0
