"""The description of a kit: in a folder, whose files are hashed, or of an artifact at nodes, which send that file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from comity.bounded_file import read_bounded
from comity.rules.kits.contents import kit_problems
from comity.rules.kits.description import KIT_FILE, MAX_KIT, Kit
from comity.trust.artifact import Manifest
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen

from comity_client.client import Client
from comity_client.evidence.proofs import fetch_small


@frozen
class DescribedKit:
    """A kit, the manifest of all its files, and what of these is not as the kit says."""

    kit: Kit
    manifest: Manifest
    title: str

    @property
    def problems(self) -> tuple[str, ...]:
        return kit_problems(self.kit, self.manifest)


def read_kit(folder: Path) -> Kit:
    """The description in a folder. Blocking. Raises NotFound, Unavailable, Malformed (KIT)."""
    return _parse(read_bounded(folder / KIT_FILE, MAX_KIT, hint="comity kit build RECIPE OUT"))


def kit_of_folder(client: Client, folder: Path, on_hashed: Callable[[int], None]) -> DescribedKit:
    """The kit in a folder, whose files are hashed now. Raises as `read_kit` and `Client.local_copy`."""
    kit = read_kit(folder)
    return DescribedKit(kit, client.local_copy(folder, on_hashed=on_hashed).manifest, str(folder))


def kit_of_artifact(client: Client, reference: str) -> DescribedKit:
    """The kit that an artifact is, as nodes have it: its description is proven by the digest of the artifact, and no
    other file is read. Raises as `Client.show`, and NotFound (NO-KIT) if it is none."""
    info = client.show(reference)
    entry = info.manifest.by_path.get(KIT_FILE)
    if entry is None:
        raise NotFound(f"{info.title} is no run-kit", why=f"it has no file {KIT_FILE}", code="NO-KIT")
    if entry.size > MAX_KIT:
        raise _malformed(f"{KIT_FILE} has {entry.size} bytes, at most {MAX_KIT}")
    data = client.user.run(lambda session: fetch_small(session, entry, MAX_KIT))
    return DescribedKit(_parse(data), info.manifest, info.title)


def _parse(data: bytes) -> Kit:
    try:
        return Kit.parse(data)
    except Malformed as error:
        raise _malformed(str(error)) from error


def _malformed(why: str) -> Malformed:
    return Malformed("the description of the kit cannot be used", why=why, code="KIT")
