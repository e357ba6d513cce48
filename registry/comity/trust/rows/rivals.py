"""Other claimants of the name, as facts of the row about disputes."""

from __future__ import annotations

from comity.trust.digest import short
from comity.trust.judging.rivals import Rival, rivals
from comity.trust.rows.findings import Findings
from comity.trust.rows.wording import here, who
from comity.trust.verdict import Fact, Row


def with_rivals(row: Row, found: Findings) -> Row:
    """It fails where nothing that the owner pinned says whose name it is, or where its publisher contradicts itself."""
    chosen = found.chosen
    others = rivals(found.readings, chosen.publication) if chosen else ()
    if chosen is None or not others:
        return row
    facts = tuple(_fact(rival, chosen.publication.publisher.id) for rival in others)
    bound = chosen.named is True and all(rival.publisher.id != chosen.publication.publisher.id for rival in others)
    if bound:
        return row.joined(facts)
    text = f"{facts[0].text}; {len(row.facts + facts)} in all"
    return Row(row.name, "fail", row.summary if row.state == "fail" else text, row.step, "short", row.facts + facts)


def _fact(rival: Rival, publisher: str) -> Fact:
    name, artifact = rival.published.name, short(rival.published.artifact)
    if rival.publisher.id == publisher:
        return here(f"its publisher gave {name} to other bytes as well: sha256:{artifact}", rival.entry.digest)
    return here(f"{who(rival.publisher)} claims {name} too, for sha256:{artifact}", rival.entry.digest)
