"""Locks: every Python distribution with its version and the SHA-256 of each of its wheels; of kits, and of releases.

    # as pip takes it with --require-hashes
    numpy==2.4.6 \\
        --hash=sha256:89cd… \\
        --hash=sha256:90f9…

It is pip's format of requirements, of which only this is allowed: a name, extras, one exact version, and hashes. So
nothing is resolved, and nothing has another source than a file of that hash. A release may have conditions too, such as
`; python_version < "3.12"`; the lock of a kit has none, so what is installed is the same everywhere. Sources: pip's
documentation, "Requirements File Format" and "Secure installs"; PyPA, "Dependency specifiers".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from packaging.markers import InvalidMarker, Marker
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

MAX_LOCK: Final = 4 * 1024 * 1024
MAX_DISTRIBUTIONS: Final = 2_000
MAX_WHEELS: Final = 500
"""Wheels of one distribution."""
_REQUIREMENT: Final = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)"
    r"(?:\[(?P<extras>[A-Za-z0-9._, -]{1,500})\])?"
    r"==(?P<version>[A-Za-z0-9.!+_-]{1,100})"
    r"(?: ?;(?P<condition>(?:(?! -)[ !\"%-\[\]-~]){1,300}))?"
    r"(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)\Z"
)
_HASH: Final = re.compile(r"--hash=(\S+)")
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
_SHOWN: Final = 80


@frozen
class LockedDistribution:
    """A distribution of a lock. `name`, `version`, `extras` and `condition` are normalised; `wheels` are the hashes of
    its wheels, in order."""

    name: str
    version: str
    extras: tuple[str, ...]
    wheels: tuple[Digest, ...]
    condition: str = ""

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def requirement(self) -> str:
        """The same without the hashes."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"{self.name}{extras}=={self.version}" + (f" ; {self.condition}" if self.condition else "")

    @property
    def line(self) -> str:
        """The same as pip takes it, on several lines."""
        return " \\\n    ".join([self.requirement, *(f"--hash=sha256:{each}" for each in self.wheels)])


def parse_lock(data: bytes, *, conditions: bool = False) -> tuple[LockedDistribution, ...]:
    """Read a lock, sorted by name. With `conditions`, a distribution may be there once for each condition. Raises
    Malformed (KIT-LOCK) that names the line."""
    if len(data) > MAX_LOCK:
        raise _refused(f"more than {MAX_LOCK} bytes")
    try:
        text = data.decode()
    except ValueError as error:
        raise _refused("it is no UTF-8") from error
    found: dict[tuple[str, str], LockedDistribution] = {}
    wheels: set[Digest] = set()
    for number, line in _lines(text):
        each = _distribution(number, line, conditions=conditions)
        if (each.name, each.condition) in found:
            raise _refused(f"line {number}: {each.name} is locked twice")
        if len(set(each.wheels)) < len(each.wheels) or not wheels.isdisjoint(each.wheels):
            raise _refused(f"line {number}: a hash is there twice")
        if len(found) >= MAX_DISTRIBUTIONS:
            raise _refused(f"more than {MAX_DISTRIBUTIONS} distributions")
        found[each.name, each.condition] = each
        wheels.update(each.wheels)
    return tuple(found[key] for key in sorted(found))


def write_lock(locked: Iterable[LockedDistribution]) -> bytes:
    """Inverse of `parse_lock`, sorted by name: the same distributions give the same bytes."""
    return "".join(f"{each.line}\n" for each in sorted(locked, key=lambda each: (each.name, each.condition))).encode()


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, those that continue joined, with the number of the first and single spaces."""
    begun, first = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", raw).rstrip()
        first = first or number
        begun += line.removesuffix("\\") + " "
        if line.endswith("\\"):
            continue
        if said := " ".join(begun.split()):
            yield first, said
        begun, first = "", 0
    if begun.strip():
        raise _refused("its last line continues")


def _distribution(number: int, line: str, *, conditions: bool) -> LockedDistribution:
    found = _REQUIREMENT.match(line)
    if found is None or (found["condition"] and not conditions):
        raise _refused(f"line {number}: {_why(line)}")
    try:
        version = str(Version(found["version"]))
        condition = str(Marker(found["condition"])) if found["condition"] else ""
    except InvalidVersion as error:
        raise _refused(f"line {number}: {found['version']!r} is no version") from error
    except InvalidMarker as error:
        raise _refused(f"line {number}: {found['condition'].strip()[:_SHOWN]!r} is no condition") from error
    wheels = tuple(sorted(Digest(each.removeprefix("sha256:")) for each in _HASH.findall(found["hashes"])))
    if len(wheels) > MAX_WHEELS:
        raise _refused(f"line {number}: more than {MAX_WHEELS} hashes")
    extras = sorted({canonicalize_name(each.strip()) for each in (found["extras"] or "").split(",") if each.strip()})
    return LockedDistribution(canonicalize_name(found["name"]), version, tuple(extras), wheels, condition)


def _why(line: str) -> str:
    """Why a line is refused, in words."""
    shown = line.partition(" --hash")[0][:_SHOWN]
    if line.startswith("-"):
        return f"{shown!r} is an option of pip; a lock has only distributions with hashes"
    if "@" in shown or "://" in shown or shown.startswith((".", "/")):
        return f"{shown!r} names a place; a lock names a distribution, a version and hashes"
    if ";" in shown:
        return f"{shown!r} has a condition; a lock has one version of each distribution, for every machine"
    hashes = _HASH.findall(line)
    if not hashes:
        return f"{shown!r} has no hash (--hash=sha256:…)"
    if any(not re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes):
        return f"{shown!r} has a hash that is no sha256 of 64 lower-case hex digits"
    if "==" not in shown:
        return f"{shown!r} has no exact version (NAME==VERSION)"
    return f"{shown!r} is no line NAME==VERSION --hash=sha256:…"


def _refused(why: str) -> Malformed:
    hint = "name each distribution with its version and the hashes of its wheels: comity kit new NAME --wheels DIR"
    return Malformed("the lock cannot be used", why=why, hint=hint, code="KIT-LOCK")
