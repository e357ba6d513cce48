"""A release of Comity: an artifact with the wheel of one version and every wheel that it needs on some machines.

    release.json        this description: RFC 8785 JSON
    wheels/*.whl        the product and all that it requires
    requirements.lock   the same with their hashes, as pip takes them
    bom.cdx.json        a CycloneDX bill of them
    licences/…          the texts of their licences, a folder for each distribution
    LICENSE, CHANGELOG.md, README.md

What the description says of the commit is the publisher's claim. Members that built the same bytes from it say so by a
`vouched` statement of the kind *reproduced*. No I/O. Source: docs/releasing.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Final, Self

from comity.trust.artifact import Manifest
from comity.trust.codec import JsonItems, JsonObject, JsonRead, JsonText
from comity.trust.encoding import Digest, canonical, parse_canonical
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from packaging.tags import Tag, parse_tag
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from comity_client.kits.lock import LockedDistribution, parse_lock
from comity_client.kits.wheels import interpreter_tags, platform_tags

PRODUCT: Final = "comity"
RELEASE_FILE: Final = "release.json"
RELEASE_LOCK: Final = "requirements.lock"
RELEASE_BOM: Final = "bom.cdx.json"
WHEELS: Final = "wheels/"
RELEASE_SCHEMA: Final = "comity/release/v1"
MAX_RELEASE: Final = 64 * 1024
MAX_EXTRAS: Final = 32

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_EXTRA: Final = re.compile(r"[a-z0-9][a-z0-9\-]{0,63}\Z")
_WHEEL: Final = re.compile(
    r"wheels/(?P<name>[A-Za-z0-9_.]+)-(?P<version>[A-Za-z0-9_.!+]+)(?:-[0-9][A-Za-z0-9_.]*)?"
    r"-(?P<tags>[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+)\.whl\Z"
)


def _of_form(form: re.Pattern[str], most: int) -> JsonRead:
    def read(text: str) -> str:
        if not form.match(text):
            raise malformed_release(f"{text[:60]!r} has not the form {form.pattern[:-2]}")
        return text

    return JsonRead(read, form, most=most)


@frozen
class ProductRelease(JsonObject):
    """What a release says of itself.

    Attributes:
        commit: of the source, in hexadecimal digits.
        time: of the commit, in seconds since 1970: the time of everything in the wheel.
        extras: of the product, whose requirements are in it.
    """

    constants: ClassVar = {"schema": RELEASE_SCHEMA, "name": PRODUCT}
    version: Annotated[str, JsonText(64)]
    commit: Annotated[str, _of_form(_COMMIT, 64)]
    time: int
    extras: Annotated[tuple[str, ...], JsonItems(MAX_EXTRAS, of=_of_form(_EXTRA, 64), once=True)]

    def encode(self) -> bytes:
        """The file `release.json`."""
        return canonical(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> ProductRelease:
        """Inverse of `encode`. Raises Malformed."""
        return cls.from_json(parse_canonical(data, limit=MAX_RELEASE, what="release"))


@frozen
class InstallingMachine:
    """The machine on which a release would be installed.

    Attributes:
        python: its minor version of CPython 3.
        libc: name and version of its C library; of another system than Linux, an empty name.
    """

    arch: str
    python: int
    libc: tuple[str, int, int]

    @property
    def tags(self) -> frozenset[Tag]:
        """Those of the wheels that install there."""
        name, major, minor = self.libc
        platforms: tuple[str, ...] = ()
        if (name, major) == ("glibc", 2):
            platforms = platform_tags(self.arch, minor)
        elif name == "musl":
            platforms = (*(f"musllinux_{major}_{each}_{self.arch}" for each in range(minor + 1)), f"linux_{self.arch}")
        return interpreter_tags(f"3.{self.python}", platforms)

    def __str__(self) -> str:
        libc, *version = self.libc
        system = f"Linux with {libc} {'.'.join(map(str, version))}" if libc else "a system that is not Linux"
        return f"Python 3.{self.python} on {self.arch}, {system}"


@frozen
class Wheel:
    """A wheel by its path in the artifact; name and version are normalised (PEP 503, 440), `tags` are the machines that
    it is for. Source: PyPA specifications "Binary distribution format" and "Platform compatibility tags"."""

    path: str
    name: str
    version: str
    tags: frozenset[Tag]

    @classmethod
    def of(cls, path: str) -> Self:
        """Raises Malformed for a name that is not that of a wheel."""
        parts = _WHEEL.match(path)
        if parts is None:
            raise malformed_release(f"{path[:100]!r} is no wheel")
        try:
            version = str(Version(parts["version"]))
        except InvalidVersion as error:
            raise malformed_release(f"{path[:100]!r} has no version") from error
        return cls(path, canonicalize_name(parts["name"]), version, parse_tag(parts["tags"]))

    def fits(self, machine: InstallingMachine) -> bool:
        """Whether pip takes it there."""
        return not self.tags.isdisjoint(machine.tags)


def read_release_lock(data: bytes) -> tuple[LockedDistribution, ...]:
    """Read the lock of a release, whose lines may have conditions. Raises Malformed."""
    try:
        return parse_lock(data, conditions=True)
    except Malformed as error:
        raise malformed_release(f"its lock: {error.why}") from error


def wheels_of(manifest: Manifest) -> tuple[Wheel, ...]:
    """The wheels of a release. Raises Malformed for another file among them, and where none is there."""
    found = tuple(Wheel.of(entry.path) for entry in manifest.files if entry.path.startswith(WHEELS))
    if not found or not {RELEASE_FILE, RELEASE_LOCK} <= manifest.by_path.keys():
        raise malformed_release(f"it has no wheels, no {RELEASE_FILE} or no {RELEASE_LOCK}")
    return found


def product_wheel(wheels: Iterable[Wheel], version: str) -> Wheel:
    """The wheel of the product. Raises Malformed if there is not exactly one, of this version."""
    found = [wheel for wheel in wheels if wheel.name == PRODUCT]
    if [wheel.version for wheel in found] != [version]:
        there = ", ".join(wheel.version for wheel in found) or "none"
        raise malformed_release(f"it is published as {version}, and its wheel of {PRODUCT} is {there}")
    return found[0]


def unfit(wheels: Iterable[Wheel], machine: InstallingMachine) -> tuple[str, ...]:
    """The distributions that have wheels, and none for this machine."""
    names: dict[str, bool] = {}
    for wheel in wheels:
        names[wheel.name] = names.get(wheel.name, False) or wheel.fits(machine)
    return tuple(sorted(name for name, fits in names.items() if not fits))


def check_lock(manifest: Manifest, lock: Iterable[LockedDistribution]) -> None:
    """Raises Malformed unless the lock pins exactly the wheels that are there, by their hashes."""
    wheels = {wheel.path: wheel for wheel in wheels_of(manifest)}
    digests: dict[Digest, Wheel] = {manifest.by_path[path].sha256: wheel for path, wheel in wheels.items()}
    pinned: Mapping[Digest, LockedDistribution] = {digest: each for each in lock for digest in each.wheels}
    if missing := sorted(each.name for digest, each in pinned.items() if digest not in digests):
        raise malformed_release(f"its lock names a file of {missing[0]} that is not among the wheels")
    for digest, wheel in digests.items():
        said = pinned.get(digest)
        if said is None or (said.name, said.version) != (wheel.name, wheel.version):
            raise malformed_release(f"its lock does not pin {wheel.path}")


def malformed_release(why: str) -> Malformed:
    return Malformed("not a release of Comity", why=why, code="NOT-A-RELEASE")
