"""The row *approvals* (16): enough of the officers whom the owner names approve the artifact for the policy's scope.

Each person counts once: officers who have a key in common are one person. A role is filled by one of its officers.
What is missing is a requirement of the policy, so the row fails with cause `short`, never with `false`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from comity.trust.approvals import filled_places
from comity.trust.encoding import Digest, format_time, short
from comity.trust.evidence import Row, RowFact
from comity.trust.officers import JudgedApproval
from comity.trust.policy import ApprovalRule
from comity.trust.rows.findings import Findings, verified_fact

APPROVALS_ROW: Final = "approvals"
APPROVALS_STEP: Final = 16
APPROVALS_HINT: Final = "comity approvals ls DIR --policy FILE"
MAX_SHOWN: Final = 8
"""Approvals of one officer that are shown, the last ones to run out."""


def approvals_row(found: Findings) -> Row:
    rule = found.policy.approvals
    if not rule.at_least:
        return Row(APPROVALS_ROW, "not-checked", "the policy asks for no approval", APPROVALS_STEP)
    counted = _last_of_each([each for each in found.approvals if not each.refusal])
    filled = _filled(rule, counted)
    facts = tuple(fact for name in rule.officers for fact in _facts(name, found))
    officers = {each.officer for each in counted}
    have = ", ".join(name for name, identity in rule.officers.items() if identity in officers) or "nobody"
    text = f"{len(filled)} of {rule.at_least} required for {rule.scope}: {have}"
    if len(filled) >= rule.at_least:
        text = f"{text}; until {format_time(_runs_out(rule, counted))}"
        return Row(APPROVALS_ROW, "pass", text, APPROVALS_STEP, facts=facts)
    text = f"{text}; at {format_time(rule.as_of)}, of {', '.join(rule.places)}{_first_refusal(found)}"
    return Row(APPROVALS_ROW, "fail", text, APPROVALS_STEP, "short", facts, APPROVALS_HINT)


def _last_of_each(approvals: Sequence[JudgedApproval]) -> Sequence[JudgedApproval]:
    """Of each officer the approval that runs out last, with the keys of all of theirs: an officer may sign any number,
    and the others change nothing."""
    last: dict[Digest, JudgedApproval] = {}
    for each in sorted(approvals, key=_last):
        known = last.get(each.officer)
        last[each.officer] = replace(each, keys=each.keys | known.keys) if known else each
    return list(last.values())


def _filled(rule: ApprovalRule, approvals: Sequence[JudgedApproval]) -> Sequence[str]:
    """The places that these approvals fill."""
    people = [ids for ids, _ in _people(approvals)]
    places = list(rule.places)
    return [places[index] for index in filled_places(list(rule.places.values()), people)]


def _people(approvals: Sequence[JudgedApproval]) -> list[tuple[set[Digest], set[Digest]]]:
    """The ids and keys of each person behind the approvals: officers with a key in common are one person."""
    people: list[tuple[set[Digest], set[Digest]]] = []
    for approval in approvals:
        ids, keys = {approval.officer}, set(approval.keys)
        apart = []
        for other in people:
            if ids.isdisjoint(other[0]) and keys.isdisjoint(other[1]):
                apart.append(other)
            else:
                ids |= other[0]
                keys |= other[1]
        people = [*apart, (ids, keys)]
    return people


def _runs_out(rule: ApprovalRule, counted: Sequence[JudgedApproval]) -> int:
    """The last moment at which the approvals that count are still enough."""
    ends = sorted({_last(each) for each in counted}, reverse=True)
    return next(
        end for end in ends if len(_filled(rule, [each for each in counted if _last(each) >= end])) >= rule.at_least
    )


def _last(approval: JudgedApproval) -> int:
    end = approval.proven.end
    return min(approval.proven.approved.until, end.since - 1) if end else approval.proven.approved.until


def _first_refusal(found: Findings) -> str:
    names = found.policy.approvals.names
    refused = sorted((names[each.officer], each.refusal) for each in found.approvals if each.refusal)
    return f"; that of {refused[0][0]} does not count: {refused[0][1]}" if refused else ""


def _facts(name: str, found: Findings) -> Iterator[RowFact]:
    """Facts on the approvals of one officer, those that count first."""
    rule = found.policy.approvals
    own = [each for each in found.approvals if each.officer == rule.officers[name]]
    if not own:
        yield RowFact(f"{name}: no approval is here", "stale or absent")
    for each in sorted(own, key=_shown_first)[:MAX_SHOWN]:
        yield from _facts_of(name, each, found)
    if len(own) > MAX_SHOWN:
        yield verified_fact(f"{name}: {len(own) - MAX_SHOWN} more approvals are not listed")


def _shown_first(approval: JudgedApproval) -> tuple[bool, int, int, Digest]:
    approved = approval.proven.approved
    return bool(approval.refusal), -approved.until, -approved.time, approval.proven.entry.statement_digest


def _facts_of(name: str, approval: JudgedApproval, found: Findings) -> Iterator[RowFact]:
    proven = approval.proven
    approved, line = proven.approved, proven.entry.digest
    span = f"from {format_time(approved.since)} until {format_time(approved.until)}"
    text = f"{name} approved it for {approved.scope} {span}"
    if approval.refusal:
        basis_line = proven.ended or line
        text = f"{text}; it does not count: {approval.refusal}"
        yield RowFact(text, "stale or absent" if approval.stale else "verified here", evidence=basis_line)
    else:
        yield verified_fact(text, line)
    if proven.end is not None and not approval.stale:
        yield verified_fact(f"{name} ends it from {format_time(proven.end.since)} on", proven.ended)
    if (conditions := approved.conditions) is not None:
        here = conditions.text.digest in found.evidence.objects
        state = "present" if here else "missing"
        yield RowFact(
            f"conditions of {name}: {conditions.name}, sha256 {short(conditions.text.digest)}: {state}",
            "verified here" if here else "stale or absent",
            evidence=conditions.text.digest,
        )
