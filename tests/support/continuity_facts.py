"""The facts of `support.continuity.PLAN` when everything holds, to take one away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from comity.rules.continuity.check import PlanChecked, ServiceChecked, check_plan
from comity.rules.continuity.facts import (
    AgreedFacts,
    FallbackFacts,
    GatheredFacts,
    JudgedKit,
    KitContents,
    KitCopy,
    KitFacts,
    ParentWeights,
    PastCheck,
    PastDrill,
    PlanSignature,
    StatedApproval,
    StatedResult,
)
from comity.rules.continuity.plan import ContinuityPlan, parse_plan
from comity.rules.copy_counts import Holder
from comity.trust.encoding import Digest
from support.continuity import PLAN
from support.kits import a_kit

DAY: Final = 86_400
NOW: Final = 1_796_000_000
OWNER: Final = Digest("51" * 32)
OFFICER: Final = Digest("3c" * 32)
WEIGHTS: Final = Digest("aa" * 32)
THE_PLAN: Final = parse_plan(PLAN.encode())


def a_copy(node: str, member: str, seat: str, *reach: str, **changes: Any) -> KitCopy:
    holder = Holder(Digest(member * 32), seat, True, tuple(sorted({seat, *reach})) if reach else ())
    return replace(KitCopy(node, holder, NOW - DAY, failed=False, answers=True, numeric=True), **changes)


OUTSIDE: Final = (a_copy("node-ch", "c1", "CH", "CH"), a_copy("node-es", "e5", "ES", "ES"))
INSIDE: Final = a_copy("node-us", "d5", "US", "US")


def a_drill(**changes: Any) -> PastDrill:
    cut_off = tuple(party for service in THE_PLAN.services for party in service.must_survive)
    return replace(PastDrill(True, NOW - 10 * DAY, 95, "", THE_PLAN.digest, cut_off), **changes)


def some_kit_facts(**changes: Any) -> KitFacts:
    whole = KitFacts(
        judged=JudgedKit("accepted"),
        contents=KitContents(a_kit()),
        weights=(ParentWeights("org/tiny@v1", WEIGHTS, ()),),
        results=(StatedResult(OWNER, "letters", "pass_rate", "0.95", NOW - 30 * DAY, "first"),),
        approvals=(StatedApproval(OFFICER, "ministry-interior", NOW - DAY, NOW + 100 * DAY),),
        copies=(*OUTSIDE, INSIDE),
    )
    return replace(whole, **changes)


def some_facts(**changes: Any) -> FallbackFacts:
    whole = FallbackFacts(some_kit_facts(), False, PastCheck("passed", NOW - DAY, NOW - DAY), a_drill())
    return replace(whole, **changes)


def a_pact(**changes: Any) -> AgreedFacts:
    whole = AgreedFacts(
        status="proven",
        why="",
        withdrawn=False,
        state="accepted",
        grantee=OWNER,
        start=NOW - DAY,
        end=NOW + 100 * DAY,
        left=True,
        memory=64 << 30,
        disk=500 << 30,
        accelerators=8,
        provider="Example Institute (CH)",
        parties=(),
    )
    return replace(whole, **changes)


def all_facts(first: FallbackFacts, second: FallbackFacts | None = None, **changes: Any) -> GatheredFacts:
    """The facts of both services; those of the second fallback of the first service: nothing is known."""
    fallbacks = {"chat": (first, second or FallbackFacts(None)), "search": (some_facts(),)}
    return replace(GatheredFacts(NOW, PlanSignature("valid", "", OWNER, policy="same"), fallbacks), **changes)


def checked(facts: GatheredFacts, plan: ContinuityPlan = THE_PLAN) -> PlanChecked:
    return check_plan(plan, facts)


def chat(first: FallbackFacts, plan: ContinuityPlan = THE_PLAN, **changes: Any) -> ServiceChecked:
    """The service `chat` with these facts of its first fallback, and nothing known of its second."""
    return checked(all_facts(first, **changes), plan).services[0]
