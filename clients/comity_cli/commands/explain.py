"""`comity explain`: all error codes, from `explanations.toml`. A test compares the codes with the source."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import field
from functools import cache
from importlib.resources import files

import click
from comity.trust.frozen import frozen

from comity_cli.command import Command, examples, output
from comity_cli.document import INLINE, document


@frozen
class Explanation:
    """Texts for people: `means` says what the node or the client found, `do` what the user can do."""

    means: str
    do: str


@document("codes")
class CodesDocument:
    """All error codes, as `comity explain --json` prints them."""

    codes: Mapping[str, Explanation]


@document("explanation")
class ExplanationDocument:
    """An error code, as `comity explain CODE --json` prints it."""

    code: str
    explanation: Explanation = field(metadata=INLINE)


@cache
def explanations() -> Mapping[str, Explanation]:
    """Every code, in alphabetical order."""
    table = tomllib.loads(files("comity_cli").joinpath("explanations.toml").read_text(encoding="utf-8"))
    return {code: Explanation(**entry) for code, entry in sorted(table.items())}


@examples("comity explain COSIGNATURE", "comity explain name-disputed", "comity explain --json PIN-MISMATCH")
@click.command(cls=Command, name="explain", short_help="Explain an error code.")
@click.argument("code", required=False)
def command(code: str | None) -> None:
    """Print what an error code means and what to do. Without CODE, list all codes."""
    out, known = output(), explanations()
    if code is None:
        out.table(("code", "means"), [(name, entry.means) for name, entry in known.items()])
        out.answer(CodesDocument(known))
        return
    name = code.strip("[]").upper()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        guess = f"Did you mean {', '.join(close)}?" if close else "`comity explain` lists them."
        raise click.BadParameter(f"there is no error code {name[:60]!r}. {guess}", param_hint="CODE")
    out.prose(known[name].means, first=f"{click.style(name, bold=True)}  ")
    out.prose(known[name].do, first="  do: ", rest=" " * 6)
    out.answer(ExplanationDocument(name, known[name]))
