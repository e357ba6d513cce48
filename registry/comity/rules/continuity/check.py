"""What of a continuity plan holds: facts in, links out. Pure.

A fallback is as good as its worst link. A service is green if its first fallback is; amber if that one is amber or a
later one works; red if none does. What is wrong with the plan itself is wrong with each of its services.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final, TypeAlias

from comity.rules.continuity.facts import (
    AgreedFacts,
    Basis,
    FallbackFacts,
    GatheredFacts,
    KitCopy,
    KitFacts,
    KitWarning,
    PastCheck,
    PastDrill,
    PlanSignature,
    StatedResult,
)
from comity.rules.continuity.links import (
    AMBER,
    GREEN,
    LINK_KINDS,
    RED,
    STATES,
    Link,
    State,
    describe_link,
    worst,
)
from comity.rules.continuity.plan import (
    AgreedMachines,
    ContinuityPlan,
    DemandedApproval,
    DemandedEvaluation,
    ExternalService,
    Fallback,
    OwnMachine,
    Service,
)
from comity.rules.copy_counts import parties_of
from comity.rules.kits.description import Kit
from comity.rules.offers.chain import LAPSED, RELEASED
from comity.rules.parties import DNS, HARDWARE_ROOT, JURISDICTION, REACH, Party
from comity.trust.encoding import Digest, format_time, short
from comity.trust.frozen import frozen

DAY: Final = 86_400
PLAN_SOON: Final = 30
"""Days before the end of a plan, or of machines that somebody lends, from which on it is amber."""
APPROVAL_SOON: Final = 14
_ADDRESSES: Final = ("http://", "https://", "ftp://")


@frozen
class FallbackChecked:
    """A fallback; `number` counts from 1. `minutes` is what the last drill took to the first verified answer."""

    number: int
    fallback: Fallback
    state: State
    links: tuple[Link, ...]
    minutes: int | None


@frozen
class ServiceChecked:
    """A service. `links` are those of the plan and of the service itself."""

    service: Service
    state: State
    links: tuple[Link, ...]
    fallbacks: tuple[FallbackChecked, ...]

    @property
    def chosen(self) -> FallbackChecked:
        """The fallback that would be used: the first that is not red, else the first."""
        return next((each for each in self.fallbacks if each.state != RED), self.fallbacks[0])

    @property
    def problems(self) -> tuple[Link, ...]:
        """What is not green: the plan's, then that of each fallback down to the one that would be used."""
        used = self.fallbacks[: self.chosen.number] if self.chosen.state != RED else self.fallbacks
        found = (*self.links, *(link for each in used for link in each.links))
        return tuple(link for link in found if link.state != GREEN)

    @property
    def where(self) -> str:
        """On which machines the service would run: what the plan states, or a record shows."""
        machines = next((link for link in self.chosen.links if link.subject == "machines"), None)
        return machines.text if machines is not None else "unknown"


@frozen
class PlanChecked:
    """All services of a plan at a time (POSIX). `signer` of the plan: None where nobody signed it, or not validly."""

    plan: ContinuityPlan
    at: int
    services: tuple[ServiceChecked, ...]
    signer: Digest | None = None

    @property
    def state(self) -> State:
        return worst(service.state for service in self.services)

    @property
    def of_plan(self) -> tuple[Link, ...]:
        """What is wrong with the plan itself, and so with each of its services."""
        return tuple(link for link in self.services[0].links if link.subject == "plan" and link.state != GREEN)


def check_plan(plan: ContinuityPlan, facts: GatheredFacts, file: str = "plan.toml") -> PlanChecked:
    """Judge each service of a plan. `file` is its name, for hints."""
    said = tuple(_with_hints({"plan": file}, _plan_links(plan, facts)))
    services = tuple(_service(plan, service, said, facts, file) for service in plan.services)
    return PlanChecked(plan, facts.at, services, facts.signature.signer)


def _service(
    plan: ContinuityPlan, service: Service, plan_links: tuple[Link, ...], facts: GatheredFacts, file: str
) -> ServiceChecked:
    links = (*plan_links, *_with_hints({"plan": file, "service": service.name}, _service_links(service)))
    gathered = facts.fallbacks.get(service.name, ())
    fallbacks = tuple(
        _fallback(plan, service, number, gathered[number - 1] if number <= len(gathered) else None, facts, file)
        for number in range(1, len(service.fallbacks) + 1)
    )
    own = worst(link.state for link in links)
    if fallbacks[0].state == GREEN:
        works: State = GREEN
    else:
        works = AMBER if any(each.state != RED for each in fallbacks) else RED
    return ServiceChecked(service, worst((own, works)), links, fallbacks)


def _fallback(
    plan: ContinuityPlan, service: Service, number: int, known: FallbackFacts | None, facts: GatheredFacts, file: str
) -> FallbackChecked:
    fallback, found = service.fallbacks[number - 1], known or FallbackFacts(None)
    links = tuple(
        _with_hints(_names(file, service, fallback), _fallback_links(service, fallback, found, plan.owner, facts.at))
    )
    answered = found.drill.answered if found.drill is not None and found.drill.passed else None
    minutes = None if answered is None else -(-answered // 60)
    return FallbackChecked(number, fallback, worst(link.state for link in links), links, minutes)


_Names: TypeAlias = Mapping[str, str]
"""What stands in the next command of a link, by the name in its hint."""


def next_command(kind: str, file: str, service: Service, fallback: Fallback) -> str:
    """What to do about a link of this kind. Of weights, it shows the kit, which names them."""
    kit = f"sha256:{fallback.kit.artifact}"
    return LINK_KINDS[kind].hint.format_map({**_names(file, service, fallback), "weights": kit})


def _names(file: str, service: Service, fallback: Fallback) -> _Names:
    return {
        "plan": file,
        "service": service.name,
        "kit": fallback.kit.artifact,
        "name": fallback.kit.name,
        "record": fallback.machines.digest[:16] if isinstance(fallback.machines, AgreedMachines) else "",
        "scope": fallback.approval.scope if fallback.approval else "",
    }


def _with_hints(names: _Names, links: Iterator[Link]) -> Iterator[Link]:
    """Fill in the next command of each link."""
    for link in links:
        kind = LINK_KINDS.get(link.kind)
        hint = kind.hint.format_map({**names, "weights": link.hint}) if kind else ""
        yield replace(link, hint=hint)


def _broken(kind: str, text: str = "", basis: Basis = "verified here", by: str = "", hint: str = "") -> Link:
    """A link that does not hold; without a text, what its kind means."""
    row = LINK_KINDS[kind]
    return Link(row.subject, kind, row.state, describe_link(kind, text), basis, by, hint)


def _holds(subject: str, text: str, basis: Basis = "verified here", by: str = "") -> Link:
    return Link(subject, "", GREEN, text, basis, by)


def _day(time: int) -> str:
    return format_time(time)[:10]


def _plan_links(plan: ContinuityPlan, facts: GatheredFacts) -> Iterator[Link]:
    yield _signature_link(plan, facts.signature)
    if facts.at > plan.ends:
        yield _broken("plan-over", str(plan.until))
    elif facts.at > plan.ends - PLAN_SOON * DAY:
        yield _broken("plan-ends-soon", str(plan.until))
    if plan.policy is not None and facts.signature.policy != "same":
        yield _broken("policy-changed" if facts.signature.policy == "changed" else "policy-missing", plan.policy.name)


def _signature_link(plan: ContinuityPlan, found: PlanSignature) -> Link:
    if found.state == "unsigned":
        return _broken("plan-unsigned")
    if found.state == "invalid":
        return _broken("plan-signature-invalid", found.why)
    if found.signer != plan.owner:
        return _broken("plan-signer-other", short(found.signer) if found.signer else "")
    if found.state == "other file":
        return _broken("plan-changed")
    if found.lost:
        return _broken("plan-key-lost", found.why)
    return _holds("plan", f"signed by its owner; until {plan.until}")


def _service_links(service: Service) -> Iterator[Link]:
    used = service.in_use
    if isinstance(used, ExternalService):
        covered = {party.name for party in service.must_survive if party.kind in (REACH, JURISDICTION)}
        if used.jurisdiction not in covered:
            yield _broken("vendor-not-covered", f"{used.vendor} is in {used.jurisdiction}", "claimed", "the plan")


def _fallback_links(
    service: Service, fallback: Fallback, found: FallbackFacts, owner: Digest, at: int
) -> Iterator[Link]:
    kit = found.kit
    if kit is None:
        yield _broken("nodes-silent" if found.silent else "kit-unknown", fallback.kit.name, "unknown")
    else:
        yield from _kit_links(kit)
        yield from _part_links(kit)
        yield from _weight_links(kit)
        if fallback.evaluation is not None:
            yield _evaluation_link(fallback.evaluation, kit.results, at)
        if fallback.approval is not None:
            yield _approval_link(fallback.approval, kit, at)
        yield from _copy_links(service, fallback, kit.copies, at)
    yield _check_link(fallback, found.check, at)
    needs = kit.contents.kit if kit is not None and kit.contents is not None else None
    yield from _machine_links(service, fallback, needs, found.agreed, owner, at)
    yield _drill_link(service, fallback, found.drill, at)


def _kit_links(kit: KitFacts) -> Iterator[Link]:
    if kit.judged.state == "accepted":
        yield _holds("kit", "its publication passes the policy; the bytes are hashed when it is pulled")
    elif kit.judged.state == "refused":
        yield _broken("kit-refused", kit.judged.why)
    else:
        yield _broken("kit-unproven", kit.judged.why, "unknown")
    if kit.key_lost:
        yield _broken("publisher-key-lost", kit.key_lost, "claimed", "its publisher")
    for kind, warning in _warned(kit.warnings):
        yield _broken(kind, warning.kind, "claimed", warning.by)


_SERIOUS: Final = ("malware", "key-compromise")


def _warned(warnings: Sequence[KitWarning]) -> Iterator[tuple[str, KitWarning]]:
    """The first warning of each kind of link. What a stranger says is amber, or anybody could turn a plan red."""
    found: dict[str, KitWarning] = {}
    for warning in warnings:
        if warning.weight == "other":
            kind = "kit-warned"
        elif warning.kind == "yank" and warning.weight == "publisher":
            kind = "kit-withdrawn"
        elif warning.kind == "superseded" and warning.weight == "publisher":
            kind = "kit-superseded"
        elif warning.kind in _SERIOUS:
            kind = "kit-malware"
        else:
            kind = "kit-vulnerable"
        found.setdefault(kind, warning)
    yield from found.items()


def _part_links(facts: KitFacts) -> Iterator[Link]:
    contents = facts.contents
    if contents is None:
        yield _broken("contents-unread", basis="unknown")
        return
    if contents.kit is None:
        yield _broken("kit-unreadable", contents.why) if contents.why else _broken("not-a-kit")
        return
    if contents.problems:
        yield _broken("parts-wrong", _first(contents.problems))
    else:
        yield _holds("parts", f"its {len(contents.kit.parts)} parts are those of the signed manifest")
    if contents.lock is None:
        yield _broken("lock-unread", basis="unknown")
    elif contents.lock:
        yield _broken("package-index-in-the-way", _first(contents.lock))
    if outside := _outside_address(contents.kit):
        yield _broken("address-in-the-way", outside)


def _outside_address(kit: Kit) -> str:
    words = (*kit.engine.command, *kit.engine.environment.values())
    return next((word for word in words if any(scheme in word.lower() for scheme in _ADDRESSES)), "")[:100]


def _first(lines: Sequence[str]) -> str:
    return lines[0] if len(lines) == 1 else f"{lines[0]}, and {len(lines) - 1} more"


def _weight_links(kit: KitFacts) -> Iterator[Link]:
    for weights in kit.weights:
        name, hint = weights.name or short(weights.artifact), f"sha256:{weights.artifact}"
        if weights.warnings is None:
            yield _broken("weights-unknown", name, "unknown", hint=hint)
            continue
        kinds = dict(_warned(weights.warnings))
        if gone := kinds.get("kit-withdrawn") or kinds.get("kit-malware"):
            yield _broken("weights-withdrawn", f"{name}, {gone.kind}", "claimed", gone.by, hint)
        elif kinds:
            warning = next(iter(kinds.values()))
            yield _broken("weights-warned", f"{name}, {warning.kind}", "claimed", warning.by, hint)
        else:
            yield _holds("weights", f"no warning about {name}")


def _evaluation_link(asked: DemandedEvaluation, results: Sequence[StatedResult] | None, at: int) -> Link:
    fitting = [each for each in results or () if (each.suite, each.metric) == (asked.suite, asked.metric)]
    own = [each for each in fitting if each.by == asked.by]
    wanted = f"{asked.suite}: {asked.metric} >= {asked.at_least}"
    if not own:
        kind = "evaluation-by-other" if fitting else "evaluation-missing"
        return _broken(kind, wanted, "unknown" if results is None else "verified here")
    newest = max(own, key=lambda each: each.at)
    said, by = f"{wanted}, stated {newest.value} on {_day(newest.at)}", short(asked.by)
    if Decimal(newest.value) < Decimal(asked.at_least):
        return _broken("evaluation-below", said, "claimed", by)
    if newest.order in ("after", "none"):
        return _broken("evaluation-not-first", said, "verified here" if newest.order == "after" else "unknown")
    if newest.order == "unproven":
        return _broken("evaluation-unproven", said, "unknown")
    if at - newest.at > asked.within_days * DAY:
        return _broken("evaluation-old", said, "stale", by)
    several = f"; its author announced {newest.announced} evaluations of it" if newest.announced > 1 else ""
    return _holds("evaluation", f"{said}, announced first{several}", "claimed", by)


def _approval_link(asked: DemandedApproval, kit: KitFacts, at: int) -> Link:
    if kit.approvals is None:
        return _broken("approval-missing", asked.scope, "unknown")
    own = [each for each in kit.approvals if each.by in asked.by and each.scope == asked.scope]
    in_force = [each for each in own if each.since <= at <= each.until]
    last: dict[Digest, int] = {}
    for each in in_force:
        last[each.by] = max(last.get(each.by, 0), each.until)
    said = f"{len(last)} of {asked.at_least} for {asked.scope}"
    if len(last) < asked.at_least:
        past = [each for each in own if each.until < at]
        kind = "ended-approval" if any(each.ended for each in past) else "approval-over" if past else "approval-missing"
        return _broken(kind, said)
    if kit.approvals_short:
        return _broken("approval-missing", kit.approvals_short)
    end = sorted(last.values(), reverse=True)[asked.at_least - 1]
    if end - at < APPROVAL_SOON * DAY:
        return _broken("approval-ends-soon", f"{said}, until {_day(end)}")
    return _holds("approval", f"{said}, until {_day(end)}")


def _check_link(fallback: Fallback, check: PastCheck | None, at: int) -> Link:
    if check is None:
        return _broken("never-checked", basis="unknown")
    when = _day(check.at)
    if check.state == "failed":
        return _broken("check-failed", when)
    if check.state != "passed":
        return _broken("check-partial", when)
    if check.passed is None or at - check.passed > fallback.checked_within_days * DAY:
        return _broken("check-stale", f"{when}, {fallback.checked_within_days} days are allowed", "stale")
    return _holds("check", f"passed on this machine on {when}")


def _drill_link(service: Service, fallback: Fallback, drill: PastDrill | None, at: int) -> Link:
    if drill is None:
        return _broken("never-drilled", basis="unknown")
    when = _day(drill.at)
    if not drill.passed:
        return _broken("drill-failed", f"{when}, {drill.reason}")
    if drill.answered is None or drill.answered > service.longest_outage * 60:
        took = "no time is known" if drill.answered is None else f"{-(-drill.answered // 60)} min"
        return _broken("drill-slow", f"{when}, {took}, {service.longest_outage} min are allowed")
    if at - drill.at > fallback.drilled_within_days * DAY:
        return _broken("drill-stale", f"{when}, {fallback.drilled_within_days} days are allowed", "stale")
    if left := [str(party) for party in service.must_survive if party not in drill.cut_off]:
        return _broken("drill-narrow", ", ".join(left[:4]))
    return _holds("drill", f"passed on {when}: first verified answer after {drill.answered} s")


def _machine_links(
    service: Service,
    fallback: Fallback,
    kit: Kit | None,
    agreed: AgreedFacts | None,
    owner: Digest,
    at: int,
) -> Iterator[Link]:
    machines = fallback.machines
    if isinstance(machines, OwnMachine):
        yield from _own_links(machines, kit)
    elif agreed is None:
        yield _broken("record-unknown", short(machines.digest), "unknown")
    else:
        links = tuple(_agreed_links(service, machines, agreed, kit, owner, at))
        yield from links or (_holds("machines", f"{machines.record} by {agreed.provider}, until {_day(agreed.end)}"),)


def _own_links(own: OwnMachine, kit: Kit | None) -> Iterator[Link]:
    if kit is None:
        return
    if lacking := _lacking(kit, own.memory, own.disk, own.accelerators):
        yield _broken("machines-too-small", lacking, "claimed", "the plan")
    elif not _runs_on(kit, own.platform):
        platform = f"{kit.platform.os}/{kit.platform.arch}"
        yield _broken("platform-other", f"{platform}, not {own.platform}", "claimed", "the plan")
    else:
        yield _holds("machines", f"own machine, {own.memory >> 30} GiB, {own.platform}", "claimed", "the plan")


def _lacking(kit: Kit, memory: int, disk: int, accelerators: int) -> str:
    needs = kit.needs
    wanted = ((needs.memory, memory, "memory"), (needs.disk, disk, "disk"))
    lacking = [f"{_gib(need)} GiB of {what}, not {_gib(have)}" for need, have, what in wanted if need > have]
    if needs.accelerators > accelerators:
        lacking.append(f"{needs.accelerators} accelerators, not {accelerators}")
    return "it needs " + ", ".join(lacking) if lacking else ""


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f}".removesuffix(".0")


def _runs_on(kit: Kit, platform: str) -> bool:
    system, _, processor = platform.partition("/")
    return kit.platform.os in (system, "any") and kit.platform.arch in (processor, "any")


_LAPSED: Final = (LAPSED, RELEASED)


def _agreed_links(
    service: Service, machines: AgreedMachines, found: AgreedFacts, kit: Kit | None, owner: Digest, at: int
) -> Iterator[Link]:
    if found.status != "proven":
        yield _broken("record-unproven", found.why, "claimed" if found.status == "claimed" else "verified here")
    if machines.record == "offer":
        yield _broken("withdrawn-offer", found.provider) if found.withdrawn else _broken("offer-only", found.provider)
    elif found.state in _LAPSED:
        yield _broken("grant-lapsed", found.state)
    elif found.grantee != owner:
        yield _broken("grant-of-other", short(found.grantee) if found.grantee else "")
    elif found.state != "accepted":
        yield _broken("grant-not-accepted", found.state)
    if found.defaulted:
        yield _broken("grant-defaulted", "", "claimed", "its grantee")
    yield from _span_links(found, at)
    if kit is not None and (lacking := _lacking(kit, found.memory, found.disk, found.accelerators)):
        yield _broken("machines-too-small", lacking, "claimed", found.provider)
    if taken := [str(party) for party in service.must_survive if party in found.parties]:
        yield _broken("provider-in-reach", f"{found.provider}, {', '.join(taken[:4])}", "claimed", found.provider)
    roots = {party.name for party in service.must_survive if party.kind == HARDWARE_ROOT}
    if roots and found.attested is None:
        yield _broken("hardware-unknown", basis="unknown")
    elif held := sorted(roots.intersection(found.attested or ())):
        yield _broken("hardware-root", ", ".join(held))


def _span_links(found: AgreedFacts, at: int) -> Iterator[Link]:
    if found.end <= at:
        yield _broken("grant-over", _day(found.end))
    elif found.start > at:
        yield _broken("grant-not-begun", _day(found.start))
    elif not found.left:
        yield _broken("grant-used-up")
    elif found.end - at < PLAN_SOON * DAY:
        yield _broken("grant-ends-soon", _day(found.end))


def _copy_links(service: Service, fallback: Fallback, copies: Sequence[KitCopy] | None, at: int) -> Iterator[Link]:
    if copies is None:
        yield _broken("copies-unknown", basis="unknown")
        return
    yield from (_broken("copy-failed", each.node, "claimed", "auditors") for each in copies if each.failed)
    counted = [each for each in copies if not each.failed]
    outside = [each for each in counted if _survives(each, service.must_survive)]
    asked, have = fallback.copies.outside, _members(outside)
    said = f"{have} of {asked} members outside"
    if not counted:
        yield _broken("copies-none")
    elif not outside:
        yield _broken("copies-inside", ", ".join(each.node for each in counted[:4]), "claimed", "nodes")
    else:
        problems = tuple(_outside_links(service, fallback, outside, said, at))
        yield from problems or (_holds("copies", f"{said} have a copy that was tested lately", "claimed", "auditors"),)


def _outside_links(
    service: Service, fallback: Fallback, outside: Sequence[KitCopy], said: str, at: int
) -> Iterator[Link]:
    asked = fallback.copies.outside
    answering = [each for each in outside if each.answers]
    if Party(DNS, "") in service.must_survive and not any(each.numeric for each in outside):
        yield _broken("dns-in-the-way", ", ".join(each.node for each in outside[:4]))
    if _members(outside) < asked:
        yield _broken("copies-few", said, "claimed", "nodes")
    elif not answering:
        yield _broken("copies-silent", ", ".join(each.node for each in outside[:4]))
    elif _members(answering) < asked:
        silent = [each.node for each in outside if not each.answers]
        yield _broken("copy-silent", f"{said}, silent: {', '.join(silent[:4])}")
    within = fallback.copies.tested_within_days
    tested = [each for each in outside if each.tested is not None and at - each.tested <= within * DAY]
    if _members(tested) < min(asked, _members(outside)):
        yield _broken("copies-untested", f"{_members(tested)} within {within} days", "stale")


def _members(copies: Sequence[KitCopy]) -> int:
    return len({each.holder.member for each in copies})


def _survives(copy: KitCopy, parties: Sequence[Party]) -> bool:
    """Whether none of the parties takes the copy. A copy whose reach is not declared survives no reach."""
    if any(party.kind == REACH for party in parties) and not copy.holder.reach:
        return False
    return not set(parties).intersection(parties_of(copy.holder))


def counts(checked: PlanChecked) -> Mapping[str, int]:
    """How many services have each state."""
    return {state: sum(service.state == state for service in checked.services) for state in STATES}
