"""The cache of an unmodified huggingface_hub, filled so that it finds the artifact without any network.

    models--<namespace>--<name>/blobs/<sha256>                    the files
                                snapshots/<commit>/<path>         relative links to them, and the pack in .comity/
                                refs/<version>, refs/main         the commit id, 40 hex digits

The commit id is the upstream's of a repository that was mirrored, else computed from the manifest (`comity.trust.hub`),
so that every client and every node fills the same cache. Sources: huggingface_hub's cache layout; reference runs.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.durable import disk_errors
from comity.trust.digest import Digest, sha256
from comity.trust.errors import Malformed, NotFound
from comity.trust.evidence import PACK
from comity.trust.hub import commit_id
from comity.trust.manifest import MAX_BYTES as MAX_MANIFEST
from comity.trust.manifest import FileEntry, Manifest
from comity.trust.names import UPSTREAM, Name, Reference
from comity.verifier import read_bounded

from comity_client.pulling.pack import INCOMING

MAX_REF: Final = 64
_COMMIT: Final = re.compile(r"[0-9a-f]{40}\Z")


def default_cache() -> Path:
    """Where huggingface_hub looks: `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else `~/.cache/huggingface/hub`."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


class HubPlace:
    """One repository in a Hub cache.

    Args:
        newest: whether `refs/main` shall name this version; it does anyway where there is no `main` yet.
        commit: the upstream's, of a repository that was mirrored; else it is computed.
    """

    def __init__(self, cache: Path, name: Name, manifest: Manifest, *, newest: bool, commit: str = "") -> None:
        self._repository = cache.absolute() / f"models--{name.namespace}--{name.name}"
        self._version = name.version
        self._newest = newest
        self.commit = commit or commit_id(manifest)

    @property
    def folder(self) -> Path:
        return self._repository / "snapshots" / self.commit

    @property
    def incoming(self) -> Path:
        return self._repository / PACK / INCOMING

    def prepare(self) -> None:
        with disk_errors(f"{self._repository} was not made ready"):
            for made in (self.incoming, self._repository / "blobs", self._repository / "refs"):
                durable.make_folders(made)

    def holder(self, entry: FileEntry) -> Path:
        return self._repository / "blobs" / entry.sha256

    def replaceable(self, entry: FileEntry) -> bool:
        """A blob that is not what its name says is of no use to anybody."""
        return True

    def finish(self, entries: Sequence[FileEntry]) -> None:
        with disk_errors(f"{self._repository} was not linked"):
            for entry in entries:
                link = self.folder / entry.path
                durable.make_folders(link.parent)
                self._link(link, Path(os.path.relpath(self.holder(entry), link.parent)))
            refs = self._repository / "refs"
            named = [refs / self._version]
            if self._newest or not (refs / "main").exists():
                named.append(refs / "main")
            for ref in named:
                with durable.staged(ref, mode=0o644, folder=self.incoming, point="ref") as file:
                    file.write(self.commit.encode())

    def _link(self, link: Path, target: Path) -> None:
        """Make `link` point to `target`, in one step where something else is there. It is made in `incoming`: what a
        crash leaves in a snapshot, or among the refs, would be taken for a part of it."""
        if link.is_symlink() and link.readlink() == target:
            return
        temporary = self.incoming / f"{secrets.token_hex(8)}{durable.TEMPORARY}"
        temporary.symlink_to(target)
        durable.move(temporary, link, point="link")


def cached(cache: Path, reference: Reference) -> Path:
    """The snapshot in a Hub cache that a reference stands for, by what is there alone. Raises NotFound."""
    repository = (reference.repository or "*").removeprefix(UPSTREAM).replace("/", "--")
    for found in sorted(cache.glob(f"models--{repository}")):
        for snapshot in _named(found, reference):
            if (snapshot / PACK).is_dir():
                return snapshot
    raise NotFound(f"{reference} is not in {cache}", hint=f"comity pull {reference}")


def _named(repository: Path, reference: Reference) -> list[Path]:
    snapshots = repository / "snapshots"
    if reference.digest is not None:
        return [s for s in sorted(snapshots.glob("*")) if _is_artifact(s, reference.digest)]
    if reference.mirrored and _COMMIT.match(reference.version or ""):
        return [snapshots / (reference.version or "")]
    ref = repository / "refs" / (reference.version or "main")
    try:
        commit = read_bounded(ref, MAX_REF).decode("ascii", "replace").strip()
    except (NotFound, Malformed):
        return []
    return [snapshots / commit] if _COMMIT.match(commit) else []


def _is_artifact(snapshot: Path, digest: Digest) -> bool:
    try:
        return sha256(read_bounded(snapshot / PACK / "manifest.json", MAX_MANIFEST)) == digest
    except (NotFound, Malformed):
        return False
