"""What a publisher's word about lost keys does to the rows about its keys and about time.

Rows about signatures and logs stay as they are: the signature is what it is, and more evidence never makes less of it.
"""

from __future__ import annotations

from comity.trust.digest import short
from comity.trust.judging.compromise import Notice, notices, stands_before
from comity.trust.rows.findings import Findings
from comity.trust.rows.wording import here, who
from comity.trust.statements.claims import KEY_COMPROMISE
from comity.trust.verdict import Fact, Row


def keys_in_other_hands(row: Row, found: Findings) -> Row:
    """The key policy row: it does not pass for what is not proven to have been said before a key was lost."""
    chosen = found.chosen
    told = notices(found.readings, chosen.publication) if chosen else ()
    if chosen is None or not told:
        return row
    facts = tuple(fact for notice in told for fact in _facts(notice, found))
    standings = [stands_before(notice, chosen.witnessed) for notice in told]
    if all(standings) or row.state != "pass":
        return row.joined(facts)
    publisher = who(chosen.publication.publisher)
    if False in standings:
        text = f"{publisher} says that its key was in other hands when this was said"
        return Row(row.name, "fail", text, row.step, "short", row.facts + facts)
    text = f"{publisher} says that its key fell into other hands; no proof here that this was said before"
    return Row(row.name, "unknown", text, row.step, "missing", row.facts + facts, hint="comity pull REF")


def time_of_loss(row: Row, found: Findings) -> Row:
    """The time row tells from when on; freshness is another question, and its answer stays."""
    told = notices(found.readings, found.chosen.publication) if found.chosen else ()
    return row.joined(tuple(_told(notice) for notice in told))


def warning_of_loss(row: Row, found: Findings) -> Row:
    """The row about warnings names the loss as what it is."""
    told = notices(found.readings, found.chosen.publication) if found.chosen else ()
    if not told:
        return row
    facts = tuple(
        Fact(f"{KEY_COMPROMISE} ({notice.severity}): {notice.text}", "claimed", "its publisher", notice.entry.digest)
        for notice in told
    )
    summary = row.summary if row.state == "fail" else f"{facts[0].text} says {facts[0].by}; {len(facts)} in all"
    return Row(row.name, "fail", summary, row.step, "short", row.facts + facts)


def _facts(notice: Notice, found: Findings) -> tuple[Fact, Fact]:
    assert found.chosen is not None
    line = found.chosen.publication.entry.digest
    before = stands_before(notice, found.chosen.witnessed)
    if before is None:
        return _told(notice), Fact(f"no proof of where this stands in {notice.origin}", "stale or absent")
    where = "below that entry" if before else "at that entry or behind it"
    return _told(notice), here(f"this stands in {notice.origin} {where}", line)


def _told(notice: Notice) -> Fact:
    text = f"key {short(notice.key)} was in other hands from entry {notice.index} of {notice.origin} on: {notice.text}"
    return Fact(text, "claimed", "its publisher", notice.entry.digest)
