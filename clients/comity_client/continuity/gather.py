"""Checks a continuity plan: gathers the facts on which it is judged, each from its one home, and judges them.

What the nodes say of a kit is in `kit_facts`. Offers, grants and pacts are read from their chains (`offers.views`), and
checks and drills from what is kept on this machine. What nobody answers is unknown, and is a link that does not hold.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from comity.bounded_file import read_bounded
from comity.rules.continuity.check import PlanChecked, check_plan
from comity.rules.continuity.facts import (
    AgreedFacts,
    FallbackFacts,
    GatheredFacts,
    PastCheck,
    PastDrill,
    PlanSignature,
    PolicyState,
)
from comity.rules.continuity.links import LINK_KINDS, Link
from comity.rules.continuity.plan import AgreedMachines, ContinuityPlan, Fallback, PlanStatement, Service
from comity.rules.copy_counts import Holder, parties_of
from comity.rules.offers.offer import Offer
from comity.rules.offers.records import Default
from comity.rules.parties import HARDWARE_ROOT
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound, PolicyNotMet, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.key_validity import compromise_notices
from comity.trust.places import declared_reach
from comity.trust.policy import Policy
from comity.trust.policy_file import MAX_POLICY_BYTES
from comity.trust.statement_kinds import CONTINUITY_PLAN
from comity.wire.found import Lookup

from comity_client.continuity.kit_facts import ReadLock, kit_facts
from comity_client.evidence.inquiry import Inquiry
from comity_client.offers.offer_client import FoundChain, OfferClient
from comity_client.offers.views import ChainView, statements_about
from comity_client.session import Session
from comity_client.signature_files import FileSignature, known_signer, read_signature
from comity_client.user import User

SIGN: Final = "comity continuity sign FILE"


def policy_state(plan: ContinuityPlan, file: Path) -> PolicyState:
    """Whether the policy beside the plan is the one that it names."""
    if plan.policy is None:
        return "none"
    try:
        data = read_bounded(file.parent / plan.policy.name, MAX_POLICY_BYTES)
    except (NotFound, Malformed):
        return "missing"
    return "same" if sha256(data) == plan.policy.sha256 else "changed"


class PastTries(Protocol):
    """What was tried on this machine, as it is kept there. Both methods block, and raise Malformed, Unavailable."""

    def check(self, kit: Digest) -> PastCheck | None:
        """The last check of the kit whose `kit.json` has this digest."""

    def drill(self, service: str, artifact: Digest) -> PastDrill | None:
        """The last drill of a service with this kit."""


@frozen
class ContinuityChecker:
    """Checks one plan, `file`, for one user; `policy` judges the kits. `past` has what was tried on this machine,
    and `read_lock` reads the locks of kits."""

    user: User
    offers: OfferClient
    file: Path
    plan: ContinuityPlan
    policy: Policy
    past: PastTries
    read_lock: ReadLock

    def check(self) -> PlanChecked:
        """Gather all facts, and judge. Raises Unavailable if no node of the pinned federations answers."""
        now = int(time.time())
        facts = self.user.run(lambda session: self._in_session(session, now), ahead=True)
        fallbacks = {
            service.name: tuple(
                replace(found, agreed=self._agreed(service, fallback, now))
                for fallback, found in zip(service.fallbacks, facts.fallbacks[service.name], strict=True)
            )
            for service in self.plan.services
        }
        return check_plan(self.plan, replace(facts, fallbacks=fallbacks), str(self.file))

    def links(self, service: Service, fallback: Fallback) -> tuple[Link, ...]:
        """The links of the plan, of one service and of one of its fallbacks. Raises as `check` does."""
        alone = replace(self.plan, services=(replace(service, fallbacks=(fallback,)),))
        (checked,) = replace(self, plan=alone).check().services
        return (*checked.links, *checked.fallbacks[0].links)

    async def _in_session(self, session: Session, now: int) -> GatheredFacts:
        session.require_nodes()
        signature = await self._signature(session)
        fallbacks = {
            service.name: tuple([await self._fallback(session, service, each, now) for each in service.fallbacks])
            for service in self.plan.services
        }
        if all(found.silent for each in fallbacks.values() for found in each):
            raise Unavailable(LINK_KINDS["nodes-silent"].means, hint="comity status", code="UNREACHABLE")
        return GatheredFacts(now, signature, fallbacks)

    async def _fallback(self, session: Session, service: Service, fallback: Fallback, now: int) -> FallbackFacts:
        silent = False
        try:
            kit = await kit_facts(self.user, session, fallback, self.policy, now, self.read_lock)
        except Unavailable:
            kit, silent = None, True
        described = kit.description if kit is not None else None
        check = await asyncio.to_thread(self.past.check, described) if described is not None else None
        drill = await asyncio.to_thread(self.past.drill, service.name, fallback.kit.artifact)
        return FallbackFacts(kit, silent, check, drill)

    async def _signature(self, session: Session) -> PlanSignature:
        policy = policy_state(self.plan, self.file)
        try:
            signature = await asyncio.to_thread(read_signature, self.file, CONTINUITY_PLAN, SIGN)
            said = PlanStatement.parse(signature.entry.statement)
        except NotFound:
            return PlanSignature("unsigned", policy=policy)
        except (Malformed, Untrusted) as error:
            return PlanSignature("invalid", error.why or error.what, policy=policy)
        same = (said.plan, said.until) == (self.plan.digest, self.plan.ends)
        lost = await self._lost(session, signature)
        return PlanSignature("valid" if same else "other file", lost, said.by, bool(lost), policy)

    async def _lost(self, session: Session, signature: FileSignature) -> str:
        """Why the keys that signed the plan do not count: a rotation that this user pinned, or what the owner reports
        at nodes; empty if they count."""
        owner = signature.signer.id
        try:
            known_signer(signature, owner, (), (), self.user.trust_store().bindings())
        except PolicyNotMet as error:
            return error.why
        inquiry = Inquiry(session, self.policy)
        answers = await inquiry.ask_for(Lookup.about(owner, (owner,)))
        entries, _ = inquiry.chosen(answers.proven, (owner,))
        claims = read_claims([entry.line for entry in entries], owner, session.reader)
        notices = compromise_notices(claims, owner, signature.chain, signature.entry.envelope)
        return "its owner reports at nodes that the key was lost" if notices else ""

    def _agreed(self, service: Service, fallback: Fallback, now: int) -> AgreedFacts | None:
        """The machines of somebody else; None if no node knows the record, or the fallback has its own."""
        machines = fallback.machines
        if not isinstance(machines, AgreedMachines):
            return None
        try:
            if machines.record == "offer":
                found = self.offers.offer(machines.digest)
                return self._offered(found.view, self._roots(service, found, now))
            grant = self.offers.grant(machines.digest)
        except (NotFound, Unavailable):
            return None
        view, state = grant.view, grant.grant_state
        found = FoundChain(view, (), provider_answers=False)
        said = (each.statement for each in statements_about(view))
        allocated = state.grant.allocations
        return replace(
            self._offered(view, self._roots(service, found, now), {each.slice for each in allocated}),
            state=state.state,
            grantee=state.grant.grantee,
            start=min(each.start for each in allocated),
            end=max(each.end for each in allocated),
            left=any(state.left),
            defaulted=any(isinstance(each, Default) and each.grant == state.digest for each in said),
        )

    def _roots(self, service: Service, found: FoundChain, now: int) -> tuple[str, ...] | None:
        """The vendors under whose roots the machines are attested; they are asked only where the plan must survive
        one."""
        if not any(party.kind == HARDWARE_ROOT for party in service.must_survive):
            return ()
        try:
            hardware = self.offers.attestations([found], now)[found.view.state.chain]
        except (NotFound, Unavailable):
            return None
        kinds = {device.kind for each in hardware.attestations for device in each.devices}
        return tuple(sorted({kind.partition("-")[0] for kind in kinds}))

    def _offered(
        self, view: ChainView, attested: tuple[str, ...] | None, slices: set[str] | None = None
    ) -> AgreedFacts:
        offer = view.offer
        parts = [part for part in offer.slices if slices is None or part.name in slices]
        provider = self.offers.identities()
        return AgreedFacts(
            status=view.status,
            why=view.why,
            withdrawn=view.state.withdrawn,
            state="",
            grantee=None,
            start=offer.window.start,
            end=offer.window.end,
            left=any(view.state.remaining),
            memory=max((part.ram_gib for part in parts), default=0) << 30,
            disk=max((part.disk_gib for part in parts), default=0) << 30,
            accelerators=max((part.count for part in parts), default=0),
            provider=provider.name(offer.provider),
            parties=parties_of(_lender(view, offer)),
            attested=attested,
        )


def _lender(view: ChainView, offer: Offer) -> Holder:
    """The lender as a holder of machines: what takes the machines takes a copy there, too. Its reach is what the offer
    states, and what the record of its node declares."""
    location = offer.location
    own = declared_reach(view.provider.member.jurisdiction, view.provider.record.place) if view.provider else ()
    seat = view.provider.member.jurisdiction if view.provider else location.jurisdiction
    reach = tuple(sorted({location.jurisdiction, *location.legal_reach, *own}))
    return Holder(offer.provider, seat, False, reach, location.cloud_parent)
