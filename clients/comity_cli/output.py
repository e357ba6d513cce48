"""All output of the command line: data on stdout, progress and hints on stderr.

`--json` prints exactly one document with a `schema`; `--quiet` prints only errors.
Rich is imported only when a table or a progress bar is drawn, so that `--help` stays fast.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, TextIO

import click
from comity.trust.encoding import printable
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen

from comity_cli.document import KINDS, document, members, named, schema_name

if TYPE_CHECKING:
    from rich.console import Console

LINE_INTERVAL_SECONDS = 10.0
SILENT_SECONDS: Final = 2.0
"""Seconds after which a command on a terminal says what it is doing."""
LEAST_WIDTH: Final = 40
ROWS_TOGETHER: Final = 1_000
"""Rows of one part of a long table."""
_ERASED: Final = "\r\x1b[K"
REST: Final = " " * 4
"""How further lines of a paragraph begin: not as a row of a verdict does, because strangers choose words in them."""
_COMMAND: Final = "comity "


@frozen
class ErrorItem:
    """What happened, why, and the next command."""

    code: Annotated[str, {"pattern": "^[A-Z0-9][A-Z0-9-]*$", "minLength": 1, "maxLength": 64}]
    what: str
    why: str
    hint: str = field(metadata=named("try"))
    by_node: bool


@document("error")
class ErrorDocument:
    """Error, as every command prints it with --json.

    `try` is the next command, or empty; if `by_node`, a node elsewhere advises it, who may be hostile. Members may be
    added.
    """

    error: ErrorItem
    exit_status: Annotated[int, {"minimum": 1, "maximum": 255}]


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
        """Print result lines for people, after a `sign` that may be styled. Control characters in `text` are escaped.
        Use `fact`, `warn` or a table for untrusted text that could contain line breaks."""
        if not (self.as_json or self.quiet):
            self._echo(sign + "\n".join(printable(line) for line in text.split("\n")), err=False)

    def prose(self, text: str, *, first: str = "", rest: str = REST) -> None:
        """Print one paragraph after `first`, which may be styled; further lines on a terminal begin with `rest`."""
        if not (self.as_json or self.quiet):
            self._echo(wrapped(printable(text), first=first, rest=rest), err=False)

    def done(self, text: str) -> None:
        """Print a verified success."""
        self.prose(text, first=f"{self.mark('✓', 'green')} ")

    def fact(self, key: str, value: str) -> None:
        self.prose(value, first=f"  {key:<12} ", rest=" " * 15)

    def hint(self, text: str) -> None:
        """Print the next step, on stderr so that it never mixes with data."""
        if not (self.as_json or self.quiet):
            self._echo(f"{click.style('Next:', bold=True)} {printable(text)}", err=True)

    def warn(self, text: str) -> None:
        if not self.as_json:
            self._echo(wrapped(printable(text), first=f"{self.mark('!', 'yellow')} ", err=True), err=True)

    def _echo(self, text: str, *, err: bool) -> None:
        """Print above the progress bar if the text goes to the same terminal."""
        if self._live is not None and (err or sys.stdout.isatty()):
            from rich.text import Text

            self._live.print(Text.from_ansi(text), soft_wrap=True)  # a path or command that is too long stays whole
        else:
            click.echo(text, err=err, color=self._color)

    def answer(self, document: Any) -> None:
        """Print a document that `comity_cli.document` derives, with `--json`; nothing otherwise."""
        self.document(KINDS[type(document)], members(document))

    def document(self, kind: str, value: Mapping[str, Any]) -> None:
        """Print the JSON document with `--json`; nothing otherwise."""
        if self.as_json:
            click.echo(_encodable_json({"schema": schema_name(kind), **value}))

    def clear(self) -> None:
        """Clear the terminal, before a state is shown again. No effect in a pipe or a file."""
        click.clear()

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]], *, shorten: Collection[str] = ()) -> None:
        """Print a table. On a narrow terminal the columns in `shorten` lose the middle of long names, and the others
        wrap between words; in a pipe or a file nothing is shortened or wrapped."""
        if self.as_json or self.quiet:
            return
        from comity_cli.columns import aligned, column_widths, shortened

        cells = [[header.upper() for header in headers], *([printable(cell) for cell in row] for row in rows)]
        width = terminal_width()
        if width is None:
            click.echo("\n".join(aligned(cells)))
            return
        from rich.table import Table
        from rich.text import Text

        cells = shortened(cells, [n for n, header in enumerate(headers) if header in shorten], width)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title, column in zip(cells[0], column_widths(cells, width), strict=True):
            table.add_column(title, overflow="fold", width=column)
        for row in cells[1:]:
            table.add_row(*map(Text, row))
        self.console(stderr=False).print(table)

    def growing_table(self, headers: Sequence[str]) -> GrowingTable:
        """A table of which rows are printed as they come, some hundred at a time."""
        return GrowingTable(self, headers)

    def error(self, error: ComityError) -> None:
        """Print what happened, why, and the next command. That of a node elsewhere is shown as its advice."""
        if self.as_json:
            item = ErrorItem(error.code, error.what, error.why, error.hint, error.by_node)
            self.answer(ErrorDocument(item, error.exit_status))
            return
        first = f"{click.style('error:', fg='red', bold=True)} {printable(error.what)}  [{error.code}]"
        click.echo(first, err=True, color=self._color)
        if error.why:
            why = wrapped(printable(error.why), first="  why: ", rest=" " * 7, err=True)
            click.echo(why, err=True, color=self._color)
        if error.hint:
            label = "the node advises" if error.by_node else "try"
            click.echo(f"  {label}: {printable(error.hint)}", err=True, color=self._color)

    def mark(self, sign: str, color: str) -> str:
        encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
        ascii_sign = {"✓": "ok", "✗": "FAILED", "!": "!"}.get(sign, sign)
        return click.style(sign if "utf" in encoding else ascii_sign, fg=color)

    def console(self, *, stderr: bool) -> Console:
        from rich.console import Console

        return Console(stderr=stderr, no_color=not self.color, highlight=False, soft_wrap=False)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Tell on a terminal what the block does, once it has taken two seconds, and for how long; the line is removed
        when the block ends. The block prints nothing and asks nothing."""
        if self.as_json or self.quiet or not sys.stderr.isatty():
            yield
            return
        ended = threading.Event()
        telling = threading.Thread(target=_tell_what_runs, args=(what, ended), daemon=True)
        telling.start()
        try:
            yield
        finally:
            ended.set()
            telling.join()

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[ProgressBar]:
        """A progress bar on a terminal; otherwise one line every ten seconds; nothing with `--json` or `--quiet`. Zero
        as `total` means that it is not known; nothing is drawn before there is something to show."""
        if self.as_json or self.quiet:
            yield _NoProgress()
        elif sys.stderr.isatty():
            self._live = self.console(stderr=True)
            try:
                with _bar(self._live, what, total) as bar:
                    yield bar
            finally:
                self._live = None
        else:
            yield _LineProgress(what, total)


class GrowingTable:
    """Prints rows in parts, so that it keeps one part of them. Each part is as wide as its own rows need."""

    def __init__(self, out: Output, headers: Sequence[str]) -> None:
        self._out = out
        self._headers = headers
        self._rows: list[Sequence[str]] = []

    def add(self, row: Sequence[str]) -> None:
        self._rows.append(row)
        if len(self._rows) >= ROWS_TOGETHER:
            self.finish()

    def finish(self) -> None:
        """Print what was not printed yet."""
        if self._rows:
            self._out.table(self._headers, self._rows)
            self._rows = []


def _tell_what_runs(what: str, ended: threading.Event) -> None:
    began, until_next = time.monotonic(), SILENT_SECONDS
    while not ended.wait(until_next):
        sys.stderr.write(f"{_ERASED}  {what}: {time.monotonic() - began:.0f} s")
        sys.stderr.flush()
        until_next = 1.0
    if until_next != SILENT_SECONDS:
        sys.stderr.write(_ERASED)
        sys.stderr.flush()


class ProgressBar(Protocol):
    """Receives the number of bytes done. Thread-safe. It never shows more done than the total."""

    def advance(self, count: int) -> None: ...

    def restart(self, total: int) -> None:
        """Begin again at zero, with another total; zero means that it is not known."""


class _NoProgress:
    def advance(self, count: int) -> None:
        pass

    def restart(self, total: int) -> None:
        pass


class _LineProgress:
    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._printed_at = what, total, 0, time.monotonic()

    def restart(self, total: int) -> None:
        self._total, self._done = total, 0

    def advance(self, count: int) -> None:
        self._done = _bounded(self._done + count, self._total)
        if time.monotonic() - self._printed_at >= LINE_INTERVAL_SECONDS:
            self._printed_at = time.monotonic()
            total = f" of {size(self._total)}" if self._total else ""
            click.echo(f"{self._what}: {size(self._done)}{total}", err=True)


@contextlib.contextmanager
def _bar(console: Console, what: str, total: int) -> Iterator[ProgressBar]:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(what, total=total or None, visible=total > 0)

        class BarProgress:
            def __init__(self) -> None:
                self._total, self._done = total, 0

            def advance(self, count: int) -> None:
                self._done = _bounded(self._done + count, self._total)
                bar.update(task, completed=self._done, visible=True)

            def restart(self, total: int) -> None:
                self._total, self._done = total, 0
                bar.reset(task, total=total or None, visible=total > 0)

        yield BarProgress()


def _encodable_json(document: Mapping[str, Any]) -> str:
    """JSON for people to read, with escapes for what `printable` escapes, which only strings have, because a terminal
    may obey it; and for all else that standard output cannot encode: names of files may hold bytes that are no text."""
    text = "\n".join(map(_shown_json, json.dumps(document, indent=1, ensure_ascii=False).split("\n")))
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(document, indent=1)
    return text


def _shown_json(line: str) -> str:
    if printable(line) == line:
        return line
    return "".join(c if printable(c) == c else json.dumps(c)[1:-1] for c in line)


def terminal_width() -> int | None:
    """Columns of the terminal that standard output goes to; None for a pipe or a file."""
    return _width_of(sys.stdout)


def _width_of(stream: TextIO) -> int | None:
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrapped(text: str, *, first: str = "", rest: str = REST, err: bool = False) -> str:
    """`first` and `text`; on a terminal in lines that fit, of which the later ones begin with `rest`. An id or a path
    that is longer than a line stays whole, and so does a text with a command, because both are copied."""
    width = _width_of(sys.stderr) if err else terminal_width()
    if width is None or _COMMAND in text:
        return first + text
    shown = len(click.unstyle(first))
    word = text.partition(" ")[0]
    if shown + len(word) > width >= len(rest) + len(word):
        return f"{first.rstrip()}\n{wrapped(text, first=rest, rest=rest, err=err)}"
    lines = textwrap.fill(
        text,
        max(width, LEAST_WIDTH),
        initial_indent=" " * shown,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return first + lines[shown:]


def _bounded(done: int, total: int) -> int:
    """Bytes that are fetched or sent again after a failure are not counted beyond the total."""
    return min(done, total) if total else done


def size(count: int) -> str:
    """A byte count in decimal units, such as `90.9 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def plural(count: int, noun: str, many: str = "") -> str:
    """`1 file`, `13 files`; `many` is an irregular plural."""
    return f"{count} {noun}" if count == 1 else f"{count} {many or noun + 's'}"
