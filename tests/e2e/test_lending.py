"""Partners lend each other machines: real nodes, the real command, one process a step.

Zurich lends, Barcelona borrows, and somebody with no seat looks on. Each test makes an offer of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from comity.trust.digest import sha256
from comity_cli.lab.lab import Lab
from support.officers import Document, Officer, together, wait_for

pytestmark = pytest.mark.slow

MODEL = sha256(b"a model that lies there")


@dataclass
class Fair:
    """Four nodes; Zurich lends and Barcelona borrows."""

    folder: Path
    lab: Lab
    lender: Officer
    borrower: Officer
    reader: Officer
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def offer(self, **changes: Any) -> str:
        """Post an offer of four nodes with eight accelerators each, for 60 hours; the id of its chain."""
        number = next(self.numbers)
        file = self.folder / f"offer-{number}.toml"
        self.lender.comity("offer", "new", "--jurisdiction", "CH", "--out", file)
        begin = int(time.time()) // 3600 * 3600
        fill(
            file,
            title=f"Spare nodes {number}", operator="Example Institute Zurich", target="gpu", artifacts=[MODEL],
            start=datetime.fromtimestamp(begin, UTC), end=datetime.fromtimestamp(begin + 60 * 3600, UTC), **changes,
        )  # fmt: skip
        checked = self.lender.comity("offer", "check", file, "--dir", self.lender.home)
        assert checked["remarks"] == []
        posted = self.lender.act("offer", "post", file)
        return str(posted["chain"])

    def seen(self, chain: str, by: Officer | None = None) -> Document:
        return (by or self.reader).comity("offer", "show", chain[:12])

    def wait(self, chain: str, what: str, **expected: Any) -> Document:
        """Until everything `expected` of the newest grant of a chain is seen by somebody with no seat."""
        found: list[Document] = []

        def there() -> bool:
            found[:] = self.seen(chain)["grants"][-1:]
            return bool(found) and all(found[0][name] == value for name, value in expected.items())

        wait_for(there, what)
        return found[0]

    def granted(self, chain: str, want: str = "big:2:300") -> str:
        """A request by Barcelona that Zurich grants and Barcelona accepts; the grant's digest."""
        asked = self.borrower.act("offer", "request", chain[:12], "--want", want)
        wait_for(lambda: asked["line"] in [g["request"] for g in self.lender.comity("grant", "ls")["grants"]], "it")
        granted = self.lender.act("grant", "approve", asked["line"][:12])
        wait_for(lambda: self.knows(granted["line"]), "Barcelona to know of its grant")
        self.borrower.act("grant", "accept", granted["line"][:12])
        self.wait(chain, "the acceptance to be recorded", grant=granted["line"], state="accepted")
        return str(granted["line"])

    def knows(self, grant: str) -> bool:
        return grant in [row["line"] for row in self.borrower.comity("grant", "ls")["grants"]]


def fill(file: Path, **values: Any) -> None:
    """Change settings in an offer file that `comity offer new` wrote."""
    lines = file.read_text("utf-8").splitlines()
    for name, value in values.items():
        at = next(at for at, line in enumerate(lines) if line.split("=")[0].strip() == name)
        shown = value.isoformat() if isinstance(value, datetime) else json.dumps(value)
        lines[at] = f"{name} = {shown}"
    file.write_text("\n".join(lines) + "\n", "utf-8")


@pytest.fixture(scope="module")
def fair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fair]:
    folder = tmp_path_factory.mktemp("fair")
    anybody = Officer(folder, folder / "pins")
    anybody.comity("lab", "up", folder / "lab")
    lab = Lab.open(folder / "lab")
    desks = [Officer(lab.directory / node.name, folder / f"at-{node.name}") for node in lab.nodes[:2]]
    made = Fair(folder, lab, desks[0], desks[1], anybody)
    try:
        together(lambda one: one.comity("trust", "pin", lab.federation, "--yes"), [*desks, anybody])
        yield made
    finally:
        lab.down()


def test_an_offer_is_mirrored_found_and_shown_while_its_providers_node_is_offline(fair: Fair) -> None:
    chain = fair.offer()
    wait_for(lambda: len(fair.seen(chain)["nodes"]) == 4, "all nodes to mirror the offer")
    online = fair.seen(chain)
    assert (online["state"], online["provider_answers"]) == ("proven", True)
    zurich = fair.lab.nodes[0]
    pid = zurich.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: zurich.pid is None, "Zurich's node to end")
    try:
        listed = fair.reader.comity(
            "offer", "ls", "--accelerator", "H100", "--min-hours", "500", "--jurisdiction", "CH",
            "--without-legal-reach", "US", "--engine", "slurm",
        )["offers"]  # fmt: skip
        assert chain in [each["chain"] for each in listed]
        assert fair.reader.comity("offer", "ls", "--without-legal-reach", "CH")["offers"] == []
        assert fair.reader.comity("offer", "ls", "--jurisdiction", "ES")["offers"] == []
        found = fair.seen(chain)
        assert (found["state"], found["provider_answers"], len(found["nodes"])) == ("proven", False, 3)
        assert found["cosigners"] >= 2
        parcel = fair.folder / "offer.parcel"
        fair.reader.comity("offer", "show", chain[:12], "--out", parcel)
        carried = fair.borrower.comity("offer", "show", parcel, "--offline")
        assert (carried["state"], carried["document"]) == ("proven", found["document"])
        fair.borrower.act("offer", "request", chain[:12], "--want", "big:1", "--text", "asked while Zurich was away")
    finally:
        fair.lab.up()
    wait_for(
        lambda: "requested" in [row["state"] for row in fair.lender.comity("grant", "ls", "--offer", chain)["grants"]],
        "Zurich to hear of the request",
    )


def test_a_grant_goes_by_carried_files_alone_and_is_redeemed_once(fair: Fair) -> None:
    """Barcelona's desk asks no node, and its own is not asked either."""
    lender, borrower, stick = fair.lender, fair.borrower, fair.folder / "stick"
    stick.mkdir()
    chain = fair.offer()
    lender.comity("offer", "show", chain[:12], "--out", stick / "offer")
    asked = borrower.act("offer", "request", stick / "offer", "--offline", "--want", "big:2:300",
                         "--out", stick / "request")  # fmt: skip
    assert "grant approve" in asked["next"]
    granted = lender.act("grant", "approve", stick / "request", "--out", stick / "grant")
    accepted = borrower.act("grant", "accept", stick / "grant", "--offline", "--out", stick / "accept")
    assert "grant load" in accepted["next"]
    lender.act("grant", "load", stick / "accept")
    fair.wait(chain, "the acceptance to be recorded", grant=granted["line"], state="accepted")
    lender.comity("offer", "show", chain[:12], "--out", stick / "accepted")

    def redeem(amount: int, name: str, exits: int = 0) -> Document:
        return borrower.act("grant", "redeem", stick / "accepted", "--offline", "--amount", str(amount),
                            "--text", "user: alice", "--out", stick / name, exits=exits)  # fmt: skip

    assert redeem(301, "too-much", exits=6)["error"]["code"] == "OVER-REDEEMED"
    redeem(200, "first")
    redeem(200, "second")  # signed on the same evidence: the desk cannot know of the first
    into = fair.folder / "hand-off"
    handed = lender.act("grant", "hand-over", stick / "first", "--user", "guest1", "--into", into)
    assert set(handed["files"]) == {"reserve.sh", "accounting.sh", "job-big.sbatch"}
    script = (into / "job-big.sbatch").read_text()
    assert f"export COMITY_ARTIFACT=sha256:{MODEL}" in script
    assert f"export HF_ENDPOINT={fair.lab.nodes[0].endpoint}" in script
    assert "--amount" not in script
    refused = lender.refused("grant", "hand-over", stick / "second", "--into", into)
    assert refused["code"] == "OFFER-STATE", refused
    assert fair.wait(chain, "the redemption to be seen", redeemed=[200])["left"] == [100]


def test_what_is_given_back_returns_to_the_offer(fair: Fair) -> None:
    chain = fair.offer()
    whole = fair.seen(chain)["remaining"]
    grant = fair.granted(chain)
    assert fair.seen(chain)["remaining"] == [whole[0] - 300]
    fair.borrower.act("grant", "release", grant[:12], "--text", "done early")
    fair.wait(chain, "the return to be recorded", grant=grant, state="released")
    assert fair.seen(chain)["remaining"] == whole


def test_more_than_there_is_is_not_granted(fair: Fair) -> None:
    chain = fair.offer()
    fair.granted(chain, "big:3")
    asked = fair.borrower.act("offer", "request", chain[:12], "--want", "big:2:10")
    wait_for(lambda: asked["line"] in [g["request"] for g in fair.lender.comity("grant", "ls")["grants"]], "it")
    assert fair.lender.refused("grant", "approve", asked["line"][:12])["code"] == "OFFER-CAPACITY"
    rejected = fair.lender.act("grant", "reject", asked["line"][:12], "--text", "in use")
    assert rejected["schema"] == "comity.dev/rejected/v1"


def test_a_default_is_public_with_both_sides(fair: Fair) -> None:
    chain = fair.offer()
    grant = fair.granted(chain)
    said = fair.borrower.act("grant", "default", grant[:12], "--text", "nobody opened the door")

    def kinds() -> dict[str, str]:
        shown = fair.reader.comity("grant", "show", grant[:12])["said"]
        return {each["kind"]: each["text"] for each in shown}

    wait_for(lambda: "default" in kinds(), "the default to be seen")
    wait_for(lambda: said["line"] in json.dumps(fair.lender.comity("grant", "show", grant[:12])), "Zurich to hear")
    fair.lender.act("grant", "answer", said["line"][:12], "--text", "the power failed")
    wait_for(lambda: "answer" in kinds(), "the answer to be seen")
    assert (kinds()["default"], kinds()["answer"]) == ("nobody opened the door", "the power failed")


def test_a_pact_waits_for_its_beneficiarys_word_and_nobody_elses(fair: Fair) -> None:
    lender, borrower = fair.lender, fair.borrower
    chain = fair.offer()
    asked = borrower.act("pact", "new", chain[:12], "--want", "big:1:50")
    wait_for(lambda: asked["line"] in [g["request"] for g in lender.comity("grant", "ls")["grants"]], "the request")
    pact = lender.act("grant", "approve", asked["line"][:12])["line"]
    wait_for(lambda: fair.knows(pact), "Barcelona to know of its pact")
    borrower.act("grant", "accept", pact[:12])
    fair.wait(chain, "the acceptance to be recorded", grant=pact, state="accepted", pact=True)
    drill = borrower.act("pact", "drill", pact[:12])
    assert (drill["well"], drill["logged"]) == (True, False), drill
    early = borrower.act("grant", "redeem", pact[:12], "--out", fair.folder / "early")
    assert lender.refused("grant", "hand-over", fair.folder / "early")["code"] == "OFFER-STATE", early
    borrower.act("pact", "declare", pact[:12], "--text", "our cloud closed us out")
    wait_for(lambda: [p["cut_off"] for p in lender.comity("pact", "ls")["pacts"] if p["line"] == pact] == [True], "it")
    borrower.act("grant", "redeem", pact[:12], "--out", fair.folder / "now")
    lender.act("grant", "hand-over", fair.folder / "now", "--into", fair.folder / "help")
    assert fair.wait(chain, "the pact to be redeemed", redeemed=[50])["pact"] is True


def test_usage_that_both_signed_is_a_balance(fair: Fair) -> None:
    chain = fair.offer()
    grant = fair.granted(chain)
    begin = datetime.fromtimestamp(int(time.time()) // 3600 * 3600, UTC)
    fair.lender.act("grant", "report", grant[:12], "--amount", "280", "--since", begin.isoformat(),
                    "--until", begin.replace(year=begin.year + 1).isoformat())  # fmt: skip

    def usage() -> list[str]:
        return [s["line"] for s in fair.borrower.comity("grant", "show", grant[:12])["said"] if s["kind"] == "usage"]

    wait_for(usage, "Barcelona to hear what it used")

    def balance() -> Document:
        found = [b for b in fair.reader.comity("offer", "balance")["balances"] if grant in json.dumps(b["lines"])]
        return found[0] if found else {}

    wait_for(lambda: balance().get("claimed") == 280, "the claim to be seen")
    assert balance()["net"] == 0
    fair.borrower.act("grant", "agree", usage()[0][:12])
    wait_for(lambda: abs(balance().get("net", 0)) == 280, "the balance to count it")
    assert balance()["claimed"] == 0
    shutil.rmtree(fair.folder / "hand-off", ignore_errors=True)
