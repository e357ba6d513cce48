"""A plan whose machines are an offer, a grant and a pact of a real node: each is found, and what ends it is named."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from comity.rules.continuity.drill_report import DrillReport
from comity.rules.continuity.links import GREEN, LINK_KINDS, Link
from comity.rules.offers.offer import Terms
from comity.trust.encoding import Digest
from comity.trust.errors import Refused
from comity.trust.keys import HybridSigner
from comity.trust.statement import Entry
from comity.wire.offer import Redeem, Withdraw
from comity_cli.commands.continuity_plan import checker_of
from comity_client.client import Client
from comity_client.continuity import gather
from comity_client.continuity.drill import order_drill, rehearse
from comity_client.continuity.plan_files import read_plan
from comity_client.home import Home
from comity_client.identity_signer import IdentitySigner
from comity_client.offers.pact_drill import DeclaredDrill
from comity_client.publishers import Publisher
from support.federation import Founded, found, serving, until
from support.offer_commands import Borrower, Lender, reaches
from support.offers import HOUR, START, hours
from support.publisher import Publisher as Keys

DAYS = 24
ENDS = START + 240 * HOUR
PLAN = """\
schema = "comity/continuity-plan/v1"
owner = "{owner}"
name = "Ministry"
until = 2999-12-31
"""
SERVICE = """\
[[service]]
name = "{record}"
in_use = {{ kind = "external", vendor = "Example AI Inc.", jurisdiction = "US" }}
must_survive = ["{party}"]
longest_outage = 60
[[service.fallback]]
kit = {{ name = "lab/chat@v1", artifact = "{digest}" }}
machines = {{ {record} = "{digest}" }}
copies = {{ outside = 1, tested_within_days = 7 }}
checked_within_days = 7
drilled_within_days = 90
"""


@dataclass
class Ministry:
    """The owner of a plan, whose clock is `now`, and who borrows from a node."""

    client: Client
    owner: Publisher
    folder: Path
    clock: SimpleNamespace

    @property
    def borrower(self) -> Borrower:
        signer = self.owner.signer()
        assert isinstance(signer, HybridSigner)
        return Borrower(Keys(signer, self.owner.inception, self.owner.line))

    def plan(self, party: str = "reach:US", **records: Digest) -> None:
        services = (SERVICE.format(record=name, digest=digest, party=party) for name, digest in records.items())
        (self.folder / "plan.toml").write_text(PLAN.format(owner=self.owner.id) + "".join(services))

    async def machines(self, at: int = START + HOUR) -> dict[str, set[str]]:
        """Of each service, the kinds of the links about machines that do not hold at a time."""
        self.clock.time = lambda: at
        checked = await asyncio.to_thread(checker_of(self.client, self.folder / "plan.toml", None).check)
        return {
            each.service.name: {
                link.kind for link in each.fallbacks[0].links if link.subject == "machines" and link.state != GREEN
            }
            for each in checked.services
        }

    async def proven(self) -> bool:
        return not any("record-unproven" in kinds for kinds in (await self.machines()).values())

    async def lapsed(self) -> bool:
        return "grant-lapsed" in (await self.machines())["grant"]

    async def drill(self, service: str, at: int) -> DrillReport:
        """A drill of a service at a time."""
        self.clock.time = lambda: at
        file = self.folder / "plan.toml"

        def judge(cut: Client) -> tuple[Link, ...]:
            return checker_of(cut, file, None).links(order.service, order.chosen)

        order = order_drill(read_plan(file), service, 1, judge)
        return await asyncio.to_thread(
            lambda: rehearse(self.client, order, on_phase=lambda phase: None, on_event=lambda event: None)
        )


@pytest.fixture
def founded(tmp_path: Path) -> Founded:
    return found(tmp_path / "nodes", 1)


@pytest.fixture
def ministry(tmp_path: Path, founded: Founded, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ministry]:
    clock = SimpleNamespace(time=lambda: START + HOUR)
    monkeypatch.setattr(gather, "time", clock)
    client = Client(Home(tmp_path / "home"))
    client.pin(founded.federation.encode())
    owner = client.new_publisher("Ministry", "ES", founded.homes[0].origin)
    yield Ministry(client, owner, tmp_path, clock)


async def granted(lender: Lender, borrower: Borrower, offer: Digest, *, pact: bool, accepted: bool = True) -> Entry:
    """A grant or pact of the whole window."""
    asked = borrower.request(offer, hours(0, 240, amount=100), pact=pact)
    await borrower.submit(lender.home, asked)
    await reaches(lender.home, asked, "requested")
    grant = await lender.approve(asked.digest)
    await reaches(lender.home, asked, "granted")
    if accepted:
        await borrower.submit(lender.home, borrower.accept(grant))
        await reaches(lender.home, asked, "accepted")
    return grant


@pytest.mark.slow
async def test_machines_of_an_offer_a_grant_and_a_pact_are_found_until_each_ends(
    founded: Founded, ministry: Ministry
) -> None:
    (home,) = founded
    lender, borrower = Lender(home), ministry.borrower
    async with serving(home, clock=lambda: float(START)):
        offer = await lender.post()
        grant = await granted(lender, borrower, offer, pact=False)
        pact = await granted(lender, borrower, offer, pact=True)
        ministry.plan(offer=offer, grant=grant.digest, pact=pact.digest)
        await until(ministry.proven, what="the records to be under a cosigned checkpoint")
        soon = {"grant-ends-soon"}
        assert await ministry.machines() == {"offer": {"offer-only", *soon}, "grant": soon, "pact": soon}
        assert await ministry.machines(ENDS - 40 * DAYS * HOUR) == {
            "offer": {"offer-only", "grant-not-begun"}, "grant": {"grant-not-begun"}, "pact": {"grant-not-begun"},
        }  # fmt: skip
        over = {"grant-over"}
        assert await ministry.machines(ENDS) == {"offer": {"offer-only", *over}, "grant": over, "pact": over}
        report = await ministry.drill("pact", ENDS)
        assert [each.phase for each in report.phases] == ["cut", "plan", "restore"]
        assert report.link == "kit-unknown" and "grant-over" in report.reason
        assert LINK_KINDS["grant-over"].means in {each.said.partition(":")[0] for each in report.findings}
        ministry.plan("reach:CH", offer=offer, pact=pact.digest)
        taken = await ministry.machines()
        assert all("provider-in-reach" in each for each in taken.values())
        ministry.plan(offer=offer, grant=grant.digest, pact=pact.digest)
        await borrower.submit(home, borrower.default(pact, "nobody opened the door"))
        await lender.act(Withdraw(offer, "no more"))
        await borrower.submit(home, borrower.give_back(grant))
        await until(ministry.lapsed, what="the grant to be given back")
        ended = await ministry.machines()
        assert "withdrawn-offer" in ended["offer"] and "grant-lapsed" in ended["grant"]
        assert "grant-defaulted" in ended["pact"]
        ministry.plan(offer=Digest("ab" * 32), pact=Digest("cd" * 32))
        unknown = {"record-unknown"}
        assert await ministry.machines() == {"offer": unknown, "pact": unknown}


async def test_a_pact_that_is_declared_in_a_drill_is_not_redeemable_and_its_end_is_logged(
    founded: Founded, ministry: Ministry
) -> None:
    (home,) = founded
    lender, borrower = Lender(home), ministry.borrower
    async with serving(home, clock=lambda: float(START)):
        offer = await lender.post(terms=Terms())
        pact = await granted(lender, borrower, offer, pact=True)
        declared = DeclaredDrill(pact.digest, IdentitySigner.of_publisher(ministry.owner))
        assert "marked as a drill" in await asyncio.to_thread(declared.begin, ministry.client.offers())
        seen = await asyncio.to_thread(ministry.client.offers().grant, pact.digest)
        redemption = borrower.redeem(pact, seen.grant_state.newest, 10)
        await borrower.submit(home, redemption)
        with pytest.raises(Refused):
            await lender.act(Redeem(redemption.digest))
        assert "has ended" in await asyncio.to_thread(declared.end)
        stranger = ministry.client.new_publisher("Somebody else", "ES", home.origin)
        other = DeclaredDrill(pact.digest, IdentitySigner.of_publisher(stranger))
        with pytest.raises(Refused) as refused:
            await asyncio.to_thread(other.begin, ministry.client.offers())
        assert refused.value.code == "NOT-YOURS" and await asyncio.to_thread(other.end) == "nothing was declared"
