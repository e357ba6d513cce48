"""A policy in plain words, for whoever has to sign that it is the right one: one paragraph a table of the file.

What a file leaves out is said as well: a default is a decision that its owner should know of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from comity.trust.charter import Body
from comity.trust.digest import Digest
from comity.trust.policy import PUBLISHER, ROWS, Policy
from comity.trust.safety import KINDS
from comity.trust.statements.verified import moment

from comity_client.reports.meaning import QUESTIONS


@dataclass(frozen=True, slots=True)
class Rule:
    """What one table of the policy (`pin`, `cosigners`) means, in sentences."""

    table: str
    title: str
    says: tuple[str, ...]


def explain(policy: Policy) -> tuple[Rule, ...]:
    """All rules, in the order of the report's rows."""
    return tuple(Rule(table, title, says) for table, title, tell in _TABLES if (says := tell(policy)))


def _pins(policy: Policy) -> tuple[str, ...]:
    if not policy.pins:
        return ("No federation is pinned: nobody's log and nobody's cosignature can be believed.",)
    return tuple(_pin(body) for body in policy.pins)


def _pin(body: Body) -> str:
    seats = ", ".join(f"{seat.name} ({seat.jurisdiction})" for seat in body.active)
    return (
        f"Only these members count, as epoch {body.epoch} of federation {body.federation[:16]} lists them: {seats}. "
        f"The charter is held to body {body.digest[:16]}; whatever charters travel with an artifact change nothing."
    )


def _publishers(policy: Policy) -> tuple[str, ...]:
    says = [f"Only models of these publishers are accepted, whatever they are called: {_ids(policy.publishers)}."]
    if not policy.publishers:
        says = [
            "No publisher is named here: who may publish under a name is what the pinned charters and the names say."
        ]
    says += [f"{name}/… is the name of publisher {who[:16]}." for name, who in sorted(policy.bindings.items())]
    if policy.publishers and policy.bindings:
        says.append("The names decide nothing about acceptance while accept lists publishers.")
    says += [
        f"Publisher {who[:16]} is held to its change of keys {rotation[:16]}: what older keys signed counts only if it "
        "was logged before."
        for who, rotation in sorted(policy.rotations.items())
    ]
    return tuple(says)


def _cosigners(policy: Policy) -> tuple[str, ...]:
    rule = policy.cosigners
    if rule.at_least == 0:
        return ("Nobody but the log's own member needs to have seen the statement.",)
    what = f"{rule.at_least} members" if rule.at_least > 1 else "1 member"
    says = [f"At least {what} other than the one whose log it is must have seen the statement there and signed for it."]
    if rule.jurisdictions > 1:
        says.append(f"They must be in at least {rule.jurisdictions} jurisdictions.")
    if PUBLISHER in rule.outside:
        says.append("Members in the publisher's jurisdiction, or in that of the log's member, do not count.")
    if codes := [code for code in rule.outside if code != PUBLISHER]:
        says.append(f"Members in these jurisdictions do not count: {', '.join(codes)}.")
    if rule.post_quantum:
        says.append("Only signatures that would stand without classical cryptography count.")
    return tuple(says)


def _model_signing(policy: Policy) -> tuple[str, ...]:
    rule = policy.model_signing
    says = [f"A model.sig counts if it is signed by key {key.hint[:16]}." for key in rule.keys]
    says += [f"A model.sig counts if its certificates lead to one of {len(rule.roots)} roots."] if rule.roots else []
    says += [f"A keyless model.sig counts if it is signed as {identity}." for identity in rule.identities]
    if rule.unsigned:
        says.append(f"These need not be signed in it: {', '.join(rule.unsigned)}.")
    if rule.require:
        says.append("Without a model.sig that counts, the row signatures does not pass.")
    return tuple(says)


def _licences(policy: Policy) -> tuple[str, ...]:
    if not policy.licences:
        return ("Any licence, and none, is accepted: the licence is shown, not judged.",)
    return (f"The licence that the publisher claims must be one of: {', '.join(sorted(policy.licences))}.",)


def _lineage(policy: Policy) -> tuple[str, ...]:
    says = []
    if policy.lineage.by_digest:
        says.append("A parent that is named without a digest fails the row lineage.")
    if policy.lineage.no_conflicts:
        says.append("Licences that conflict along the lineage, as claimed, fail the row lineage.")
    return tuple(says) or ("What it was made from is shown, and nothing in it is refused.",)


def _safety(policy: Policy) -> tuple[str, ...]:
    rule = policy.safety
    says = ["Files in which something would run are refused, and headers that make no sense."]
    says += [f"Accepted all the same: {kind}, {KINDS[kind]}." for kind in sorted(rule.kinds)]
    if exempt := [*rule.paths, *(f"the file {digest[:16]}" for digest in sorted(rule.files))]:
        says.append(f"Accepted whatever is in them: {', '.join(exempt)}.")
    if rule.formats:
        says.append(f"Files of other formats than these are refused: {', '.join(sorted(rule.formats))}.")
    return tuple(says)


def _documents(policy: Policy) -> tuple[str, ...]:
    if not policy.documents:
        return ("No document is asked for; those that the publisher names are shown.",)
    return (f"The publisher must name these documents, and they must be here: {', '.join(policy.documents)}.",)


def _upstream(policy: Policy) -> tuple[str, ...]:
    if not policy.upstream.corroborated:
        return ()
    return (
        f"An artifact that no accepted publisher published counts if nodes of {policy.upstream.corroborated} members "
        "mirrored the same bytes from one commit of its upstream.",
    )


def _advisories(policy: Policy) -> tuple[str, ...]:
    if not policy.refuse_from:
        return ("Warnings are shown and refuse nothing, whoever gives them.",)
    return (f"A warning by one of these refuses the artifact: {_ids(policy.refuse_from)}. Others are shown.",)


def _time(policy: Policy) -> tuple[str, ...]:
    if policy.freshness is None:
        return ("How old the evidence may be is not asked.",)
    days = policy.freshness.max_age // 86_400
    return (
        f"Judged as of {moment(policy.freshness.as_of)}: the cosigners must have seen the log within {days} days "
        "before. No clock is asked, so move this date on when you review the policy.",
    )


def _rows(policy: Policy) -> tuple[str, ...]:
    asked = [f"{row} ({QUESTIONS[row].rstrip('?')})" for row in policy.require]
    shown = [row for row in ROWS[:-1] if row not in ("artifact", *policy.require)]
    says = [f"Required to pass: {'; '.join(asked) or 'only that there is a manifest'}."]
    if shown:
        says.append(f"Shown, and deciding nothing: {', '.join(shown)}.")
    return tuple(says)


def _ids(identities: frozenset[Digest]) -> str:
    return ", ".join(identity[:16] for identity in sorted(identities))


_TABLES: Final[tuple[tuple[str, str, Callable[[Policy], tuple[str, ...]]], ...]] = (
    ("pin", "Whom it believes", _pins),
    ("publishers", "Whose models", _publishers),
    ("model_signing", "Signatures in the form of OpenSSF", _model_signing),
    ("cosigners", "Who else must have seen it", _cosigners),
    ("licences", "Licences", _licences),
    ("lineage", "What it was made from", _lineage),
    ("safety", "What may run", _safety),
    ("documents", "Documents", _documents),
    ("upstream", "What nobody published here", _upstream),
    ("advisories", "Warnings", _advisories),
    ("time", "Freshness", _time),
    ("rows", "What has to pass", _rows),
)
