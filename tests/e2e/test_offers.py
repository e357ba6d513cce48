"""Members lend each other machines: real nodes, the real command, one process a step.

Zurich lends, Barcelona borrows, and a reader without a seat observes. There is one offer, of four nodes. Tests marked
`long` repeat with processes what `tests/integration/test_offers.py` does with nodes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pytest
from comity.rules.hardware_evidence import Device, HardwareEvidence
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound
from comity.wire.client import NodeClient
from comity.wire.offer import Attest, GrantQuery
from comity_cli.lab.lab import Lab
from comity_client.own_node import operator_socket
from cryptography.hazmat.primitives.serialization import Encoding
from support import hardware, real_hardware
from support.officers import Document, Officer, together, wait_for

pytestmark = pytest.mark.slow

T = TypeVar("T")
MODEL = sha256(b"a model that lies there")


@dataclass
class OfferFederation:
    """Four nodes, and one offer; Zurich lends and Barcelona borrows."""

    folder: Path
    lab: Lab
    lender: Officer
    borrower: Officer
    reader: Officer
    posted: str = ""

    @cached_property
    def chain(self) -> str:
        """An offer of four nodes with eight accelerators each, for 60 hours from now: the id of its chain."""
        file = self.folder / "offer.toml"
        self.lender.comity("offer", "new", "--jurisdiction", "CH", "--out", file)
        begin = datetime.fromtimestamp(int(time.time()) // 3600 * 3600, UTC)
        fill(
            file, operator="Example Institute Zurich", target="gpu", artifacts=[MODEL], start=begin,
            end=begin + timedelta(hours=60),
        )  # fmt: skip
        assert self.lender.comity("offer", "check", file, "--dir", self.lender.home)["remarks"] == []
        posted = self.lender.act("offer", "post", file)
        self.posted = str(posted["line"])
        return str(posted["chain"])

    def another_offer(self) -> str:
        """A second offer of Zurich: the id of its chain."""
        text = (self.folder / "offer.toml").read_text("utf-8")
        file = self.folder / "second.toml"
        file.write_text(text, "utf-8")
        fill(file, title="Four more nodes")
        return str(self.lender.act("offer", "post", file)["chain"])

    @cached_property
    def loan(self) -> str:
        """A grant of 300 on one node, accepted by Barcelona."""
        return self.granted("big:1:300")

    @property
    def seen(self) -> Document:
        """The offer, as a reader without a seat sees it."""
        return self.reader.comity("offer", "show", self.chain[:12])

    def held(self, grant: str) -> Document:
        """One of its grants, seen in the same way."""
        found: Document
        (found,) = [each for each in self.seen["grants"] if each["grant"] == grant]
        return found

    def ask(self, home: Path, question: Callable[[NodeClient], Awaitable[T]]) -> T:
        """What a node reports to its operators."""

        async def work() -> T:
            async with NodeClient.operator(operator_socket(home)) as client:
                return await question(client)

        return asyncio.run(work())

    def hears(self, line: str, by: Path) -> None:
        """Wait until the node of a home has a line about the offer."""

        def there() -> bool:
            try:
                lines = self.ask(by, lambda node: node.offers.get(Digest(self.chain)))
            except NotFound:  # it has not mirrored the offer yet
                return False
            return line in [sha256(each.line) for each in lines]

        wait_for(there, f"{by.name} to hear of {line[:12]}")

    def shows(self, found: Callable[[], T], wanted: T) -> None:
        """Wait until this is what a user is shown who asks every node."""
        seen: list[T] = []

        def there() -> bool:
            seen[:] = [found()]
            return seen == [wanted]

        try:
            wait_for(there, f"{wanted} to be shown")
        except AssertionError as error:
            raise AssertionError(f"shown in place of {wanted}: {seen}") from error

    def reaches(self, grant: str, state: str) -> None:
        """Wait until a third node reports that a grant is in `state`."""

        def there() -> bool:
            found = self.ask(self.third, lambda node: node.offers.grants(GrantQuery(state=state)))
            return grant in [sha256(each.answer.line) for each in found if each.answer]

        wait_for(there, f"a grant to be {state}")

    @property
    def third(self) -> Path:
        """The home of a node that neither lends nor borrows."""
        return self.lab.nodes[2].home

    def request(self, want: str, *kind: str) -> str:
        """A request by Barcelona, once Zurich's node has it."""
        asked = self.borrower.act(*(kind or ("offer", "request")), self.chain[:12], "--want", want)
        self.hears(asked["line"], self.lender.home)
        return str(asked["line"])

    def granted(self, want: str, *kind: str) -> str:
        """A request by Barcelona that Zurich grants and Barcelona accepts; the grant's digest."""
        granted = self.lender.act("grant", "approve", self.request(want, *kind)[:12])["line"]
        self.hears(granted, self.borrower.home)
        self.borrower.act("grant", "accept", granted[:12])
        self.reaches(granted, "accepted")
        return str(granted)


def chains(listed: Document) -> list[str]:
    return [each["chain"] for each in listed["offers"]]


def picked(document: Document, *names: str) -> list[Any]:
    return [document[name] for name in names]


def fill(file: Path, **values: Any) -> None:
    """Change settings in an offer file that `comity offer new` wrote."""
    lines = file.read_text("utf-8").splitlines()
    for name, value in values.items():
        at = next(at for at, line in enumerate(lines) if line.split("=")[0].strip() == name)
        shown = value.isoformat() if isinstance(value, datetime) else json.dumps(value)
        lines[at] = f"{name} = {shown}"
    file.write_text("\n".join(lines) + "\n", "utf-8")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfferFederation]:
    folder = tmp_path_factory.mktemp("shared")
    anybody = Officer(folder, folder / "pins")
    anybody.comity("lab", "up", folder / "lab")
    lab = Lab.open(folder / "lab")
    officers = [Officer(lab.directory / node.name, folder / f"at-{node.name}") for node in lab.nodes[:2]]
    made = OfferFederation(folder, lab, officers[0], officers[1], anybody)
    try:
        together(lambda one: one.comity("trust", "pin", lab.federation, "--yes"), [*officers, anybody])
        yield made
    finally:
        lab.down()


def test_an_offer_is_mirrored_found_and_shown_while_its_providers_node_is_offline(shared: OfferFederation) -> None:
    chain = shared.chain
    for node in shared.lab.nodes:
        shared.hears(shared.posted, node.home)

    def online() -> tuple[str, bool, int]:
        seen = shared.seen
        return seen["state"], seen["provider_answers"], len(seen["nodes"])

    shared.shows(online, ("proven", True, 4))
    zurich = shared.lab.nodes[0]
    pid = zurich.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: zurich.pid is None, "Zurich's node to end")
    try:
        wanted = ("--accelerator", "H100", "--min-hours", "500", "--engine", "slurm", "--without-legal-reach", "US")
        shared.shows(lambda: chains(shared.reader.comity("offer", "ls", *wanted, "--jurisdiction", "CH")), [chain])
        assert shared.reader.comity("offer", "ls", *wanted, "--jurisdiction", "EU")["offers"] == []
        shared.shows(online, ("proven", False, 3))
        bundle = shared.folder / "offer.bundle"
        found = shared.reader.comity("offer", "show", chain[:12], "--out", bundle)
        assert (found["state"], found["provider_answers"], len(found["nodes"])) == ("proven", False, 3)
        assert found["cosigners"] >= 2
        carried = shared.borrower.comity("offer", "show", bundle, "--offline")
        assert (carried["state"], carried["document"]) == ("proven", found["document"])
        asked = shared.borrower.act("offer", "request", chain[:12], "--want", "big:4", "--text", "while you were away")
    finally:
        shared.lab.up()
    shared.hears(asked["line"], shared.lender.home)

    def requests() -> list[tuple[str, str]]:
        listed = shared.lender.comity("grant", "ls", "--offer", chain)["grants"]
        return [(row["state"], row["request"]) for row in listed]

    shared.shows(requests, [("requested", asked["line"])])


def test_a_grant_is_made_by_carried_files_alone_and_is_redeemed_once(shared: OfferFederation) -> None:
    """Barcelona's officer asks no node, and Barcelona's node is not asked either."""
    lender, borrower, stick = shared.lender, shared.borrower, shared.folder / "stick"
    stick.mkdir()
    lender.comity("offer", "show", shared.chain[:12], "--out", stick / "offer")
    asked = borrower.act("offer", "request", stick / "offer", "--offline", "--want", "big:1:300",
                         "--out", stick / "request")  # fmt: skip
    assert "grant approve" in asked["next"]
    granted = lender.act("grant", "approve", stick / "request", "--out", stick / "grant")["line"]
    accepted = borrower.act("grant", "accept", stick / "grant", "--offline", "--out", stick / "accept")
    assert "grant load" in accepted["next"]
    lender.comity("grant", "load", stick / "accept", "--dir", lender.home)
    shared.reaches(granted, "accepted")
    lender.comity("offer", "show", shared.chain[:12], "--out", stick / "chain")

    def redeem(amount: int, name: str, exits: int = 0) -> Document:
        return borrower.act("grant", "redeem", granted[:12], "--from", stick / "chain", "--offline", "--amount",
                            str(amount), "--text", "user: alice", "--out", stick / name, exits=exits)  # fmt: skip

    assert redeem(301, "too-much", exits=6)["error"]["code"] == "OVER-REDEEMED"
    redeem(200, "first")
    redeem(200, "again")  # the same statement, signed once more
    redeem(100, "second")  # another one on the same evidence: it cannot know of the first
    into = shared.folder / "hand-off"
    first = borrower.comity("grant", "show", granted[:12], "--from", stick / "first", "--offline")
    line = next(each["line"] for each in first["said"] if each["kind"] == "redemption")
    handed = lender.act("grant", "hand-over", line[:12], "--from", stick / "first", "--user", "guest1", "--into", into)
    assert set(handed["files"]) == {"reserve.sh", "accounting.sh", "job-big.sbatch"}
    script = (into / "job-big.sbatch").read_text()
    assert f"export COMITY_ARTIFACT=sha256:{MODEL}" in script
    assert f"export HF_ENDPOINT={shared.lab.nodes[0].endpoint}" in script
    again, more = stick / "again", shared.folder / "more"
    repeated = lender.act("grant", "hand-over", again, "--from", again, "--into", more)
    assert repeated["line"] == handed["line"]
    refused = lender.refused("grant", "hand-over", stick / "second", "--into", into)
    assert refused["code"] == "OFFER-STATE", refused
    shared.shows(lambda: picked(shared.held(granted), "redeemed", "left"), [[200], [100]])


def test_a_pact_counts_only_after_its_beneficiary_declares_the_cut_off(shared: OfferFederation) -> None:
    lender, borrower = shared.lender, shared.borrower
    pact = shared.granted("big:1:50", "pact", "new")
    drill = borrower.act("pact", "drill", pact[:12])
    assert (drill["well"], drill["logged"]) == (True, False), drill
    borrower.act("grant", "redeem", pact[:12], "--out", shared.folder / "early")
    early = lender.refused("grant", "hand-over", shared.folder / "early", "--into", shared.folder / "help")
    assert early["code"] == "OFFER-STATE", early
    declared = borrower.act("pact", "declare", pact[:12], "--text", "our cloud closed us out")
    shared.hears(declared["line"], lender.home)
    shared.shows(lambda: [p["cut_off"] for p in lender.comity("pact", "ls")["pacts"] if p["line"] == pact], [True])
    now = borrower.act("grant", "redeem", pact[:12])["line"]
    shared.hears(now, lender.home)
    lender.act("grant", "hand-over", now[:12], "--engine", "skypilot", "--into", shared.folder / "help")
    shared.shows(lambda: picked(shared.held(pact), "pact", "redeemed"), [True, [50]])


def test_more_than_the_offer_has_is_not_granted(shared: OfferFederation) -> None:
    assert shared.loan
    free = 4 - sum(part["nodes"] for each in shared.seen["grants"] for part in each["allocations"])
    asked = shared.request(f"big:{free + 1}:10")
    assert shared.lender.refused("grant", "approve", asked[:12])["code"] == "OFFER-CAPACITY"
    assert shared.lender.act("grant", "reject", asked[:12], "--text", "in use")["schema"] == "comity.dev/rejected/v1"


@pytest.mark.long
def test_usage_that_both_signed_is_a_balance(shared: OfferFederation) -> None:
    redeemed = shared.borrower.act("grant", "redeem", shared.loan[:12], "--amount", "280")["line"]
    shared.hears(redeemed, shared.lender.home)
    shared.lender.act("grant", "hand-over", redeemed[:12], "--engine", "ssh", "--into", shared.folder / "note")
    begin = datetime.fromtimestamp(int(time.time()) // 3600 * 3600, UTC)
    used = shared.lender.act("grant", "report", shared.loan[:12], "--amount", "270", "--since", begin.isoformat(),
                           "--until", (begin + timedelta(days=1)).isoformat())["line"]  # fmt: skip

    def balances() -> list[tuple[str, int, int]]:
        found = shared.reader.comity("offer", "balance")["balances"]
        return [(each["accelerator"], each["claimed"], abs(each["net"])) for each in found]

    shared.hears(used, shared.borrower.home)
    shared.shows(balances, [("H100", 270, 0)])
    agreed = shared.borrower.act("grant", "agree", used[:12])["line"]
    shared.hears(agreed, shared.third)
    shared.shows(balances, [("H100", 0, 270)])


@pytest.mark.long
def test_a_default_is_public_with_both_sides(shared: OfferFederation) -> None:
    said = shared.borrower.act("grant", "default", shared.loan[:12], "--text", "no machine could be reached")["line"]
    shared.hears(said, shared.lender.home)
    answer = shared.lender.act("grant", "answer", said[:12], "--text", "the power failed")["line"]
    shared.hears(answer, shared.third)

    def words() -> list[str]:
        shown = shared.reader.comity("grant", "show", shared.loan[:12])["said"]
        return [next((each["text"] for each in shown if each["kind"] == kind), "") for kind in ("default", "answer")]

    shared.shows(words, ["no machine could be reached", "the power failed"])


def test_a_released_grant_returns_to_the_offer(shared: OfferFederation) -> None:
    (before,), left = shared.seen["remaining"], sum(shared.held(shared.loan)["left"])
    shared.borrower.act("grant", "release", shared.loan[:12], "--text", "done early")
    shared.reaches(shared.loan, "released")
    assert left > 0
    shared.shows(lambda: shared.seen["remaining"], [before + left])


@dataclass
class Evidence:
    """Hardware evidence of the offer, made by devices of an invented vendor."""

    shared: OfferFederation
    maker: hardware.Issuer
    gpus: list[hardware.Issuer]

    def challenge(self, chain: str) -> Document:
        file = self.shared.folder / "challenge.json"
        lender = self.shared.lender
        return lender.comity("offer", "challenge", chain[:12], "--dir", lender.home, "--out", file)

    def write(self, *devices: Device) -> tuple[str, ...]:
        """The arguments that log these devices for the newest challenge."""
        file = self.shared.folder / "gpus.json"
        file.write_bytes(hardware.gpu_list(*devices))
        challenge = self.shared.folder / "challenge.json"
        return "offer", "attest", "--challenge", str(challenge), "--evidence", str(file)

    def attest(self, chain: str, leaves: list[hardware.Issuer]) -> Document:
        nonce = bytes.fromhex(self.challenge(chain)["nonce"])
        devices = [hardware.gpu(self.maker, nonce, leaf=leaf) for leaf in leaves]
        return self.shared.lender.act(*self.write(*devices))

    def refused(self, *devices: Device) -> str:
        """Why the provider's own command does not log this."""
        error = self.shared.lender.refused(*self.write(*devices))
        assert error["code"] == "HARDWARE-UNTRUSTED", error
        return str(error["why"])

    def logged_unchecked(self, challenge: Document, *devices: Device) -> Document:
        """The offer as a reader sees it, once a provider without the command's check has logged these devices."""
        shared, evidence = self.shared, HardwareEvidence(devices)
        action = Attest(Digest(challenge["subject"]), challenge["size"], Digest(challenge["root"]), evidence.encode())
        (located,) = shared.ask(shared.lender.home, lambda node: node.offers.allocate(action))
        line, shown = sha256(located.line), list[Document]()

        def newest() -> bool:
            shown[:] = [shared.reader.comity("offer", "show", shared.chain[:12])]
            return bool(shown[0]["hardware"]) and shown[0]["hardware"][0]["line"] == line

        wait_for(newest, "evidence to be shown")
        return shown[0]

    def seen(self, chain: str, wanted: str, attested: int) -> Document:
        """The newest evidence, once a reader sees the offer in a state."""
        shown: list[Document] = []

        def there() -> bool:
            shown[:] = [self.shared.reader.comity("offer", "show", chain[:12])]
            found = shown[0]["attested"]
            return (found["state"], found["attested"]) == (wanted, attested)

        wait_for(there, f"the evidence to be {wanted}")
        return dict(shown[0]["hardware"][0])

    def listed(self, option: str) -> list[tuple[str, int, int]]:
        found = self.shared.reader.comity("offer", "ls", option)["offers"]
        return [(each["chain"], each["attested"]["attested"], each["attested"]["offered"]) for each in found]


def failed_rows(attestation: Document) -> list[str]:
    rows = [row for device in attestation["devices"] for row in device["rows"]]
    return [f"{row['name']}: {row['text']}" for row in rows if row["state"] == "fail"]


def test_attested_machines_are_counted_and_no_gpu_is_offered_twice(shared: OfferFederation) -> None:
    """Four GPUs of an offer of 32, then all; then one of them in a second offer. The reader asks a federation in which
    it has no seat, and pins the vendor's root by itself, from the vendor's chain file."""
    maker = hardware.vendor()
    made = Evidence(shared, maker, [hardware.gpu_leaf(maker) for _ in range(32)])
    attested = made.attest(shared.chain, made.gpus[:4])
    unpinned = made.seen(shared.chain, "claimed", 0)
    assert (unpinned["line"], len(unpinned["devices"])) == (attested["line"], 4)
    root = shared.folder / "root.pem"
    root.write_bytes(b"".join(each.certificate.public_bytes(Encoding.PEM) for each in (maker, maker.above[0])))
    shared.reader.comity("trust", "hardware", "pin", "nvidia-gpu", root, "--yes")
    partly = made.seen(shared.chain, "partly verified", 4)
    assert (partly["state"], partly["order"]["state"]) == ("verified", "pass")
    assert made.listed("--attested") == []
    assert made.listed("--partly-attested") == [(shared.chain, 4, 32)]
    assert "4 of 32 accelerators" in shared.reader.run("offer", "ls", "--partly-attested").stdout
    shown = shared.reader.run("offer", "show", shared.chain)
    assert "partly verified here, 4 of 32 accelerators attested" in shown.stdout + shown.stderr

    made.attest(shared.chain, made.gpus)
    made.seen(shared.chain, "verified", 32)
    assert made.listed("--attested") == [(shared.chain, 32, 32)]

    second = shared.another_offer()
    made.attest(second, made.gpus[:1])
    assert made.seen(second, "failed", 0)["also_in"] == [shared.chain]
    first = made.seen(shared.chain, "failed", 31)
    assert first["also_in"] == [second]
    assert failed_rows(first) == [f"device: also in offer {second}: it is offered twice"]
    assert made.listed("--partly-attested") == []
    assert made.refused(*(hardware.gpu(maker, bytes(32), leaf=leaf) for leaf in made.gpus[:1])).startswith("challenge")


def test_false_evidence_is_refused_with_its_reason(shared: OfferFederation) -> None:
    """By the provider's own command; and by a reader, where a provider without that check logged it."""
    maker = hardware.vendor()
    made = Evidence(shared, maker, [hardware.gpu_leaf(maker) for _ in range(2)])
    challenge = made.challenge(shared.chain)
    nonce = bytes.fromhex(challenge["nonce"])
    one, other = (hardware.gpu(maker, nonce, leaf=leaf) for leaf in made.gpus)
    switches = hardware.issue("NVIDIA LS_10 Provisioner ICA 1", maker.above[0])
    switch = hardware.gpu(switches, nonce, leaf=hardware.gpu_leaf(switches, "LS_10"))
    twin = replace(one, certificates=(hardware.twin(one.certificates[0]), *one.certificates[1:]))
    expected = {
        "kind: the certificates are of an NVLink switch (LS_10), not of a GPU": (switch,),
        "signature: GPU report refused: its signature does not verify: it was changed, or another device signed it": (
            replace(one, certificates=other.certificates),
        ),
        "device: the same device is stated twice": (one, twin),
        f"evidence: GPU report is malformed: 1 surplus byte follows its end at byte {len(one.report)}": (
            replace(one, report=one.report + b"\n"),
        ),
    }
    for why, devices in expected.items():
        assert made.refused(*devices) == why
    root = shared.folder / "second-root.pem"
    root.write_bytes(maker.above[0].certificate.public_bytes(Encoding.PEM))
    shared.reader.comity("trust", "hardware", "pin", "nvidia-gpu", root, "--yes")
    for why, devices in expected.items():
        shown = made.logged_unchecked(challenge, *devices)
        assert (shown["attested"]["state"], failed_rows(shown["hardware"][0])) == ("failed", [why])
    assert made.listed("--partly-attested") == []


def test_real_devices_are_shown_as_theirs_and_as_evidence_of_another_offer(shared: OfferFederation) -> None:
    """A provider logs samples of five devices, which signed challenges of their own."""
    made = Evidence(shared, hardware.vendor(), [])
    for kind, name in real_hardware.ROOTS.items():
        file = shared.folder / name
        file.write_bytes(real_hardware.sample(name))
        shared.reader.comity("trust", "hardware", "pin", kind, file, "--yes")
    shown = made.logged_unchecked(
        made.challenge(shared.chain),
        real_hardware.real_snp(),
        real_hardware.real_quote(4),
        real_hardware.real_quote(5),
        real_hardware.real_gpu("hopper"),
        real_hardware.real_gpu("blackwell"),
    )
    devices = shown["hardware"][0]["devices"]
    rows = [{row["name"]: row["state"] for row in device["rows"]} for device in devices]
    assert [{each[name] for name in ("chain", "kind", "signature")} for each in rows] == [{"pass"}] * 5
    failed = [{name for name, state in each.items() if state == "fail"} for each in rows]
    other_gpu = {"challenge", "offer"}  # the offer has H100, and this is another model
    assert failed == [{"challenge", "isolation"}, {"challenge"}, {"challenge"}, {"challenge"}, other_gpu]
    assert shown["attested"]["state"] == "failed"
