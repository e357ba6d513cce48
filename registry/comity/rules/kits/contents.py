"""Whether the files of an artifact are those that its `kit.json` names. Pure."""

from __future__ import annotations

from comity.rules.kits.description import KIT_FILE, Kit
from comity.trust.artifact import Manifest
from comity.trust.encoding import short


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
