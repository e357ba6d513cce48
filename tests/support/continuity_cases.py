"""Each link of a plan taken away in turn: the facts of a plan of which everything else holds, by the link's kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from comity.rules.continuity.facts import (
    FallbackFacts,
    JudgedKit,
    KitContents,
    KitWarning,
    ParentWeights,
    PastCheck,
    PlanSignature,
    StatedApproval,
    StatedResult,
)
from comity.rules.continuity.plan import AgreedMachines, ContinuityPlan, OwnMachine, parse_plan
from comity.rules.kits.description import KitNeeds
from comity.rules.parties import Party
from comity.trust.encoding import Digest
from support.continuity import PLAN
from support.continuity_facts import (
    DAY,
    INSIDE,
    NOW,
    OFFICER,
    OUTSIDE,
    OWNER,
    THE_PLAN,
    WEIGHTS,
    a_copy,
    a_drill,
    a_pact,
    some_facts,
    some_kit_facts,
)
from support.kits import ENGINE, a_kit

OTHER: Final = Digest("99" * 32)


def kit(**changes: Any) -> FallbackFacts:
    return some_facts(kit=some_kit_facts(**changes))


def contents(**changes: Any) -> FallbackFacts:
    return kit(contents=replace(KitContents(a_kit()), **changes))


def warned(kind: str, weight: Any = "publisher") -> FallbackFacts:
    return kit(warnings=(KitWarning(kind, "somebody", weight),))


def weights(*warnings: KitWarning) -> FallbackFacts:
    return kit(weights=(ParentWeights("org/tiny@v1", WEIGHTS, warnings),))


def result(**changes: Any) -> FallbackFacts:
    said = StatedResult(OWNER, "letters", "pass_rate", "0.95", NOW - 30 * DAY, "first")
    return kit(results=(replace(said, **changes),))


def approval(since: int, until: int, **changes: Any) -> FallbackFacts:
    said = StatedApproval(OFFICER, "ministry-interior", NOW + since * DAY, NOW + until * DAY)
    return kit(approvals=(replace(said, **changes),))


def past(state: Any, days: int) -> FallbackFacts:
    return some_facts(check=PastCheck(state, NOW - days * DAY, NOW - days * DAY if state == "passed" else None))


def drilled(**changes: Any) -> FallbackFacts:
    return some_facts(drill=a_drill(**changes))


def signed(**changes: Any) -> dict[str, Any]:
    return {"signature": replace(PlanSignature("valid", "", OWNER, policy="same"), **changes)}


def with_parties(*parties: Party) -> ContinuityPlan:
    first = replace(THE_PLAN.services[0], must_survive=(*THE_PLAN.services[0].must_survive, *parties))
    return replace(THE_PLAN, services=(first, *THE_PLAN.services[1:]))


def on_machines(machines: Any, *parties: Party) -> ContinuityPlan:
    plan = with_parties(*parties)
    fallback = replace(plan.services[0].fallbacks[0], machines=machines)
    first = replace(plan.services[0], fallbacks=(fallback, *plan.services[0].fallbacks[1:]))
    return replace(plan, services=(first, *plan.services[1:]))


PACT: Final = on_machines(AgreedMachines("pact", Digest("ab" * 32)))
OFFER: Final = on_machines(AgreedMachines("offer", Digest("ab" * 32)))
ROOT: Final = on_machines(AgreedMachines("pact", Digest("ab" * 32)), Party("hardware-root", "nvidia"))
SMALL: Final = on_machines(OwnMachine(1 << 29, 1 << 30, 0, "linux/x86_64"))
ARM: Final = on_machines(OwnMachine(8 << 30, 20 << 30, 0, "linux/aarch64"))
HUGE: Final = contents(kit=a_kit(needs=KitNeeds(1 << 30, 1 << 20, 16, "H100")))
OVER: Final = replace(THE_PLAN, until=parse_plan(PLAN.replace("2027-06-30", "2020-01-01").encode()).until)
NO_REACH: Final = with_parties()
UNDECLARED: Final = a_copy("node-xx", "f0", "FR")


def lent(**changes: Any) -> FallbackFacts:
    cut_off = (*a_drill().cut_off, Party("hardware-root", "nvidia"))
    return some_facts(agreed=a_pact(**changes), drill=a_drill(cut_off=cut_off))


def url_kit() -> Any:
    return a_kit(engine=replace(ENGINE, environment={"BASE": "https://hub.example"}))


def moved(days: int) -> dict[str, Any]:
    """At so many days before the end of the plan: older facts would be stale, so they are younger too."""
    return {"at": THE_PLAN.ends - days * DAY}


CASES: Final[list[tuple[str, FallbackFacts, ContinuityPlan, dict[str, Any]]]] = [
    ("plan-unsigned", some_facts(), THE_PLAN, signed(state="unsigned", signer=None)),
    ("plan-changed", some_facts(), THE_PLAN, signed(state="other file")),
    ("plan-signature-invalid", some_facts(), THE_PLAN, signed(state="invalid", signer=None)),
    ("plan-signer-other", some_facts(), THE_PLAN, signed(signer=OTHER)),
    ("plan-key-lost", some_facts(), THE_PLAN, signed(lost=True)),
    ("plan-over", some_facts(), OVER, {}),
    ("plan-ends-soon", some_facts(), THE_PLAN, moved(20)),
    ("policy-missing", some_facts(), THE_PLAN, signed(policy="missing")),
    ("policy-changed", some_facts(), THE_PLAN, signed(policy="changed")),
    ("vendor-not-covered", some_facts(), parse_plan(PLAN.replace('["reach:US", ', "[").encode()), {}),
    ("kit-unknown", some_facts(kit=None), THE_PLAN, {}),
    ("nodes-silent", some_facts(kit=None, silent=True), THE_PLAN, {}),
    ("kit-refused", kit(judged=JudgedKit("refused", "licence")), THE_PLAN, {}),
    ("kit-unproven", kit(judged=JudgedKit("unproven", "cosigners")), THE_PLAN, {}),
    ("kit-withdrawn", warned("yank"), THE_PLAN, {}),
    ("kit-superseded", warned("superseded"), THE_PLAN, {}),
    ("kit-malware", warned("malware", "member"), THE_PLAN, {}),
    ("kit-vulnerable", warned("vulnerability", "member"), THE_PLAN, {}),
    ("kit-vulnerable", warned("yank", "member"), THE_PLAN, {}),
    ("kit-warned", warned("malware", "other"), THE_PLAN, {}),
    ("publisher-key-lost", kit(key_lost="the laptop is gone"), THE_PLAN, {}),
    ("not-a-kit", kit(contents=KitContents(None)), THE_PLAN, {}),
    ("kit-unreadable", kit(contents=KitContents(None, "not JSON")), THE_PLAN, {}),
    ("contents-unread", kit(contents=None), THE_PLAN, {}),
    ("parts-wrong", contents(problems=("wheels/a.whl is missing",)), THE_PLAN, {}),
    ("parts-wrong", contents(problems=("a has the digest b, not c", "d is no part")), THE_PLAN, {}),
    ("package-index-in-the-way", contents(lock=("line 3 has no hash",)), THE_PLAN, {}),
    ("lock-unread", contents(lock=None), THE_PLAN, {}),
    ("address-in-the-way", contents(kit=url_kit()), THE_PLAN, {}),
    ("weights-withdrawn", weights(KitWarning("yank", "its publisher", "publisher")), THE_PLAN, {}),
    ("weights-withdrawn", weights(KitWarning("malware", "a member", "member")), THE_PLAN, {}),
    ("weights-warned", weights(KitWarning("vulnerability", "a member", "member")), THE_PLAN, {}),
    ("weights-unknown", kit(weights=(ParentWeights("", WEIGHTS, None),)), THE_PLAN, {}),
    ("never-checked", some_facts(check=None), THE_PLAN, {}),
    ("check-failed", past("failed", 1), THE_PLAN, {}),
    ("check-partial", past("partial", 1), THE_PLAN, {}),
    ("check-stale", past("passed", 8), THE_PLAN, {}),
    ("evaluation-missing", kit(results=()), THE_PLAN, {}),
    ("evaluation-missing", kit(results=None), THE_PLAN, {}),
    ("evaluation-missing", result(suite="other"), THE_PLAN, {}),
    ("evaluation-by-other", result(by=OTHER), THE_PLAN, {}),
    ("evaluation-below", result(value="0.8999"), THE_PLAN, {}),
    ("evaluation-not-first", result(order="after"), THE_PLAN, {}),
    ("evaluation-not-first", result(order="none"), THE_PLAN, {}),
    ("evaluation-unproven", result(order="unproven"), THE_PLAN, {}),
    ("evaluation-old", result(at=NOW - 181 * DAY), THE_PLAN, {}),
    ("approval-missing", kit(approvals=()), THE_PLAN, {}),
    ("approval-missing", kit(approvals=None), THE_PLAN, {}),
    ("approval-missing", approval(-1, 100, by=OTHER), THE_PLAN, {}),
    ("approval-missing", approval(-1, 100, scope="another-ministry"), THE_PLAN, {}),
    ("approval-missing", approval(1, 100), THE_PLAN, {}),
    ("approval-missing", kit(approvals_short="its keys were lost"), THE_PLAN, {}),
    ("ended-approval", approval(-9, -1, ended=True), THE_PLAN, {}),
    ("approval-over", approval(-9, -1), THE_PLAN, {}),
    ("approval-ends-soon", approval(-9, 13), THE_PLAN, {}),
    ("machines-too-small", some_facts(), SMALL, {}),
    ("machines-too-small", lent(memory=1 << 29), PACT, {}),
    ("machines-too-small", HUGE, THE_PLAN, {}),
    ("platform-other", some_facts(), ARM, {}),
    ("record-unknown", some_facts(), PACT, {}),
    ("record-unproven", lent(status="claimed", why="no proof"), PACT, {}),
    ("record-unproven", lent(status="convicted", why="two records"), PACT, {}),
    ("withdrawn-offer", lent(withdrawn=True), OFFER, {}),
    ("offer-only", lent(), OFFER, {}),
    ("grant-lapsed", lent(state="lapsed"), PACT, {}),
    ("grant-lapsed", lent(state="released"), PACT, {}),
    ("grant-not-accepted", lent(state="granted"), PACT, {}),
    ("grant-of-other", lent(grantee=OTHER), PACT, {}),
    ("grant-over", lent(end=NOW), PACT, {}),
    ("grant-not-begun", lent(start=NOW + 1), PACT, {}),
    ("grant-used-up", lent(left=False), PACT, {}),
    ("grant-ends-soon", lent(end=NOW + 29 * DAY), PACT, {}),
    ("grant-defaulted", lent(defaulted=True), PACT, {}),
    ("provider-in-reach", lent(parties=(Party("reach", "US"),)), PACT, {}),
    ("hardware-root", lent(attested=("amd", "nvidia")), ROOT, {}),
    ("hardware-unknown", lent(attested=None), ROOT, {}),
    ("copies-unknown", kit(copies=None), THE_PLAN, {}),
    ("copies-none", kit(copies=()), THE_PLAN, {}),
    ("copies-inside", kit(copies=(INSIDE,)), THE_PLAN, {}),
    ("copies-inside", kit(copies=(INSIDE, UNDECLARED)), THE_PLAN, {}),
    ("copies-few", kit(copies=(OUTSIDE[0], INSIDE)), THE_PLAN, {}),
    ("copies-few", kit(copies=(OUTSIDE[0], replace(OUTSIDE[0], node="node-2"))), THE_PLAN, {}),
    ("copies-silent", kit(copies=tuple(replace(each, answers=False) for each in OUTSIDE)), THE_PLAN, {}),
    ("copy-silent", kit(copies=(OUTSIDE[0], replace(OUTSIDE[1], answers=False))), THE_PLAN, {}),
    ("copy-failed", kit(copies=(*OUTSIDE, replace(INSIDE, failed=True))), THE_PLAN, {}),
    ("copies-untested", kit(copies=(OUTSIDE[0], replace(OUTSIDE[1], tested=NOW - 8 * DAY))), THE_PLAN, {}),
    ("copies-untested", kit(copies=(OUTSIDE[0], replace(OUTSIDE[1], tested=None))), THE_PLAN, {}),
    ("dns-in-the-way", kit(copies=tuple(replace(each, numeric=False) for each in OUTSIDE)), THE_PLAN, {}),
    ("never-drilled", some_facts(drill=None), THE_PLAN, {}),
    ("drill-failed", drilled(passed=False, answered=None, reason="the engine did not start"), THE_PLAN, {}),
    ("drill-slow", drilled(answered=3601), THE_PLAN, {}),
    ("drill-stale", drilled(at=NOW - 91 * DAY), THE_PLAN, {}),
    ("drill-narrow", drilled(cut_off=(Party("reach", "US"),)), THE_PLAN, {}),
]  # fmt: skip
