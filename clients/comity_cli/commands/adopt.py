"""`comity adopt`: the evidence of a folder that came from elsewhere, beside its files; and its files in a Hub cache."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import click
from comity.trust.encoding import Digest, short
from comity_client.hub_cache import default_cache

from comity_cli import verdicts
from comity_cli.command import Command, client, examples, output
from comity_cli.document import document
from comity_cli.files import FILE, FOLDER, NEW_FOLDER
from comity_cli.output import plural, size


@document("adopted")
class AdoptedDocument:
    """What `comity adopt --json` wrote: the evidence of `artifact` into `folder`.

    `basis` says how it was found. `missing` are files of the artifact that are not there. `cache`: the folder in a Hub
    cache that has the files too, which are `cloned` or hard links.
    """

    title: str
    artifact: Digest
    folder: Path
    basis: str
    files: int
    bytes: int
    missing: tuple[str, ...]
    alarms: tuple[str, ...]
    cache: Path | None
    cloned: bool
    verdict: Annotated[Mapping[str, object], {"$ref": "../verdict.json"}]


@examples(
    "comity adopt ./apertus-8b",
    "comity adopt ./apertus-8b --policy ministry.toml --into-cache",
)
@click.command(cls=Command, name="adopt", short_help="Keep the evidence of files from elsewhere beside them.")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--policy", type=FILE, help="Judge with this policy (TOML).")
@click.option("--into-cache", is_flag=True, help="Give the files to your Hugging Face cache too, without copying them.")
@click.option("--hub-cache", type=NEW_FOLDER, help="Give them to this Hugging Face cache.")
@click.option("--hard-links", is_flag=True, help="Do so by hard links: then a change of a file here changes the cache.")
def command(folder: Path, policy: Path | None, into_cache: bool, hub_cache: Path | None, hard_links: bool) -> int:
    """Find the artifact of DIR by its files, fetch the evidence about it, judge it by your policy, and write the
    evidence into DIR, as a pull does. Afterwards `comity verify DIR` needs no network. No file of DIR is changed or
    copied.

    The files are hashed; nodes learn what they learn from comity identify.

    Exit status: 0 accepted, 3 other bytes or verification failed, 4 policy not met, 5 evidence missing or no node knows
    it, 8 files are missing. Nothing is written with 3, 4 and 5.
    """
    out, api = output(), client()
    cache = hub_cache or (default_cache() if into_cache else None)
    if hard_links and cache is None:
        raise click.UsageError("--hard-links says how files get into a cache: give --into-cache")
    judged_by = api.policy(policy) if policy else None
    with out.progress("hashing", 0) as progress:
        adopted = api.adopt(
            folder,
            hub_cache=cache,
            hard_links=hard_links,
            policy=judged_by,
            on_hashed=progress.advance,
        )
    out.done(f"{adopted.title} ({short(adopted.artifact)}): accepted by the policy")
    out.prose(adopted.basis, first="  ")
    out.fact("evidence", str(adopted.folder / ".comity"))
    out.fact("files", f"{plural(adopted.files, 'file')}, {size(adopted.bytes)}; none was changed or copied")
    if adopted.cache is not None:
        out.fact("cache", str(adopted.cache))
        how = "its files share their blocks with those here" if adopted.cloned else "its files are those here"
        out.fact("", f"{how}: no space was used")
        if not adopted.cloned:
            out.warn("what writes into a file here changes the cache too; comity verify finds that, a loader does not")
    verdicts.warn(out, adopted.verdict)
    for alarm in adopted.alarms:
        out.warn(alarm)
    out.answer(
        AdoptedDocument(
            title=adopted.title,
            artifact=adopted.artifact,
            folder=adopted.folder,
            basis=adopted.basis,
            files=adopted.files,
            bytes=adopted.bytes,
            missing=adopted.missing,
            alarms=adopted.alarms,
            cache=adopted.cache,
            cloned=adopted.cloned,
            verdict=adopted.verdict.to_json(),
        )
    )
    by = f" --policy {shlex.quote(str(policy))}" if policy else ""
    out.hint(f"comity verify {shlex.quote(str(folder))}{by}")
    return adopted.verdict.exit_status
