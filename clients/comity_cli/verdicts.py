"""How a verdict looks on a terminal: one line a row, the facts on request, and what to do next."""

from __future__ import annotations

import click
from comity.trust.spelling import plain
from comity.trust.verdict import Fact, Row, Verdict

from comity_cli.output import Output

MARKS = {"pass": ("PASS", "green"), "fail": ("FAIL", "red"), "unknown": ("UNKN", "yellow"), "not-checked": ("----", "")}
WHY = {
    3: "the bytes or signatures are not what they should be",
    4: "what is here is authentic, your policy is not met",
    5: "evidence is missing",
    8: "some files were left out on request; those here are as published",
}


def show(out: Output, verdict: Verdict, *, facts: bool = False) -> None:
    subject = verdict.name or "an artifact"
    out.say(f"{subject}  sha256:{verdict.artifact}" if verdict.artifact else subject)
    for row in verdict.rows:
        _row(out, row, required=row.name in verdict.required, facts=facts)
    if verdict.accepted:
        out.done("ACCEPTED: every row that your policy requires passes")
    else:
        why = WHY[verdict.exit_status]
        out.say(f"NOT ACCEPTED (exit {verdict.exit_status}): {why}", sign=f"{out.mark('✗', 'red')} ")
    hints = dict.fromkeys(r.hint for r in verdict.rows if r.hint and r.state != "pass" and r.name in verdict.required)
    for hint in hints:
        out.hint(hint)


def _row(out: Output, row: Row, *, required: bool, facts: bool) -> None:
    mark, color = MARKS[row.state]
    sign = click.style(mark, fg=color or None, bold=required)
    out.say(f"{row.name:<24} {plain(row.summary)}", sign=f"  {sign}  ")
    for fact in row.facts if facts else ():
        out.say(f"          {plain(f'{_basis(fact)}: {fact.text}')}")


def _basis(fact: Fact) -> str:
    return f"claimed by {fact.by}" if fact.basis == "claimed" and fact.by else fact.basis
