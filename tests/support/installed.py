"""A smaller installation than this one: a Python process that can import only what given requirements need."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_BLOCKER = """
import json, sys
absent = frozenset(json.loads(sys.argv.pop(1)))
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def requirements(distribution: str, extras: Iterable[str] = ()) -> list[Requirement]:
    """What `distribution` requires here, with `extras`."""
    wanted = [Requirement(text) for text in metadata.requires(distribution) or ()]
    environments = [{"extra": extra} for extra in ("", *extras)]
    return [r for r in wanted if r.marker is None or any(r.marker.evaluate(e) for e in environments)]


def closure(wanted: Iterable[Requirement]) -> set[str]:
    """Canonical names of the distributions that an installer would install for `wanted`."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = list(wanted)
    while waiting:
        requirement = waiting.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key not in found:
            found.add(key)
            waiting += requirements(requirement.name, requirement.extras)
    return {name for name, _ in found}


def run_with_only(wanted: Iterable[Requirement], code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` without any installed distribution except Comity and the closure of `wanted`."""
    present = closure(wanted) | {"comity"}
    absent = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not present.intersection(map(canonicalize_name, owners))
    ]
    command = [sys.executable, "-c", _BLOCKER + code, json.dumps(absent)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
