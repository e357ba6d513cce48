"""What is different between two inventories: pure.

What lies where is compared by bytes, so that a node which does not answer makes nothing new or gone. A folder of an
artifact is one difference, whatever happened to its files; another file is one of its own.

    warned      there is an advisory about an artifact here that was not there before
    verdict     the policy says something else of an artifact than before, or does not accept a new one
    changed     a folder or file has other bytes
    new, gone   a folder or file is there, or is no longer there
    answer      nodes say something else of the same bytes
    unread      what was there before was not read, or was not looked at
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from comity.trust.encoding import Digest, short
from comity.trust.frozen import frozen

from comity_client.inventory.inventory import (
    KINDS,
    MAX_LINE,
    Inventory,
    InventoryDifference,
    InventoryFile,
    InventoryWarning,
)

ALTERED: Final = "changed"
"""The state of a folder that has other bytes than its artifact."""
NAMED: Final = 3
"""Files of a folder that a difference names."""
_ANSWERS: Final = {
    "artifact": "of an artifact",
    "unknown": "no node knows it",
    "unsure": "not found, and nodes said not all",
    "archive": "an archive, or a document of a store",
    "empty": "empty",
}
_NOT_LOOKED_AT: Final = "not looked at this time"


def differences(before: Inventory | None, now: Inventory) -> tuple[InventoryDifference, ...]:
    """What is different, in a fixed order. Of a first inventory: warnings, artifacts that are not accepted, and folders
    with other bytes than their artifact has."""
    found = list(_of_artifacts(before, now))
    if before is not None:
        found += _of_places(_Places(before), _Places(now))
    else:
        places = _Places(now)
        altered = (each for each in now.folders if each.state == ALTERED)
        found += (_difference("changed", each.path, places.what(each.path), each.artifact) for each in altered)
    return in_order(found)


def in_order(found: Iterable[InventoryDifference]) -> tuple[InventoryDifference, ...]:
    """Differences in the order in which they are told, each once."""
    return tuple(
        sorted(set(found), key=lambda each: (KINDS.index(each.kind), each.path, each.text, str(each.artifact)))
    )


def urgent(found: Iterable[InventoryDifference], now: Inventory) -> tuple[InventoryDifference, ...]:
    """The differences that tell of an artifact here that is newly warned about or not accepted, or of a folder that has
    other bytes than its artifact."""
    refused = {each.artifact for each in now.artifacts if each.verdict != "accepted"}
    altered = {each.path for each in now.folders if each.state == ALTERED}

    def is_urgent(each: InventoryDifference) -> bool:
        if each.kind == "verdict":
            return each.artifact in refused
        return each.kind == "warned" or (each.kind in ("changed", "new", "answer") and each.path in altered)

    return tuple(filter(is_urgent, found))


def _of_artifacts(before: Inventory | None, now: Inventory) -> Iterator[InventoryDifference]:
    earlier = {each.artifact: each for each in before.artifacts} if before else {}
    places = _places_of(now)
    for each in now.artifacts:
        where = places.get(each.artifact, ())
        first = where[0] if where else ""
        more = f"; also in {len(where) - 1} other places" if len(where) > 1 else ""
        old = earlier.get(each.artifact)
        for warning in each.advisories:
            if old is None or warning not in old.advisories:
                yield _difference("warned", first, f"{each.title}: {warning_text(warning)}{more}", each.artifact)
        if each.verdict != (old.verdict if old else "accepted"):
            why = f": {each.why}" if each.why else ""
            was = f", before {old.verdict}" if old else ""
            yield _difference("verdict", first, f"{each.title}: {each.verdict}{was}{why}{more}", each.artifact)


def warning_text(warning: InventoryWarning) -> str:
    by = "its publisher" if warning.by_publisher else warning.by[:12]
    return f"{warning.kind} ({warning.severity}) by {by}: {warning.text}"


def _places_of(inventory: Inventory) -> Mapping[Digest, list[str]]:
    """Where each artifact is: its folders, then single files."""
    found = defaultdict[Digest, list[str]](list)
    for folder in sorted(inventory.folders, key=lambda each: each.path):
        found[folder.artifact].append(folder.path)
    elsewhere = ((file.path, file.artifact) for file in inventory.files if file.artifact is not None)
    for path, artifact in sorted(elsewhere):
        found[artifact].append(path)
    return found


class _Places:
    """An inventory by paths. Names that are shown alike are one path."""

    def __init__(self, inventory: Inventory) -> None:
        self.files = defaultdict[str, list[InventoryFile]](list)
        for file in inventory.files:
            self.files[file.path].append(file)
        self.folders = {each.path: each for each in inventory.folders}
        self.unread = {each.path: each.problem for each in inventory.unread}
        self.roots = frozenset(inventory.paths)
        self._titles = {each.artifact: each.title for each in inventory.artifacts}

    def digests(self, path: str) -> list[Digest]:
        return [each.sha256 for each in self.files.get(path, ())]

    def artifact(self, path: str) -> Digest | None:
        """The artifact that a folder, or a file outside of one, is of."""
        if (folder := self.folders.get(path)) is not None:
            return folder.artifact
        return next((each.artifact for each in self.files.get(path, ())), None)

    def what(self, path: str) -> str:
        """What a folder or file is; empty if it is neither."""
        if (folder := self.folders.get(path)) is not None:
            return f"{self._title(folder.artifact)}, {folder.state}"
        for file in self.files.get(path, ()):
            named = f"{file.named} of {self._title(file.artifact)}" if file.artifact is not None else ""
            return named or _ANSWERS[file.known]
        return ""

    def _title(self, artifact: Digest) -> str:
        return self._titles.get(artifact, f"sha256:{short(artifact)}")

    def why_unread(self, path: str) -> tuple[str, str] | None:
        """What was not read that has a path, and why; None if it was looked at."""
        for each in _upwards(path):
            if each in self.unread:
                return each, self.unread[each]
        if not any(each in self.roots for each in _upwards(path)):
            return path, _NOT_LOOKED_AT
        return None


@frozen
class _Group:
    """What happened to the files of a folder of an artifact, or to one file: their paths."""

    new: list[str]
    gone: list[str]
    changed: list[str]
    same: list[str]


def _of_places(before: _Places, now: _Places) -> Iterator[InventoryDifference]:
    tops = before.folders.keys() | now.folders.keys()
    groups, unread, top_of = dict[str, _Group](), Counter[tuple[str, str]](), dict[str, str]()
    for path in sorted(before.files.keys() | now.files.keys()):
        above = path.rpartition("/")[0]
        if above not in top_of:
            top_of[above] = next((each for each in _upwards(above) if each in tops), "")
        top = top_of[above] or path
        was, has = before.digests(path), now.digests(path)
        if not has and (why := now.why_unread(path)) is not None:
            unread[why if why[0] != path else (top, why[1])] += 1
            continue
        if (group := groups.get(top)) is None:
            group = groups[top] = _Group([], [], [], [])
        (group.same if was == has else group.new if not was else group.changed if has else group.gone).append(path)
    for (path, problem), count in unread.items():
        yield _difference("unread", path, f"{problem}; {count} of the files before")
    for top, group in groups.items():
        yield from _of_group(top, group, before, now)


def _of_group(top: str, group: _Group, before: _Places, now: _Places) -> Iterator[InventoryDifference]:
    artifact = now.artifact(top)
    if not (group.new or group.gone or group.changed or before.artifact(top) != artifact):
        return
    here = [*group.same, *group.changed, *group.new]
    was = before.what(top) or next(filter(None, map(before.what, [*group.same, *group.changed, *group.gone])), "")
    has = now.what(top) or next(filter(None, map(now.what, here)), "")
    if group.new and len(group.new) == len(here) and not group.gone:
        yield _difference("new", top, has, artifact)
    elif group.gone and not here:
        yield _difference("gone", top, was, before.artifact(top))
    elif group.new or group.gone or group.changed:
        yield _difference("changed", top, f"{'; '.join(_happened(top, group))}; {has}", artifact)
    else:
        yield _difference("answer", top, f"{has}; before: {was}", artifact)


def _happened(top: str, group: _Group) -> Iterator[str]:
    """What happened to the files of a group, with the names of some."""
    for paths, what in ((group.changed, "other bytes"), (group.new, "new"), (group.gone, "gone")):
        if paths == [top]:
            yield what
        elif paths:
            names = ", ".join(path.removeprefix(f"{top}/") for path in paths[:NAMED])
            yield f"{what}: {names}" + (f" and {len(paths) - NAMED} more" if len(paths) > NAMED else "")


def _upwards(path: str) -> Iterator[str]:
    """The path, and each folder that it is in."""
    if path:
        yield path
    while (path := path.rpartition("/")[0]) != "":
        yield path
    yield "/"


def _difference(kind: str, path: str, text: str, artifact: Digest | None = None) -> InventoryDifference:
    return InventoryDifference(kind, path or "/", text[:MAX_LINE], artifact)
