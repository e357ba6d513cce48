#!/usr/bin/env python3
"""Write a manual page for each command, from its help: `docs/man_pages.py FOLDER` fills FOLDER/man1."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import comity
from comity_cli.main import COMMANDS, main
from comity_cli.main import command as root

_EXIT: Final = (main.__doc__ or "").partition("exit: ")[2]


def pages() -> Iterator[tuple[str, str]]:
    """The name and the text of each page: of `comity`, of each command, and of each subcommand."""
    context = click.Context(root, info_name="comity")
    yield "comity.1", page("comity", root, context, see=[f"comity-{name}" for name in COMMANDS])
    for name in COMMANDS:
        command = root.get_command(context, name)
        assert command is not None
        subcommands = dict(command.commands) if isinstance(command, click.Group) else {}
        here = click.Context(command, info_name=name, parent=context)
        yield f"comity-{name}.1", page(f"comity {name}", command, here, see=[f"comity-{name}-{s}" for s in subcommands])
        for verb, sub in subcommands.items():
            within = click.Context(sub, info_name=verb, parent=here)
            yield f"comity-{name}-{verb}.1", page(f"comity {name} {verb}", sub, within, see=[f"comity-{name}"])


def page(name: str, command: click.Command, context: click.Context, *, see: list[str]) -> str:
    """One page in the macros of man(7)."""
    title, short = name.replace(" ", "-"), command.get_short_help_str(200) or (command.help or "").partition("\n")[0]
    lines = [f'.TH "{escaped(title.upper())}" "1" "" "comity {escaped(comity.__version__)}" "Comity"']
    lines += [".SH NAME", rf"{escaped(title)} \- {escaped(short.rstrip('.'))}"]
    lines += [".SH SYNOPSIS", rf"\fB{escaped(name)}\fR {escaped(' '.join(command.collect_usage_pieces(context)))}"]
    lines += [".SH DESCRIPTION", *_paragraphs(command.help or "")]
    options = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    if options:
        lines.append(".SH OPTIONS")
        for flags, text in options:
            lines += [".TP", rf"\fB{escaped(flags)}\fR", escaped(" ".join(text.split()))]
    if examples := getattr(command, "examples", ()):
        lines += [".SH EXAMPLES", ".nf", *map(escaped, examples), ".fi"]
    lines += [".SH EXIT STATUS", escaped(" ".join(_EXIT.split()))]
    if see:
        lines += [".SH SEE ALSO", ", ".join(rf"\fB{escaped(other)}\fR(1)" for other in see)]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text in which roff sees no request, escape or hyphenation."""
    plain = text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...").replace("\b", "")
    return r"\&" + plain if plain.startswith((".", "'")) else plain


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(part for part in text.split("\n\n") if part.strip()):
        if number:
            yield ".PP"
        yield escaped(" ".join(paragraph.split()))


def write(folder: Path) -> int:
    """Write every page below `folder`. Returns their number."""
    target = folder / "man1"
    target.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, text in pages():
        (target / name).write_text(text, encoding="utf-8")
        count += 1
    return count


if __name__ == "__main__":
    sys.stdout.write(f"{write(Path(sys.argv[1]))} pages; read one: man -M {sys.argv[1]} comity\n")
