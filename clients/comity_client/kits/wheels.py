"""Wheels: what a file says it is, on which machines it installs, the texts of its licences, and whether several are all
that they need. Nothing is executed; `comity kit check` installs them, without a network.

A wheel comes from a package index or a disk: names, metadata and texts are bounded before they are read. Sources:
PyPA specifications "Binary distribution format", "Platform compatibility tags", "Core metadata" and "Dependency
specifiers".
"""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from comity.rules.kits.description import KitPlatform
from comity.trust.artifact import check_path
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.verifier import hash_file
from packaging.markers import Environment
from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from comity_client.kits.lock import LockedDistribution
from comity_client.licences import canonical_licence, is_listed

MAX_METADATA: Final = 4 * 1024 * 1024
MAX_MEMBERS: Final = 500_000
MAX_LICENCES: Final = 1_000
MAX_LICENCE: Final = 4 * 1024 * 1024
NEWEST_GLIBC: Final = 50
"""The second number of the newest C library whose tags are known."""
SDISTS: Final = (".tar.gz", ".zip", ".tar.bz2", ".tgz")
_LICENCE_FILE: Final = re.compile(r"(?:LICEN[CS]E|COPYING|NOTICE|AUTHORS|UNLICENSE)[^/]*\Z", re.IGNORECASE)
UNREADABLE: Final = (
    zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError,
    zlib.error, lzma.LZMAError, struct.error,
)  # fmt: skip
"""What Python's zipfile raises for a file that is no zip, lacks a member, or is damaged."""
_GLIBC_TAG: Final = re.compile(r"manylinux_2_(\d{1,2})_")
_OLD_TAGS: Final[Mapping[str, int]] = {"manylinux1_": 5, "manylinux2010_": 12, "manylinux2014_": 17}
_CLASSIFIED: Final[Mapping[str, str]] = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""Classifiers that mean one licence; others, such as `BSD License`, mean several."""


@frozen
class KitWheel:
    """A wheel, as its name and metadata say.

    Attributes:
        tags: the machines and Pythons for which it is.
        requires: the distributions that it needs, with their conditions.
        licence: an SPDX expression; empty where the metadata has none.
        licences: the texts, by their paths in the wheel's own folder of metadata.
    """

    path: Path
    sha256: Digest
    size: int
    name: str
    version: str
    tags: frozenset[Tag]
    requires: tuple[Requirement, ...]
    requires_python: SpecifierSet
    licence: str
    licences: Mapping[str, bytes]

    @property
    def file(self) -> str:
        return self.path.name


def read_wheel(path: Path) -> KitWheel:
    """Hash a wheel, and read what it says. Blocking. Raises Malformed (KIT-WHEEL), Unavailable."""
    name, version, tags = named_wheel(path.name)
    size, sha256 = hash_file(path, lambda _: None)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                raise refused(path.name, f"more than {MAX_MEMBERS} members")
            folder = _metadata_folder(path.name, name, members)
            raw = parse_email(_member(archive, f"{folder}METADATA", MAX_METADATA))[0]
            listed = raw.get("license_files", [])
            licences = dict(_licences(archive, folder, members, listed))
        requires, python = _requirements(raw)
    except (*UNREADABLE, ValueError, OSError) as error:  # a damaged zip has positions before its begin
        raise refused(path.name, f"it is no readable wheel: {str(error)[:200]}") from error
    return KitWheel(path, sha256, size, name, version, tags, requires, python, _licence(raw), licences)


def named_wheel(file: str) -> tuple[str, str, frozenset[Tag]]:
    """Name, version and tags of a wheel by the name of its file. Raises Malformed (KIT-WHEEL)."""
    if file.endswith(SDISTS):
        raise refused(file, "it is a source distribution, which runs its own code when it is installed")
    try:
        name, version, _, tags = parse_wheel_filename(file)
    except InvalidWheelFilename as error:
        raise refused(file, "its name is no name of a wheel") from error
    return name, str(version), tags


def installs_on(wheel: KitWheel, platform: KitPlatform, python: str) -> bool:
    """Whether a wheel is for this Python on these machines, whose C library is as new as it needs."""
    return not wheel.tags.isdisjoint(
        interpreter_tags(python, platform_tags(platform.arch))
    ) and wheel.requires_python.contains(f"{python}.0")


def least_glibc(wheels: Sequence[KitWheel]) -> int:
    """The second number of the least glibc 2 that all wheels accept; 0 if they need none."""
    return max((min(_glibc_of_tag(tag.platform) for tag in wheel.tags) for wheel in wheels), default=0)


def _glibc_of_tag(platform: str) -> int:
    if found := _GLIBC_TAG.match(platform):
        return int(found[1])
    return next((number for begin, number in _OLD_TAGS.items() if platform.startswith(begin)), 0)


def platform_tags(arch: str, newest_glibc: int = NEWEST_GLIBC) -> tuple[str, ...]:
    """The platform tags of machines of an architecture with glibc 2 up to this second number, newest first; none for
    `any`."""
    if arch == "any":
        return ()
    numbered = [f"manylinux_2_{number}_{arch}" for number in range(newest_glibc, 4, -1)]
    old = [f"{begin}{arch}" for begin, number in _OLD_TAGS.items() if number <= newest_glibc]
    return (*numbered, *old, f"linux_{arch}")


def interpreter_tags(python: str, platforms: Sequence[str]) -> frozenset[Tag]:
    """The tags of the wheels that this CPython takes on machines with these platform tags."""
    minor = int(python.partition(".")[2])
    binary = cpython_tags((3, minor), platforms=platforms) if platforms else ()
    return frozenset([*binary, *compatible_tags((3, minor), f"cp3{minor}", platforms)])


def closure_problems(
    locked: Sequence[LockedDistribution], wheels: Sequence[KitWheel], platform: KitPlatform
) -> tuple[str, ...]:
    """What is missing or too much, a line for each; empty if the wheels are closed."""
    machines = (
        [platform] if platform.arch != "any" else [replace(platform, arch=arch) for arch in ("x86_64", "aarch64")]
    )
    places = [(machine, python) for machine in machines for python in platform.python]
    problems = dict[str, None]()
    for wheel in wheels:
        if not any(installs_on(wheel, *place) for place in places):
            pythons = ", ".join(platform.python)
            problems[f"{wheel.file} is for other machines than CPython {pythons} on {platform.os} {platform.arch}"] = (
                None
            )
    for place in places:
        problems |= dict.fromkeys(_problems_at(locked, wheels, *place))
    return tuple(problems)


def _problems_at(
    locked: Sequence[LockedDistribution], wheels: Sequence[KitWheel], machine: KitPlatform, python: str
) -> Iterator[str]:
    chosen = {wheel.name: wheel for wheel in wheels if installs_on(wheel, machine, python)}
    for each in locked:
        if each.name not in chosen:
            yield f"{each.name} {each.version} has no wheel for CPython {python} on {machine.arch}"
    environment = _environment(machine, python)
    waiting = [(each.name, extra) for each in locked for extra in ("", *each.extras)]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        wheel = chosen.get(name)
        for needed in wheel.requires if wheel else ():
            if needed.marker is not None and not needed.marker.evaluate({**environment, "extra": extra}):
                continue
            if problem := _problem(chosen, wheel, needed):
                yield problem
                continue
            further = {(canonicalize_name(needed.name), each) for each in map(canonicalize_name, needed.extras)} - seen
            seen |= further
            waiting += sorted(further)


def _problem(chosen: Mapping[str, KitWheel], wheel: KitWheel | None, needed: Requirement) -> str:
    """Why a requirement is not met; empty if it is."""
    assert wheel is not None
    who = f"{wheel.name} {wheel.version}"
    if needed.url:
        return f"{who} needs {needed.name} from a place of its own, which a kit has not"
    found = chosen.get(canonicalize_name(needed.name))
    if found is None:
        return f"{who} needs {needed.name}{needed.specifier}, which is not locked"
    if not needed.specifier.contains(found.version, prereleases=True):
        return f"{who} needs {needed.name}{needed.specifier}; locked is {found.version}"
    return ""


def _environment(machine: KitPlatform, python: str) -> Mapping[str, str]:
    """The values of conditions on a machine with CPython and Linux."""
    environment: Environment = {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": machine.arch,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    return {name: str(value) for name, value in environment.items()}


def _metadata_folder(file: str, name: str, members: Sequence[zipfile.ZipInfo]) -> str:
    """`NAME-VERSION.dist-info/`, of which a wheel has one."""
    folders = {each.filename.partition("/")[0] for each in members if ".dist-info/" in each.filename}
    own = [folder for folder in folders if folder.endswith(".dist-info")]
    if len(own) != 1 or canonicalize_name(own[0].partition("-")[0]) != name:
        raise refused(file, f"it has {len(own)} folders of metadata; its own must be the only one")
    return f"{own[0]}/"


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Raises KeyError, ValueError."""
    with archive.open(name) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{name} has more than {limit} bytes")
    return data


def _licences(
    archive: zipfile.ZipFile, folder: str, members: Sequence[zipfile.ZipInfo], listed: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """The texts in `licenses/`, those that the metadata lists, and those beside it with a usual name."""
    found = 0
    for member in members:
        inner = member.filename.removeprefix(folder)
        if member.is_dir() or inner == member.filename:
            continue
        plain = inner.removeprefix("licenses/").removeprefix("license_files/")
        if plain != inner or inner in listed or ("/" not in inner and _LICENCE_FILE.match(inner)):
            found += 1
            if found > MAX_LICENCES:
                raise ValueError(f"more than {MAX_LICENCES} texts of licences")
            yield check_path(plain), _member(archive, member.filename, MAX_LICENCE)


def _requirements(raw: RawMetadata) -> tuple[tuple[Requirement, ...], SpecifierSet]:
    """Raises ValueError."""
    try:
        python = SpecifierSet(raw.get("requires_python", ""))
    except InvalidSpecifier as error:
        raise ValueError(str(error)) from error
    return tuple(map(Requirement, raw.get("requires_dist", []))), python


def _licence(raw: RawMetadata) -> str:
    """The SPDX expression of the metadata, of its older field, or of a classifier that means one licence."""
    for text in (raw.get("license_expression", ""), raw.get("license", "")):
        if is_listed(text):
            return canonical_licence(text)
    classified = [each.rpartition(" :: ")[2] for each in raw.get("classifiers", []) if each.startswith("License :: ")]
    known = [_CLASSIFIED[each] for each in classified if each in _CLASSIFIED]
    return known[0] if len(known) == len(classified) == 1 else ""


def refused(file: str, why: str) -> Malformed:
    return Malformed(f"{file} cannot be part of a kit", why=why, code="KIT-WHEEL")
