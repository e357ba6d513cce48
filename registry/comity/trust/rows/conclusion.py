"""The rows *notes* (12), material that did not verify, and *policy* (16), the result of all rows under the policy."""

from __future__ import annotations

from comity.trust.encoding import sha256, short
from comity.trust.evidence import Remark, Row
from comity.trust.policy import Policy
from comity.trust.rows.findings import Findings, remark_fact, verified_fact
from comity.trust.statements import Advisory


def notes_row(found: Findings) -> Row:
    """Row (12): fails for material that did not verify and did not count. It is unknown if there are only nodes of
    members that no pinned charter lists (`unlisted_nodes`); they do not count either, but are not a failure."""
    notes = [*found.claims.notes, *found.remarks, *_pieces_notes(found)]
    for evaluation in found.evaluations:
        notes += [*evaluation.broken, *evaluation.unbound]
        notes += [Remark(text, seen.proof) for seen in evaluation.witnessed for text in seen.refused]
    notes = list(dict.fromkeys(notes))
    unknown = tuple(
        verified_fact(f"no pinned charter lists the member of {name!r}") for name in dict.fromkeys(found.unlisted_nodes)
    )
    if not notes and unknown:
        text = f"{unknown[0].text} ({len(unknown)} in all); such nodes do not count"
        return Row("notes", "unknown", text, 12, "missing", unknown, "comity trust diff")
    if not notes:
        return Row("notes", "pass", "all evidence verified", 12)
    text = f"{notes[0].text} ({len(notes)} in all)"
    return Row("notes", "fail", text, 12, "short", (*map(remark_fact, notes), *unknown))


def policy_row(rows: tuple[Row, ...], policy: Policy, refusals: tuple[Advisory, ...]) -> Row:
    required = [row for row in rows if row.name in ("artifact", *policy.require)]
    facts = tuple(verified_fact(f"required: {row.name}: {row.state}", policy.digest) for row in required)
    short_of = [row.name for row in required if row.state != "pass"]
    if refusals:
        text = f"an issuer in refuse_from advises against it: {refusals[0].kind}"
        return Row("policy", "fail", text, 16, "short", facts)
    if short_of:
        return Row("policy", "fail", f"not met: {', '.join(short_of)}", 16, "short", facts)
    return Row("policy", "pass", f"required and passed: {', '.join(policy.require)}", 16, facts=facts)


def _pieces_notes(found: Findings) -> tuple[Remark, ...]:
    """A note if the piece index is not the published one. It decides nothing, because whole files are hashed here, but
    a pull with it would fail."""
    evidence, chosen = found.evidence, found.chosen
    named = chosen.publication.published.pieces.digest if chosen else None
    if evidence.pieces is None or named is None or sha256(evidence.pieces) == named:
        return ()
    text = f"pieces.json is not the published piece index, {short(named)}, and does not count"
    return (Remark(text, sha256(evidence.pieces)),)
