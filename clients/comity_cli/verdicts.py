"""Print a verdict on a terminal: one line per row, its meaning, and the next steps."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path
from typing import Final

import click
from comity.trust.encoding import printable
from comity.trust.evidence import Row, RowFact, Verdict

from comity_cli.output import Output, terminal_width

WIDTH: Final = 110
MARKS = {"pass": ("PASS", "green"), "fail": ("FAIL", "red"), "unknown": ("UNKN", "yellow"), "not-checked": ("----", "")}

_PLACEHOLDER: Final = re.compile(r"\bDIR\b|\bREF\b|(?<=--policy )FILE\b|(?<=policy explain )FILE\b")
SEVERE_KINDS = ("malware", "vulnerability", "key-compromise")


def show(out: Output, verdict: Verdict, *, facts: bool = False, folder: str = "", policy: Path | None = None) -> None:
    """Print a verdict.

    Args:
        facts: print the facts of each row.
        folder: what the next steps name instead of `DIR`.
        policy: the policy's file, which they name instead of `FILE`.
    """
    from comity_client.reports import meaning

    subject, what = verdict.name or "an artifact", meaning(verdict)
    out.prose(f"{subject}  sha256:{verdict.artifact}" if verdict.artifact else subject)
    shown = verdict.rows if verdict.artifact else verdict.rows[:1]
    for row in shown:
        _row(out, row, required=row.name in verdict.required, facts=facts)
    if len(shown) < len(verdict.rows):
        out.say(f"        the other {len(verdict.rows) - len(shown)} rows need a valid manifest")
    if verdict.accepted:
        out.done(what.headline)
    else:
        out.say(what.headline, sign=f"{out.mark('✗', 'red')} ")
    for row in what.deciding:
        out.prose(f"{row.name}: {row.summary}", first=" " * 4, rest=" " * 6)
    for line in textwrap.wrap(what.advice, min(WIDTH, (terminal_width() or WIDTH) - len("  "))):
        out.say(f"  {line}")
    if what.notable:
        out.say(f"  Not required, but notable: {', '.join(row.name for row in what.notable)}")
    if not verdict.accepted or any(row.state in ("unknown", "not-checked") for row in verdict.rows):
        out.say("  (* required; UNKN: the evidence here does not decide it; ----: not checked)")
    for step in what.steps:
        out.hint(_filled(step, verdict, folder, policy))


def warn(out: Output, verdict: Verdict, kinds: tuple[str, ...] = SEVERE_KINDS) -> None:
    """Print warnings that do not depend on the policy: active files, and advisories of these `kinds`."""
    safety = verdict.row("file safety")
    if safety.state == "fail":
        out.warn(f"file safety: {printable(safety.summary)}")
    for fact in verdict.row("disputes and advisories").facts:
        if fact.text.startswith(kinds):
            out.warn(f"{printable(fact.text)}, claimed by {fact.by}")


def _filled(step: str, verdict: Verdict, folder: str, policy: Path | None) -> str:
    """A step that can be pasted: with the folder, the name and the policy's file, where they are known."""
    known = {"DIR": folder, "REF": verdict.name, "FILE": policy and shlex.quote(str(policy))}
    return _PLACEHOLDER.sub(lambda found: known[found[0]] or found[0], step)


def _row(out: Output, row: Row, *, required: bool, facts: bool) -> None:
    mark, color = MARKS[row.state]
    sign = click.style(mark, fg=color or None, bold=required)
    out.prose(row.summary, first=f"  {sign}  {row.name + ' *' * required:<24} ", rest=" " * 8)
    for fact in row.facts if facts else ():
        out.prose(f"{_basis(fact)}: {fact.text}", first=" " * 10, rest=" " * 12)


def _basis(fact: RowFact) -> str:
    return f"claimed by {fact.by}" if fact.basis == "claimed" and fact.by else fact.basis
