"""Who warns of it, and which keys are in dispute."""

from __future__ import annotations

from comity.trust.digest import Digest, short
from comity.trust.rows.findings import Findings
from comity.trust.rows.upstream import mirror_disputes
from comity.trust.rows.wording import here
from comity.trust.statement import Entry
from comity.trust.statements.claims import SEVERITIES, Advisory
from comity.trust.verdict import Fact, Row


def advisories_row(found: Findings) -> Row:
    chosen = found.chosen
    name = "disputes and advisories"
    own = chosen.publication.publisher.id if chosen else None
    facts = tuple(
        Fact(f"{said.kind} ({said.severity}): {said.text}", "claimed", _issuer(said, own), entry.digest)
        for entry, said in sorted(found.advisories, key=lambda told: _rank(found, told[1]))
    )
    rivals = tuple(here(_dispute(*pair), pair[0].digest) for pair in found.disputes) + mirror_disputes(found)
    if not facts and not rivals:
        return Row(name, "unknown", "none here; nobody can prove offline that there is none", 13, "missing")
    first = f"{facts[0].text} says {facts[0].by}" if facts else rivals[0].text
    return Row(name, "fail", f"{first}; {len(facts + rivals)} in all", 13, "short", facts + rivals)


def _rank(found: Findings, said: Advisory) -> tuple[int, int]:
    """Whom the owner lists comes first, then its publisher, then members and their nodes: strangers can flood a list,
    and shall not hide them. Among equals the gravest."""
    own = found.chosen.publication.publisher.id if found.chosen else None
    known = {seat.id for body in found.policy.pins for seat in body.members}
    known |= {node.record.node.id for node in found.bound}
    places = (said.by.id in found.policy.refuse_from, said.by.id == own, said.by.id in known, True)
    return places.index(True), -SEVERITIES.index(said.severity)


def _issuer(said: Advisory, publisher: Digest | None) -> str:
    return "its publisher" if said.by.id == publisher else short(said.by.id)


def _dispute(first: Entry, second: Entry) -> str:
    who = short(first.statement.by.id) if first.statement.by else "nobody"
    return f"{who} has two rotations of one state, {short(first.digest)} and {short(second.digest)}"
