"""A report as one HTML page that stands alone: styles inside, no script, nothing fetched, and it prints on A4.

States are words; colour only repeats them. Every word of a stranger goes through `_said`. The page is a rendering: its
last lines name the report by digest, and that is what a signature is about.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final

from comity.trust.digest import sha256
from comity.trust.report import Report
from comity.trust.spelling import plain
from comity.trust.statements.verified import moment
from comity.trust.verdict import Fact, Row

from comity_client.reports.meaning import BASIS_MEANS, QUESTIONS, STATE_MEANS, STATES, Meaning, meaning
from comity_client.reports.signed import SignedReport

_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 1.75rem 0 .5rem; }
code, .digest { font-family: ui-monospace, monospace; font-size: .85em; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .5rem; border: 1px solid #767676;
  overflow-wrap: anywhere; }
thead th { background: #eee; } thead th, tbody th, .narrow { white-space: nowrap; } tbody th { font-weight: 600; }
tbody th { width: 14rem; } .rows tbody th, .facts tbody th { width: auto; } .question { color: #4a4a4a; }
.verdict { border: 2px solid; border-left-width: .75rem; padding: .75rem 1rem; margin: 1rem 0; }
.verdict p { margin: .25rem 0; } .verdict strong { font-size: 1.1rem; }
.accepted { border-color: #1b5e20; background: #f1f8f1; } .refused { border-color: #8e1111; background: #fdf3f3; }
.state { font-weight: 700; white-space: nowrap; } .pass { color: #1b5e20; } .fail { color: #8e1111; }
.unknown { color: #6b4a00; } .not-checked { color: #4a4a4a; }
dt { font-weight: 600; } dd { margin: 0 0 .35rem 1.25rem; }
@page { size: A4; margin: 14mm; }
@media print { body { font-size: 10.5px; max-width: none; margin: 0; padding: 0; } tr, .verdict { break-inside: avoid; }
  thead { display: table-header-group; } h2 { break-after: avoid; } }
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(report: Report, signed: SignedReport | None = None) -> str:
    """The whole document; the same for the same report and signature."""
    verdict = report.verdict
    subject = verdict.name or (f"sha256:{verdict.artifact}" if verdict.artifact else "an unknown artifact")
    parts = (
        f"<h1>Provenance report: {_said(subject)}</h1>",
        _banner(meaning(verdict), accepted=verdict.accepted),
        _about(report),
        _signature(signed),
        _overview(verdict.rows, frozenset({"artifact", *verdict.required})),
        _evidence(verdict.rows),
        _words(),
        _footer(report),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Provenance report: {_said(subject)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _banner(what: Meaning, *, accepted: bool) -> str:
    lines = [f"<p><strong>{_said(what.headline)}</strong></p>", f"<p>{_said(what.advice)}</p>"]
    lines += _listed("What decided:", what.deciding)
    lines += _listed("Not required by the policy, and worth a look:", what.notable)
    if what.steps:
        lines.append("<p>Next: " + ", or ".join(f"<code>{_said(step)}</code>" for step in what.steps) + "</p>")
    kind = "accepted" if accepted else "refused"
    return f'<section class="verdict {kind}" aria-label="Verdict">\n' + "\n".join(lines) + "\n</section>"


def _listed(title: str, rows: tuple[Row, ...]) -> list[str]:
    if not rows:
        return []
    items = "".join(f"<li>{_state(row)} {_said(row.name)}: {_said(row.summary)}</li>" for row in rows)
    return [f"<p>{title}</p>", f"<ul>{items}</ul>"]


def _about(report: Report) -> str:
    verdict = report.verdict
    facts = (
        ("Artifact", f'<span class="digest">sha256:{verdict.artifact}</span>' if verdict.artifact else "none"),
        ("Name, as its publisher claims", _said(verdict.name or "none")),
        ("Policy", f'<span class="digest">sha256:{verdict.policy}</span>' if verdict.policy else "the owner's pins"),
        ("The policy requires", _said(", ".join(verdict.required))),
        ("Exit status", str(verdict.exit_status)),
        ("Checked by", _said(f"comity {report.version}, without network and clock")),
    )
    return _table("About", (), ((f'<th scope="row">{name}</th>', f"<td>{value}</td>") for name, value in facts))


def _signature(signed: SignedReport | None) -> str:
    if signed is None:
        return "<p>This page bears no signature. When it was checked, and by whom, says only a signed report.</p>"
    facts = (
        ("Signed by", _said(f"{signed.signer.display} ({signed.signer.jurisdiction or 'no jurisdiction claimed'})")),
        ("Identity", f'<span class="digest">{signed.signer.id}</span>'),
        ("At, by the signer's clock", _said(moment(signed.verified.time))),
        ("Statement", f'<span class="digest">sha256:{signed.entry.digest}</span>'),
    )
    return _table("Signature", (), ((f'<th scope="row">{name}</th>', f"<td>{value}</td>") for name, value in facts))


def _overview(rows: tuple[Row, ...], required: frozenset[str]) -> str:
    def cells(row: Row) -> tuple[str, ...]:
        return (
            f'<td class="narrow">{row.step}</td>',
            f'<th scope="row">{_said(row.name)}</th>',
            f"<td>{_state(row)}</td>",
            f'<td class="narrow">{"required" if row.name in required else ""}</td>',
            f'<td><span class="question">{_said(QUESTIONS.get(row.name, ""))}</span><br>{_said(row.summary)}</td>',
        )

    headers = ("No.", "Row", "State", "Policy", "Question and answer")
    return "<h2>The rows</h2>\n" + _table("All rows of the verdict", headers, map(cells, rows), "rows")


def _evidence(rows: tuple[Row, ...]) -> str:
    def cells(item: tuple[Row, Fact]) -> tuple[str, ...]:
        row, fact = item
        evidence = f'<span class="digest">{fact.evidence}</span>' if fact.evidence else ""
        return (
            f'<th scope="row">{_said(row.name)}</th>',
            f"<td>{_said(fact.text)}</td>",
            f"<td>{_said(_basis(fact))}</td>",
            f"<td>{evidence}</td>",
        )

    facts = ((row, fact) for row in rows for fact in row.facts)
    headers = ("Row", "Fact", "Basis", "Document, SHA-256")
    return "<h2>What the rows rest on</h2>\n" + _table(
        "Facts, and what each rests on", headers, map(cells, facts), "facts"
    )


def _basis(fact: Fact) -> str:
    return f"claimed by {fact.by}" if fact.basis == "claimed" and fact.by else fact.basis


def _words() -> str:
    states = {STATES[state]: means for state, means in STATE_MEANS.items()}
    terms = "".join(f"<dt>{term}</dt><dd>{_said(means)}</dd>" for term, means in {**states, **BASIS_MEANS}.items())
    return f"<h2>Words</h2>\n<dl>{terms}</dl>"


def _footer(report: Report) -> str:
    data = report.encode()
    return (
        f'<p>Rendered from the report of {len(data)} bytes with SHA-256 <span class="digest">{sha256(data)}</span>; '
        "that document counts, not this page.</p>"
    )


def _table(caption: str, headers: tuple[str, ...], rows: Iterable[tuple[str, ...]], kind: str = "about") -> str:
    head = "".join(f'<th scope="col">{header}</th>' for header in headers)
    head = f"<thead><tr>{head}</tr></thead>\n" if headers else ""
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<table class="{kind}">\n<caption>{caption}</caption>\n{head}<tbody>\n{body}\n</tbody>\n</table>'


def _state(row: Row) -> str:
    return f'<span class="state {row.state}">{STATES[row.state]}</span>'


def _said(text: str) -> str:
    """A stranger's words: on one line, without what a reader's eye or browser would obey."""
    return html.escape(plain(text), quote=True)
