"""`comity storage-initializer`: the command of a container that fills the volumes of a pod before its engine starts.

KServe calls such a container a storage initializer, and gives it pairs of arguments, a URI and a path. The container is
new at each start, so nothing is remembered between two starts, and what counts is only in the files that it is given.
The path is where a volume is mounted: it cannot be renamed, so a model is not put in place by one rename. Its files are
renamed one by one into the volume once all of them are verified and the policy is met; an engine does not run before
this command has ended with status 0.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from comity.bounded_file import read_bounded
from comity.trust.encoding import printable
from comity.trust.errors import ComityError, PolicyNotMet
from comity.trust.frozen import frozen
from comity.trust.names import Reference
from comity.trust.policy_file import MAX_POLICY_BYTES, pinned_files
from comity.trust.resolution import bound_claimant

from comity_cli.command import Command, examples, output
from comity_cli.commands.pull import PulledArtifact
from comity_cli.document import document
from comity_cli.files import FILE
from comity_cli.following import follow, show_cache_basis
from comity_cli.output import plural, size

if TYPE_CHECKING:
    from comity.trust.policy import Policy


PART_OF_MESSAGE: Final = 600
"""Bytes of each of the three parts of the error that ends the log: of the log, a pod shows the last 2,048 bytes."""


@document("storage-initializer")
class StorageInitializerDocument:
    """The models that `comity storage-initializer --json` put into volumes, in the order of its arguments."""

    models: tuple[PulledArtifact, ...]


@frozen
class Placement:
    """An artifact, and the folder into which it is to be put."""

    reference: Reference
    path: Path


@examples(
    "comity storage-initializer --policy /etc/comity/policy.toml comity://swiss-ai/apertus-8b@v1 /mnt/models",
    "comity storage-initializer --policy policy.toml -- comity://sha256:9f2c… /mnt/models",
)
@click.command(cls=Command, name="storage-initializer", short_help="Put verified models into the volumes of a pod.")
@click.option(
    "--policy", required=True, type=FILE, help="Verify with this policy (TOML), and ask the nodes of its pins."
)
@click.argument("words", nargs=-1, required=True, metavar="URI PATH [URI PATH]...")
def command(policy: Path, words: tuple[str, ...]) -> None:
    """Pull each URI (comity://NAMESPACE/NAME@VERSION, comity://sha256:DIGEST) into the folder PATH, as `comity pull`
    does: for the init container of a pod, or a storage container of KServe.

    Only the policy and the federation files that it pins count: what this user pinned is not read, and nothing is
    remembered. So a name is refused if neither the policy nor a pinned charter says whose it is.

    A model that is refused has no file in PATH; only PATH/.comity/incoming has verified parts, with which the next
    start goes on. The last lines say why. The exit status is that of the first pull that failed; what was pulled before
    it stays."""
    placements, out, placed = _placements(words), output(), list[PulledArtifact]()
    with _ended_by_the_cluster(), _short_at_the_end(), tempfile.TemporaryDirectory(prefix="comity-") as state:
        from comity_client.client import Client
        from comity_client.home import Home

        api = Client(Home(Path(state)))
        judged_by = api.policy(policy)
        for file in _pinned_files(policy):
            api.pin(file)
        for each in placements:
            _require_owner(each.reference, judged_by)
        for each in placements:
            with follow(out, "pulling") as on_event:
                pulled = api.pull(str(each.reference), to=each.path, policy=judged_by, on_event=on_event)
            if pulled.cache is not None:
                show_cache_basis(out, pulled.cache, "hashed again with its evidence", time.time())
            placed.append(PulledArtifact.of(pulled))
            out.done(f"{pulled.title}: {plural(pulled.files, 'file')}, {size(pulled.bytes)}, verified, in {each.path}")
    out.answer(StorageInitializerDocument(tuple(placed)))


def _placements(words: Sequence[str]) -> list[Placement]:
    """Read the pairs. Raises Malformed (BAD-NAME, BAD-ID), and click.UsageError for half a pair, for what is no
    folder, and for folders of which one is in the other: the files of one model would be no part of the other."""
    if len(words) % 2:
        raise click.UsageError(f"each URI needs a PATH: {words[-1]!r} has none")
    found = [
        Placement(Reference.parse(uri), Path(path).resolve()) for uri, path in zip(words[::2], words[1::2], strict=True)
    ]
    for each in found:
        if each.path.exists() and not each.path.is_dir():
            raise click.UsageError(f"{each.path} is not a folder")
    for outer, inner in permutations(found, 2):
        if inner.path.is_relative_to(outer.path):
            raise click.UsageError(f"two models need two folders: {inner.path} is in {outer.path}")
    return found


def _pinned_files(policy: Path) -> list[Path]:
    """Return the federation files of a policy that was read without a fault. Raises click.UsageError if it has none."""
    named = pinned_files(read_bounded(policy, MAX_POLICY_BYTES))
    if not named:
        raise click.UsageError(f"{policy} pins no federation, so there is no node to ask: name a file in [[pin]]")
    return [policy.parent / each for each in named]


def _require_owner(reference: Reference, policy: Policy) -> None:
    """Refuse a name that only its claimants say is theirs: anybody may claim one, nobody looks at what a pod resolves,
    and it has no memory. A digest, an accepted publisher, and a binding decide; for a repository of an upstream the
    policy counts members. Raises PolicyNotMet (NAME-NOT-BOUND)."""
    if reference.digest or reference.mirrored or policy.publishers:
        return
    if bound_claimant(policy, reference.repository or "") is None:
        raise PolicyNotMet(
            f"nobody says whose name {reference.repository} is",
            why="its namespace is bound neither by the charter nor by the policy, which accepts any publisher",
            hint=f"name comity://sha256:DIGEST, or write a policy: comity policy new --for {reference}",
            code="NAME-NOT-BOUND",
        )


@contextlib.contextmanager
def _short_at_the_end() -> Iterator[None]:
    """An error of the block that is too long for the message of a pod is printed in full, and raised cut: it may name
    hundreds of nodes, and a node may have written parts of it."""
    try:
        yield
    except ComityError as error:
        full = [printable(part) for part in (error.what, error.why, error.hint)]
        error.what, error.why, error.hint = (_cut(part) for part in full)
        if full != [error.what, error.why, error.hint]:
            output().warn(". ".join(part for part in full if part))
        raise


def _cut(text: str) -> str:
    data = text.encode()
    if len(data) <= PART_OF_MESSAGE:
        return text
    return f"{data[:PART_OF_MESSAGE].decode(errors='ignore')} … (whole in the log)"


@contextlib.contextmanager
def _ended_by_the_cluster() -> Iterator[None]:
    """In the block, SIGTERM interrupts as Ctrl-C does. The first process of a container ignores it otherwise, and the
    cluster would wait for the end of its patience."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
