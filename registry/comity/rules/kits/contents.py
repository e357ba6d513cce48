"""Whether the files of an artifact are those that its `kit.json` names, and its wheels those of its lock. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from comity.rules.kits.description import KIT_FILE, WHEEL, Kit
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, short


def kit_problems(kit: Kit, manifest: Manifest) -> tuple[str, ...]:
    """What of a kit is not as its description says, a line for each file; empty if all is.

    Args:
        manifest: of the artifact, or of the files that are in a folder.
    """
    named, found, problems = kit.by_path, manifest.by_path, list[str]()
    if KIT_FILE not in found:
        problems.append(f"{KIT_FILE} is missing")
    for path, part in named.items():
        entry = found.get(path)
        if entry is None:
            problems.append(f"{path} is missing")
        elif entry.size != part.size:
            problems.append(f"{path} has {entry.size} bytes, not {part.size}")
        elif entry.sha256 != part.sha256:
            problems.append(f"{path} has the digest {short(entry.sha256)}, not {short(part.sha256)}")
    problems += [f"{path} is no part of the kit" for path in found if path not in named and path != KIT_FILE]
    return tuple(problems)


def lock_problems(kit: Kit, locked: Mapping[Digest, str]) -> tuple[str, ...]:
    """What of the lock of a kit is not among its wheels, or the reverse, a line each; empty if both are the same.

    Args:
        locked: for the hash of each wheel in the lock, the distribution that it is of.
    """
    wheels = {part.sha256: part.path for part in kit.of_kind(WHEEL)}
    missing = [
        f"{name}: no wheel has the hash {short(digest)}" for digest, name in locked.items() if digest not in wheels
    ]
    return (*missing, *(f"{path} is not locked" for digest, path in wheels.items() if digest not in locked))
