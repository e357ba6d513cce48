"""`comity explain`."""

from __future__ import annotations

import difflib
from dataclasses import asdict

import click

from comity_cli.command import Command, examples, output
from comity_cli.explanations import explanations


@examples("comity explain COSIGNATURE", "comity explain name-disputed", "comity explain --json PIN-MISMATCH")
@click.command(cls=Command, name="explain", short_help="Explain an error code.")
@click.argument("code", required=False)
def command(code: str | None) -> None:
    """Print what an error code means and what to do. Without CODE, list all codes."""
    out, known = output(), explanations()
    if code is None:
        out.table(("code", "means"), [(name, entry.means) for name, entry in known.items()])
        out.document("codes", {"codes": {name: asdict(entry) for name, entry in known.items()}})
        return
    name = code.strip("[]").upper()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        guess = f"Did you mean {', '.join(close)}?" if close else "`comity explain` lists them."
        raise click.BadParameter(f"there is no error code {name[:60]!r}. {guess}", param_hint="CODE")
    out.say(known[name].means, sign=f"{click.style(name, bold=True)}  ")
    out.say(f"  do: {known[name].do}")
    out.document("explanation", {"code": name, **asdict(known[name])})
