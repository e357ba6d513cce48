"""`comity identify`."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import comity
from comity.trust.encoding import Digest, format_moment, short
from comity.trust.evidence import PACK
from comity.trust.frozen import frozen

from comity_cli.command import Command, client, examples, options_as, output
from comity_cli.files import FILE, NEW_FILE
from comity_cli.identified import IdentifiedDocument, exit_status
from comity_cli.output import Output, plural, size
from comity_cli.tensors_view import show_same_tensors

if TYPE_CHECKING:
    from comity_client.identify.identify import Identified
    from comity_client.identify.match import FolderOf

SHOWN: Final = 20
"""Files of one kind that are listed without --all."""
MOMENT: Final = "%Y-%m-%d %H:%M UTC"
PATHS: Final = 3
"""Paths of a folder's list that are named in a row."""


@frozen
class WrittenFiles:
    """The files to write what was found to."""

    page: Path | None
    sarif: Path | None


@examples(
    "comity identify ./apertus-8b",
    "comity identify ~/.cache/huggingface/hub --policy ministry.toml",
    "comity identify /srv/models/*.gguf --json",
    "comity identify /srv/models --html found.html --sarif found.sarif",
    "comity identify --require ministry.toml ./apertus-8b",
    "comity identify ./incident --index",
)
@click.command(cls=Command, name="identify", short_help="Say what files are, and judge the artifacts that they are of.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--policy", type=FILE, help="Judge with this policy (TOML).")
@click.option(
    "--require", type=FILE, help="Only say whether these files may be loaded, by this policy and what is kept."
)
@click.option("--index", "by_index", is_flag=True, help="Ask no node: by the indexes of `comity index fetch`.")
@click.option("--fresh", is_flag=True, help="Read every file again, also those whose hash is kept.")
@click.option("--all", "every", is_flag=True, help="List every file.")
@click.option("--html", "page", type=NEW_FILE, help="Write an HTML page to this file.")
@click.option("--sarif", type=NEW_FILE, help="Write what somebody should look at to this file, as SARIF 2.1.0.")
@options_as("files", WrittenFiles)
def command(
    paths: tuple[Path, ...],
    policy: Path | None,
    require: Path | None,
    by_index: bool,
    fresh: bool,
    every: bool,
    files: WrittenFiles,
) -> int:
    """Hash the files at or below each PATH, find the artifacts that they are of, and judge these by your policy: of a
    folder of any origin, such as a Hub cache, an Ollama store or a disk. Of weight files that no node knows, say which
    artifacts have the same tensors. Nothing there is changed.

    Nodes learn the first bits of the digest of each file, which many files share, and of 32 pieces of weight files that
    they do not know; then, of which published artifacts you have files or tensors.

    With --index nobody learns anything: files are named by the indexes that are here, and proven by evidence packs.

    With --require no node is asked: programs ask so before they load. The answer is that of comity verify, from the
    evidence beside the files (pull, adopt) and hashes that are kept, and says how old the evidence is.

    Exit status: 0 all files are of accepted artifacts, which are complete; 3 other bytes or verification failed, 4
    policy not met, 5 evidence or an answer missing, 8 files missing or at other places, 9 no node knows some files.
    """
    if require is not None:
        if policy or by_index or every or files.page or files.sarif:
            raise click.UsageError(
                "--require names the policy, and lists no files: give it with --fresh and --json only"
            )
        from comity_cli.local_verdicts import show_local_verdicts

        return show_local_verdicts(output(), paths, require, fresh=fresh)
    out, api = output(), client()
    with out.progress("hashing", 0) as progress:
        judged_by = api.policy(policy) if policy else None
        found = api.identify(paths, policy=judged_by, fresh=fresh, by_index=by_index, on_hashed=progress.advance)
    _show_folders(out, found)
    _show_files(out, found, every)
    _show_artifacts(out, found)
    show_same_tensors(out, found.tensors)
    _show_named(out, found, every)
    _show_rest(out, found, every)
    _write(out, found, policy, files)
    out.answer(IdentifiedDocument.of(found))
    return exit_status(found)


def _write(out: Output, found: Identified, policy: Path | None, files: WrittenFiles) -> None:
    """Write what was found for other readers. Raises OutOfSpace, Unavailable."""
    from comity.content import durable

    status = exit_status(found)
    if files.page is not None:
        from comity_client.identify.page import render_identified

        text = render_identified(found, status, int(time.time()), str(policy or ""), size)
        durable.write_file(files.page, text.encode(), mode=0o644, point="page")
        out.say(f"written: {files.page}")
    if files.sarif is not None:
        from comity_client.identify.sarif import sarif_of

        durable.write_file(files.sarif, sarif_of(found, comity.__version__, status).encode(), mode=0o644, point="sarif")
        out.say(f"written: {files.sarif}")


def _show_folders(out: Output, found: Identified) -> None:
    if not found.matched.folders:
        return
    rows = [
        (str(each.folder), found.artifacts[each.artifact].title, each.state, "; ".join(_differences(found, each)))
        for each in found.matched.folders
    ]
    out.table(("folder", "artifact", "state", ""), rows, shorten=("folder", "artifact"))


def _differences(found: Identified, each: FolderOf) -> Iterator[str]:
    if each.stored_as:
        yield f"stored as {each.stored_as}"
    if each.missing:
        yield f"{each.present} of {each.files} files; missing: {_some(each.missing)}"
    if each.changed:
        yield f"other bytes: {_some(each.changed)}"
    if each.extra:
        yield f"in no manifest: {_some(each.extra)}"
    if others := found.matched.others.get(each.folder):
        yield f"or {plural(len(others), 'other artifact')} with as many of these files"


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - PATHS} more" if len(paths) > PATHS else ""
    return ", ".join(paths[:PATHS]) + more


def _show_files(out: Output, found: Identified, every: bool) -> None:
    files = found.matched.files
    shown = files if every else files[:SHOWN]
    if shown:
        rows = [(str(each.file.path), found.artifacts[each.artifact].title, each.path) for each in shown]
        out.table(("file", "is of", "there named"), rows, shorten=("file", "is of"))
    if len(files) > len(shown):
        out.say(f"  and {plural(len(files) - len(shown), 'file')} more of known artifacts; --all lists them")


def _show_artifacts(out: Output, found: Identified) -> None:
    for known in found.artifacts.values():
        if known.problem:
            out.prose(f"{known.title}: {known.problem}", first=f"{out.mark('✗', 'red')} ")
        elif known.verdict is not None:
            partly = "" if known.verdict.accepted else ", as far as its files are here"
            out.done(f"{known.title} ({short(known.artifact)}): accepted by the policy{partly}")
        for each in known.advised:
            out.warn(f"{known.title}: {each}")
        for derived in known.derived[:PATHS]:
            out.say(f"  {derived.words}")


def _show_named(out: Output, found: Identified, every: bool) -> None:
    shown = found.named if every else found.named[:SHOWN]
    if shown:
        rows = [(str(e.file.path), e.name, "member" if e.of_members else "other", ", ".join(e.nodes)) for e in shown]
        headers = ("named, not proven", "claimed name", "by", "in the index of")
        out.table(headers, rows, shorten=(headers[0], headers[1], headers[3]))
    if len(found.named) > len(shown):
        out.say(f"  and {plural(len(found.named) - len(shown), 'file')} more that an index names; --all lists them")


def _show_rest(out: Output, found: Identified, every: bool) -> None:
    asked = ("no node knows", "not found, and nodes said not all")
    nobody = ("in no index", "not found so far") if found.by_index else asked
    for files, what in zip((found.matched.unknown, found.unsure), nobody, strict=True):
        shown = files if every else files[:SHOWN]
        if shown:
            out.table(
                (what, "size", "sha256"), [(str(e.path), size(e.size), short(e.sha256 or Digest(""))) for e in shown]
            )
        if len(files) > len(shown):
            out.say(f"  and {plural(len(files) - len(shown), 'file')} more; --all lists them")
    unread = defaultdict[str, list[str]](list)
    for each in found.unread:
        unread[each.problem].append(str(each.path))
    for problem, paths in unread.items():
        out.warn(f"{plural(len(paths), 'path')} not read: {problem}: {_some(paths)}")
    for said in found.nodes:
        if said.problem:
            out.warn(f"{said.node}: {said.problem}")
        elif said.unread and said.as_of is None:
            out.warn(f"{said.node} has not read {plural(said.unread, 'statement')} yet")
        elif said.as_of is not None:
            lacks = f"; it lacks {plural(said.unread, 'statement')}: comity index fetch" if said.unread else ""
            out.say(f"Index of {said.node}, signed {format_moment(said.as_of, MOMENT)}: {said.indexed:,} files{lacks}.")
    unknown = len(found.matched.unknown) + len(found.unsure)
    named = f" {len(found.named)} named by an index," if found.named else ""
    out.say(
        f"{plural(found.files, 'file')}, {size(found.bytes)}: {plural(len(found.matched.folders), 'folder')} of known"
        f" artifacts, {plural(len(found.matched.files), 'file')} elsewhere,{named} {unknown} unknown."
    )
    _hint(out, found)


def _hint(out: Output, found: Identified) -> None:
    """The next step: to prove what an index names; or, for the first folder that is an accepted artifact, the evidence
    beside it."""
    if found.named:
        out.hint("prove it, by asking the nodes about these files: the same without --index")
        return
    for each in found.matched.folders:
        accepted = not found.artifacts[each.artifact].problem
        if accepted and each.in_archive:
            out.hint(f"unpack {each.within}: the content of files in an archive is not inspected")
            return
        if accepted and each.complete and not (each.within or (each.folder / PACK).exists()):
            out.hint(f"put the evidence beside it: comity adopt {shlex.quote(str(each.folder))}")
            return
