"""Everything the command line says, in one place: data on stdout, progress and hints on stderr, three states apart.

Human text is for people, `--json` prints exactly one document with a `schema`, `--quiet` prints nothing but errors.
Rich is imported only when a table or a progress bar is drawn, so that `--help` stays fast.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import click
from comity.trust.encoding import plain
from comity.trust.errors import ComityError

if TYPE_CHECKING:
    from rich.console import Console

QUIET_LINE_SECONDS = 10.0


@dataclass
class Output:
    """Where and how to print. One per invocation, in Click's context object."""

    as_json: bool = False
    quiet: bool = False
    color: bool = field(default_factory=lambda: "NO_COLOR" not in os.environ)
    _live: Console | None = field(default=None, repr=False)

    @property
    def _color(self) -> bool | None:
        """None leaves the choice to Click: colours on a terminal, none elsewhere."""
        return None if self.color else False

    def say(self, text: str = "", *, sign: str = "") -> None:
        """Lines of result for people, after a `sign` that may be styled. Whoever's words `text` holds, no terminal
        obeys them; words that a stranger could break over lines belong into `fact`, `warn` or a table."""
        if not (self.as_json or self.quiet):
            self._echo(sign + "\n".join(plain(line) for line in text.split("\n")), err=False)

    def done(self, text: str) -> None:
        """A success that was checked."""
        self.say(plain(text), sign=f"{self.mark('✓', 'green')} ")

    def fact(self, key: str, value: str) -> None:
        self.say(f"  {key:<12} {plain(value)}")

    def hint(self, text: str) -> None:
        """What to do next; on stderr so that it never mixes with data."""
        if not (self.as_json or self.quiet):
            self._echo(f"{click.style('Next:', bold=True)} {plain(text)}", err=True)

    def warn(self, text: str) -> None:
        if not self.as_json:
            self._echo(f"{self.mark('!', 'yellow')} {plain(text)}", err=True)

    def _echo(self, text: str, *, err: bool) -> None:
        """While a bar is drawn, text for the same terminal goes above it; text for a file or a pipe goes there."""
        if self._live is not None and (err or sys.stdout.isatty()):
            from rich.text import Text

            self._live.print(Text.from_ansi(text))
        else:
            click.echo(text, err=err, color=self._color)

    def document(self, kind: str, value: Mapping[str, Any]) -> None:
        """The one JSON document of `--json`; nothing otherwise."""
        if self.as_json:
            click.echo(json.dumps({"schema": f"comity.dev/{kind}/v1", **value}, indent=1, ensure_ascii=False))

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self.as_json or self.quiet:
            return
        from rich.table import Table
        from rich.text import Text

        from comity_cli.columns import fitted

        console, titles = self.console(stderr=False), [header.upper() for header in headers]
        cells = [[plain(cell) for cell in row] for row in rows]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title, width in zip(titles, fitted([titles, *cells], console.width), strict=True):
            table.add_column(title, overflow="fold", width=width)
        for row in cells:
            table.add_row(*map(Text, row))
        console.print(table)

    def error(self, error: ComityError) -> None:
        """What happened, why, and the exact next command."""
        if self.as_json:
            body = {"code": error.code, "what": error.what, "why": error.why, "try": error.hint}
            self.document("error", {"error": body, "exit_status": error.exit_status})
            return
        click.echo(f"{click.style('error:', fg='red', bold=True)} {plain(error.what)}  [{error.code}]", err=True)
        if error.why:
            click.echo(f"  why: {plain(error.why)}", err=True, color=self._color)
        if error.hint:
            click.echo(f"  try: {error.hint}", err=True, color=self._color)

    def mark(self, sign: str, color: str) -> str:
        encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
        in_ascii = {"✓": "ok", "✗": "FAILED", "!": "!"}.get(sign, sign)
        return click.style(sign if "utf" in encoding else in_ascii, fg=color)

    def console(self, *, stderr: bool) -> Console:
        from rich.console import Console

        return Console(stderr=stderr, no_color=not self.color, highlight=False, soft_wrap=False)

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Progress]:
        """A progress bar on a terminal; elsewhere one line in ten seconds; nothing with `--json` or `--quiet`."""
        if self.as_json or self.quiet:
            yield _Silent()
        elif sys.stderr.isatty():
            self._live = self.console(stderr=True)
            try:
                with _bar(self._live, what, total) as bar:
                    yield bar
            finally:
                self._live = None
        else:
            yield _Lines(what, total)


class Progress(Protocol):
    """Told how many bytes more were done, from any thread."""

    def advance(self, count: int) -> None: ...

    def resize(self, total: int) -> None: ...


class _Silent:
    def advance(self, count: int) -> None:
        pass

    def resize(self, total: int) -> None:
        pass


class _Lines:
    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._spoke = what, total, 0, time.monotonic()

    def resize(self, total: int) -> None:
        self._total = total

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._spoke >= QUIET_LINE_SECONDS:
            self._spoke = time.monotonic()
            total = f" of {size(self._total)}" if self._total else ""
            click.echo(f"{self._what}: {size(self._done)}{total}", err=True)


@contextlib.contextmanager
def _bar(console: Console, what: str, total: int) -> Iterator[Progress]:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)

        class Drawn:
            def advance(self, count: int) -> None:
                bar.advance(task, count)

            def resize(self, total: int) -> None:
                bar.update(task, total=total)

        yield Drawn()


def size(count: int) -> str:
    """`90.9 MB`: decimal units, as disks and networks are sold."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def plural(count: int, noun: str, many: str = "") -> str:
    """`1 file`, `13 files`; `many` is the plural where it is not the noun and an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {many or noun + 's'}"
