"""Looking into the files of a pull before they are placed: whatever the policy refuses then never gets its name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from comity.content.durable import disk_errors
from comity.formats.inspecting import by_name, inspect
from comity.trust.evidence import FoundFile
from comity.trust.manifest import FileEntry, Manifest

from comity_client.pulling.place import Place


def announced(manifest: Manifest) -> Iterator[FoundFile]:
    """The files as they are going to be, with what their names tell of them."""
    return (FoundFile(e.path, e.size, e.sha256, inspection=by_name(e.path)) for e in manifest.files)


def look_into(place: Place, entries: Sequence[FileEntry], here: Collection[str]) -> list[FoundFile]:
    """The files of `entries`, which were hashed already: those of `here` in their places, the others among what came
    in. Raises Unavailable."""
    return [_found(place, entry, entry.path in here) for entry in entries]


def _found(place: Place, entry: FileEntry, here: bool) -> FoundFile:
    holders = [place.incoming / entry.sha256, place.holder(entry)]
    path = next((path for path in (reversed(holders) if here else holders) if path.exists()), holders[-1])
    with disk_errors(f"{path} was not looked into"), path.open("rb", buffering=0) as file:
        seen = inspect(file, entry.path, entry.size)
    return FoundFile(entry.path, entry.size, entry.sha256, inspection=seen)
