"""What did not verify, and what all rows amount to under the policy.

The rows of a verdict, one function each: a question, its state, and what the answer rests on.

The numbers are the steps of `verify`, which calls these in order and knows nothing about wording.
"""

from __future__ import annotations

from comity.trust.encoding import sha256, short
from comity.trust.evidence import Remark, Row
from comity.trust.policy import Policy
from comity.trust.rows.findings import Findings, here, noted
from comity.trust.statements import Advisory


def notes_row(found: Findings) -> Row:
    """Material that did not verify: it counted for nothing, and whoever carried it should know. Nodes of members that
    no pinned charter lists (`strangers`) count for nothing either, but nothing speaks against them."""
    notes = [*found.readings.notes, *found.remarks, *_pieces_notes(found)]
    for standing in found.standings:
        notes += [*standing.broken, *standing.unbound]
        notes += [Remark(text, seen.proof) for seen in standing.witnessed for text in seen.refused]
    notes = list(dict.fromkeys(notes))
    unknown = tuple(here(f"no pinned charter lists the member of {name!r}") for name in dict.fromkeys(found.strangers))
    if not notes and unknown:
        text = f"{unknown[0].text} ({len(unknown)} in all); it counts for nothing here"
        return Row("notes", "unknown", text, 12, "missing", unknown, "comity trust diff")
    if not notes:
        return Row("notes", "pass", "everything here verified", 12)
    text = f"{notes[0].text} ({len(notes)} in all)"
    return Row("notes", "fail", text, 12, "short", (*map(noted, notes), *unknown))


def policy_row(rows: tuple[Row, ...], policy: Policy, refusals: tuple[Advisory, ...]) -> Row:
    required = [row for row in rows if row.name in ("artifact", *policy.require)]
    facts = tuple(here(f"required: {row.name}: {row.state}", policy.digest) for row in required)
    short_of = [row.name for row in required if row.state != "pass"]
    if refusals:
        text = f"an issuer that the owner listed advises against it: {refusals[0].kind}"
        return Row("policy", "fail", text, 16, "short", facts)
    if short_of:
        return Row("policy", "fail", f"not met: {', '.join(short_of)}", 16, "short", facts)
    return Row("policy", "pass", f"required and passed: {', '.join(policy.require)}", 16, facts=facts)


def _pieces_notes(found: Findings) -> tuple[Remark, ...]:
    """The piece index decides nothing, since whole files are hashed here; a puller would stumble over a wrong one."""
    evidence, chosen = found.evidence, found.chosen
    named = chosen.publication.published.pieces.digest if chosen else None
    if evidence.pieces is None or named is None or sha256(evidence.pieces) == named:
        return ()
    text = f"pieces.json is not the piece index that was published, {short(named)}, and counts for nothing"
    return (Remark(text, sha256(evidence.pieces)),)
