"""`comity cache`: what was pulled into a Hub cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from comity.trust.encoding import short

from comity_cli.command import Group, agree, examples, output
from comity_cli.document import document
from comity_cli.files import NEW_FOLDER
from comity_cli.output import plural, size

if TYPE_CHECKING:
    from comity_client.pull.cache import CachedArtifact, InterruptedFile

F = TypeVar("F", bound=Callable[..., Any])


@document("cache")
class CacheDocument:
    """What was pulled, as `comity cache ls --json` prints it."""

    cache: Path
    artifacts: tuple[CachedArtifact, ...]
    interrupted: tuple[InterruptedFile, ...]


@document("cache-removed")
class CacheRemovedDocument:
    """What `comity cache rm --json` removed.

    With `dry_run` nothing was removed.
    """

    removed: tuple[CachedArtifact, ...]
    freed: int
    dry_run: bool


@document("cache-pruned")
class CachePrunedDocument:
    """What `comity cache prune --json` removed.

    With `dry_run` nothing was removed.
    """

    files: tuple[InterruptedFile, ...]
    freed: int
    dry_run: bool


def _cache_option(command: F) -> F:
    return click.option("--hub-cache", type=NEW_FOLDER, help="The Hugging Face cache. Default: yours.")(command)


@examples("comity cache ls", "comity cache rm swiss-ai/apertus-8b@v1", "comity cache prune --dry-run")
@click.group(cls=Group, name="cache", short_help="List, remove and clean up what was pulled.")
def command() -> None:
    """Artifacts that `comity pull` placed into a Hugging Face cache on this machine. What other programs placed there
    is neither listed nor removed. Removing asks no node and changes no log: it can be pulled again."""


@examples("comity cache ls", "comity cache ls --json")
@command.command("ls", short_help="List what was pulled.")
@_cache_option
def ls(hub_cache: Path | None) -> None:
    """List the pulled artifacts, with the bytes that their files take."""
    from comity_client.pull.cache import cached_artifacts, interrupted_files

    out, cache = output(), _cache(hub_cache)
    found, partial = cached_artifacts(cache), interrupted_files(cache)
    if found:
        rows = [
            (
                item.name,
                ", ".join(item.versions) or "-",
                short(item.artifact),
                str(item.files),
                size(item.bytes),
                "partial" if item.partial else "complete",
            )
            for item in found
        ]
        out.table(("name", "versions", "digest", "files", "size", "state"), rows, shorten=("name", "versions"))
    else:
        out.say(f"Nothing in {cache} was pulled by comity.")
    if partial:
        out.say(f"Interrupted pulls left {plural(len(partial), 'file')}, {size(sum(each.bytes for each in partial))}.")
        out.hint("comity pull REF   goes on with one;   comity cache prune   removes them")
    out.answer(CacheDocument(cache, tuple(found), tuple(partial)))


@examples("comity cache rm swiss-ai/apertus-8b@v1", "comity cache rm swiss-ai/apertus-8b@v1 --dry-run")
@command.command("rm", short_help="Remove a pulled artifact from this machine.")
@click.argument("references", nargs=-1, required=True, metavar="REF...")
@_cache_option
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
def rm(references: tuple[str, ...], hub_cache: Path | None, dry_run: bool, yes: bool) -> None:
    """Remove the pulled copy of each REF. Files that another pulled version shares stay."""
    from comity_client.pull.cache import find_cached, remove_cached
    from comity_client.pull.destinations import known_reference

    out, cache = output(), _cache(hub_cache)
    named = (find_cached(cache, known_reference(each, cache)) for each in references)
    found = list({item.folder: item for item in named}.values())
    for item in found:
        out.say(f"{item.reference}  {plural(item.files, 'file')}, {size(item.bytes)}  {item.folder}")
    freed = 0
    if not dry_run:
        agree("Remove this from the cache?", yes=yes)
        freed = sum(map(remove_cached, found))
        out.done(f"{plural(len(found), 'artifact')} removed, {size(freed)} freed")
    out.answer(CacheRemovedDocument(tuple(found), freed, dry_run))


@examples("comity cache prune", "comity cache prune --dry-run", "comity cache prune --yes --json")
@command.command("prune", short_help="Remove what interrupted pulls left.")
@_cache_option
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
def prune(hub_cache: Path | None, dry_run: bool, yes: bool) -> None:
    """Remove the partial files of interrupted and refused pulls. A pull that runs now keeps its files. Without them an
    interrupted pull begins again."""
    from comity_client.pull.cache import interrupted_files, remove_interrupted

    out, cache = output(), _cache(hub_cache)
    found, freed = interrupted_files(cache), 0
    total = sum(each.bytes for each in found)
    out.say(f"Interrupted pulls left {plural(len(found), 'file')}, {size(total)}, in {cache}.")
    if found and not dry_run:
        agree("Remove these files?", yes=yes)
        freed = remove_interrupted(found)
        out.done(f"{size(freed)} freed")
    out.answer(CachePrunedDocument(tuple(found), freed, dry_run))


def _cache(chosen: Path | None) -> Path:
    from comity_client.hub_cache import default_cache

    return chosen or default_cache()
