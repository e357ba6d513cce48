"""`comity log checkpoint|entries|tail|proof|check|misbehaviour`: read and check logs from outside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
from comity.content import durable
from comity.trust.encoding import Digest, b64encode, parse_digest, sha256, short
from comity.trust.errors import Unavailable
from comity.trust.evidence import proof_name
from comity.trust.frozen import frozen

from comity_cli.command import Group, client, examples, output
from comity_cli.document import INLINE, document
from comity_cli.files import NEW_FOLDER
from comity_cli.nodes import nodes_option
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity_client.evidence.logs import LogAccusation, LogCheck, LogEntry, ProvenIn

FOLLOW_SECONDS: Final = 5
MAX_SHOWN: Final = 1000
"""Entries that are asked for at once."""
ORIGIN = click.argument("origin")


@document("checkpoint")
class CheckpointDocument:
    """A log's newest checkpoint, as `comity log checkpoint --json` prints it.

    `note`: signed by the log and by `cosigners`; the node called `node` showed it.
    """

    origin: str
    size: int
    root: bytes
    cosigners: tuple[str, ...]
    note: str
    node: str


@frozen
class EntryItem:
    """An entry of a log."""

    index: int
    line: str


@document("entries")
class EntriesDocument:
    """Entries of a log, as `comity log entries --json` prints them."""

    origin: str
    entries: tuple[EntryItem, ...]


@frozen
class ProofItem:
    """Where a line is logged, with the text of the proof."""

    found: ProvenIn = field(metadata=INLINE)
    proof: str


@document("proofs")
class ProofsDocument:
    """Proofs that a line is logged, as `comity log proof --json` prints them."""

    line: Digest
    proofs: tuple[ProofItem, ...]


@document("log-check")
class LogCheckDocument:
    """A log whose root was computed from all its lines, as `comity log check --json` prints it.

    `seen`: the size that was stored before; 0 if the log was new here. `continues`: the same if these lines begin with
    the entries of that checkpoint; 0 if they are fewer.
    """

    check: LogCheck = field(metadata=INLINE)


@frozen
class ContradictionItem:
    """Two signed notes of one log that contradict each other."""

    kind: str
    log: str
    notes: tuple[str, ...]


@frozen
class AccusationItem:
    """A proof that nodes keep. `parts` in base64; `why` it is not proven here."""

    kind: str
    log: str
    basis: Literal["proven", "claimed"]
    why: str
    nodes: tuple[str, ...]
    parts: tuple[str, ...]

    @classmethod
    def of(cls, kept: LogAccusation) -> AccusationItem:
        basis: Literal["proven", "claimed"] = "proven" if kept.proven else "claimed"
        return cls(kept.kind, kept.log, basis, kept.why, kept.nodes, tuple(map(b64encode, kept.parts)))


@document("misbehaviour")
class MisbehaviourDocument:
    """Misbehaviour of logs that was seen here, or that nodes keep proofs of, as `comity log misbehaviour --json` prints
    it."""

    found: tuple[ContradictionItem, ...]
    accusations: tuple[AccusationItem, ...]


@examples(
    "comity log checkpoint node-ch/log", "comity log check node-ch/log", "comity log entries node-ch/log --last 5"
)
@click.group(cls=Group, name="log", short_help="Read and check transparency logs.")
def command() -> None:
    """Read logs from any node that has them, and check them with pinned keys and earlier checkpoints."""


@examples("comity log checkpoint node-ch/log", "comity log checkpoint node-ch/log --raw")
@command.command("checkpoint", short_help="Show a log's newest verified checkpoint.")
@ORIGIN
@click.option("--raw", is_flag=True, help="Print the signed note.")
def checkpoint(origin: str, raw: bool) -> None:
    """Show the newest checkpoint that any node has, with its signature and cosignatures verified here."""
    out = output()
    seen = client().log_checkpoint(origin)
    if raw and not out.as_json:
        click.echo(seen.note.decode(), nl=False)
        return
    out.say(f"{origin}: {plural(seen.checkpoint.size, 'entry', 'entries')}")
    out.fact("root", seen.checkpoint.root.hex())
    out.fact("cosigned by", ", ".join(seen.cosigners) or "nobody")
    out.fact("shown by", seen.node)
    size, root = seen.checkpoint.size, seen.checkpoint.root
    out.answer(CheckpointDocument(origin, size, root, seen.cosigners, seen.note.decode(), seen.node))


@examples("comity log entries node-ch/log", "comity log entries node-ch/log --start 10 --end 20 --json")
@command.command("entries", short_help="List entries of a log.")
@ORIGIN
@click.option("--start", type=click.IntRange(0), help="First index. Default: --last entries before the end.")
@click.option("--end", type=click.IntRange(1), help="Index after the last one. Default: the checkpoint's size.")
@click.option("--last", type=click.IntRange(1, 1000), default=20, show_default=True)
def entries(origin: str, start: int | None, end: int | None, last: int) -> None:
    """List entries as a node gives them (claims; `comity log check` proves the log)."""
    out, api = output(), client()
    stop = api.log_checkpoint(origin).checkpoint.size if end is None else end
    first = max(0, stop - last) if start is None else start
    found = api.log_entries(origin, first, stop) if stop > first else []
    rows = [_row(item) for item in found]
    out.table(("index", "statement", "about", "by", "line"), rows)
    listed = tuple(EntryItem(item.index, item.line.decode(errors="replace")) for item in found)
    out.answer(EntriesDocument(origin, listed))


@examples("comity log tail node-ch/log", "comity log tail node-ch/log --follow", "comity log tail node-ch/log --last 3")
@command.command("tail", short_help="Show the newest entries of a log, and those that come.")
@ORIGIN
@click.option("--last", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option(
    "--follow",
    type=click.IntRange(1),
    is_flag=False,
    flag_value=FOLLOW_SECONDS,
    metavar="[SECONDS]",
    help=f"Look for new entries every SECONDS ({FOLLOW_SECONDS} if not given), until you stop it.",
)
def tail(origin: str, last: int, follow: int | None) -> None:
    """Show the newest entries as a node gives them, one a line. The checkpoint that they come under is verified, the
    entries are claims: `comity log check` proves the log. A node that is down while you follow is asked again."""
    out, api = output(), client()
    if out.as_json:
        raise click.UsageError("for one JSON document: comity log entries --json")
    end = api.log_checkpoint(origin).checkpoint.size
    position = max(0, end - last)
    while True:
        with _asked_again(out, follow):
            while position < end:
                found = api.log_entries(origin, position, min(end, position + MAX_SHOWN))
                for item in found:
                    out.say("  ".join(_row(item)))
                if not found:
                    break
                position = found[-1].index + 1
        if follow is None:
            return
        time.sleep(follow)
        with _asked_again(out, follow):
            end = api.log_checkpoint(origin).checkpoint.size


@contextmanager
def _asked_again(out: Output, follow: int | None) -> Iterator[None]:
    """Show the error of nodes that do not answer, where the command follows a log; else raise it."""
    try:
        yield
    except Unavailable as error:
        if follow is None:
            raise
        out.warn(str(error))


def _row(item: LogEntry) -> tuple[str, ...]:
    statement = item.entry.statement if item.entry else None
    by = f"{statement.by.kind} {statement.by.id[:12]}" if statement and statement.by else "?"
    about = (statement.subjects[0].name or short(statement.subject)) if statement else "not a statement"
    return str(item.index), statement.predicate if statement else "?", about, by, sha256(item.line)[:16]


@examples("comity log proof 0f3c…", "comity log proof 0f3c… --out proofs/")
@command.command("proof", short_help="Fetch and verify proofs that a line is logged.")
@click.argument("line")
@click.option("--out", "folder", type=NEW_FOLDER, help="Write .tlog-proof files here.")
def proof(line: str, folder: Path | None) -> None:
    """Fetch every proof that the line with SHA-256 LINE is in a log, and verify each one here."""
    out = output()
    digest = parse_digest(line)
    proven = client().log_proof(digest)
    rows = [(p.origin, str(p.index), str(p.size), ", ".join(p.cosigners) or "-") for p in proven]
    out.table(("log", "index", "of", "cosigned by"), rows)
    if folder is not None:
        durable.make_folders(folder)
        for item in proven:
            path = folder / proof_name(digest, item.origin)
            durable.write_file(path, item.proof, mode=0o644, point="proof")
            out.done(str(path))
    out.answer(ProofsDocument(digest, tuple(ProofItem(item, item.proof.decode()) for item in proven)))


@examples("comity log check node-ch/log", "comity log check node-ch/log --json")
@command.command("check", short_help="Fetch a whole log and compute its root again.")
@ORIGIN
def check(origin: str) -> None:
    """Fetch every entry, compute the root from these bytes, and compare it with the signed checkpoint and with the
    checkpoint that you saw before."""
    out = output()
    found = client().log_check(origin)
    out.done(f"{origin}: {found.size} entries from {found.node} give the signed root {found.root.hex()[:16]}…")
    out.fact("continues", _continuation(found))
    out.fact("cosigned by", ", ".join(found.cosigners) or "nobody")
    out.answer(LogCheckDocument(found))


@examples("comity log misbehaviour", "comity log misbehaviour --node node-es", "comity log misbehaviour --all --json")
@command.command("misbehaviour", short_help="List misbehaviour of logs that you or nodes have seen.")
@nodes_option("Ask this node for the proofs that it keeps.")
@click.option("--all", "all_nodes", is_flag=True, help="Ask every node.")
def misbehaviour(nodes: tuple[str, ...], all_nodes: bool) -> None:
    """List logs that showed you contradicting checkpoints; the signed notes are kept as proof. With --node or
    --all also list the proofs that nodes keep; each proof is verified again here."""
    out, api = output(), client()
    seen = api.misbehaviour()
    accused = api.accusations(nodes) if nodes or all_nodes else []
    if not seen and not accused:
        out.say("None seen.")
    for item in seen:
        out.warn(f"{item.kind}: {item.log}")
        for note in item.notes:
            out.say(note.decode(errors="replace"))
    if accused:
        rows = [(a.log, a.kind, _basis(a), ", ".join(a.nodes), a.why or "-") for a in accused]
        out.table(("log", "kind", "basis", "kept by", "why not proven"), rows)
    out.answer(
        MisbehaviourDocument(
            tuple(ContradictionItem(i.kind, i.log, tuple(n.decode(errors="replace") for n in i.notes)) for i in seen),
            tuple(map(AccusationItem.of, accused)),
        )
    )


def _continuation(found: LogCheck) -> str:
    if found.continues:
        return f"the {plural(found.continues, 'entry', 'entries')} that you saw before"
    if found.seen:
        return f"nothing: it is older than the {plural(found.seen, 'entry', 'entries')} that you saw before"
    return "new here"


def _basis(accusation: LogAccusation) -> str:
    return "proven here" if accusation.proven else f"claimed by {', '.join(accusation.nodes)}"
