"""A release of Comity: an artifact with the wheel of one version and every wheel that it needs on some machines.

    release.json        this description: RFC 8785 JSON
    wheels/*.whl        the product and all that it requires
    requirements.lock   the same with their hashes, as pip takes them
    bom.cdx.json        a CycloneDX bill of them
    licences/…          the texts of their licences, a folder for each distribution
    LICENSE, CHANGELOG.md, README.md

What the description says of the commit is the publisher's claim. Members that built the same bytes from it say so by a
`vouched` statement of the kind *reproduced*. Pure. Source: docs/releasing.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, Final, Self

from comity.trust.artifact import Manifest
from comity.trust.codec import JsonItems, JsonObject, JsonRead, JsonText
from comity.trust.encoding import Digest, canonical, parse_canonical
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

PRODUCT: Final = "comity"
RELEASE_FILE: Final = "release.json"
RELEASE_LOCK: Final = "requirements.lock"
RELEASE_BOM: Final = "bom.cdx.json"
WHEELS: Final = "wheels/"
RELEASE_SCHEMA: Final = "comity/release/v1"
MAX_RELEASE: Final = 64 * 1024
MAX_LOCK: Final = 1024 * 1024
MAX_EXTRAS: Final = 32

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_EXTRA: Final = re.compile(r"[a-z0-9][a-z0-9\-]{0,63}\Z")
_WHEEL: Final = re.compile(
    r"wheels/(?P<name>[A-Za-z0-9_.]+)-(?P<version>[A-Za-z0-9_.!+]+)(?:-[0-9][A-Za-z0-9_.]*)?"
    r"-(?P<python>[A-Za-z0-9_.]+)-(?P<abi>[A-Za-z0-9_.]+)-(?P<platform>[A-Za-z0-9_.]+)\.whl\Z"
)
_PINNED: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._\-]*)(?:\[[a-z0-9,\- ]*\])?==(?P<version>[A-Za-z0-9.!+]+)(?: ?;[^#]*?)?"
    r"(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)\Z"
)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_MANYLINUX: Final = re.compile(r"(many|musl)linux_([0-9]{1,2})_([0-9]{1,3})_([a-z0-9_]+)\Z")
_OLD_NAMES: Final = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
_LIBCS: Final = {"many": "glibc", "musl": "musl"}


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

    def __str__(self) -> str:
        libc, *version = self.libc
        system = f"Linux with {libc} {'.'.join(map(str, version))}" if libc else "a system that is not Linux"
        return f"Python 3.{self.python} on {self.arch}, {system}"


@frozen
class Wheel:
    """A wheel by its path in the artifact; `name` is normalised as in PEP 503. Source: PEP 427, PEP 425, PEP 600."""

    path: str
    name: str
    version: str
    python: str
    abi: str
    platform: str

    @classmethod
    def of(cls, path: str) -> Self:
        """Raises Malformed for a name that is not that of a wheel."""
        parts = _WHEEL.match(path)
        if parts is None:
            raise malformed_release(f"{path[:100]!r} is no wheel")
        return cls(path, normalised(parts["name"]), parts["version"], parts["python"], parts["abi"], parts["platform"])

    def fits(self, machine: InstallingMachine) -> bool:
        """Whether pip takes it there."""
        platforms = [platform for platform in self.platform.split(".") if _on(platform, machine)]
        return any(
            self._runs(python, abi, machine) and (platform != "any" or abi == "none")
            for python in self.python.split(".")
            for abi in self.abi.split(".")
            for platform in platforms
        )

    @staticmethod
    def _runs(python: str, abi: str, machine: InstallingMachine) -> bool:
        least = int(python[3:] or 0) if re.fullmatch(r"(?:py|cp)3[0-9]{0,2}", python) else None
        if least is None or least > machine.python:
            return False
        if python.startswith("py"):
            return abi == "none"
        return abi == "abi3" or (least == machine.python and abi in (python, "none"))


def _on(platform: str, machine: InstallingMachine) -> bool:
    if platform == "any":
        return True
    libc, *version = machine.libc
    for old, needed in _OLD_NAMES.items():
        if platform == f"{old}_{machine.arch}":
            return libc == "glibc" and tuple(version) >= needed
    parts = _MANYLINUX.match(platform)
    if parts is None:
        return bool(libc) and platform == f"linux_{machine.arch}"
    return (_LIBCS[parts[1]], parts[4]) == (libc, machine.arch) and version >= [int(parts[2]), int(parts[3])]


@frozen
class LockedRequirement:
    """A line of a lock: a distribution, its version, and the digests of its files."""

    name: str
    version: str
    hashes: frozenset[Digest]


def parse_lock(data: bytes) -> tuple[LockedRequirement, ...]:
    """Read a lock in pip's format in which every requirement has one version and hashes. Raises Malformed."""
    if len(data) > MAX_LOCK:
        raise malformed_release(f"its lock has more than {MAX_LOCK} bytes")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise malformed_release("its lock is not ASCII") from None
    return tuple(_locked(text))


def _locked(text: str) -> Iterator[LockedRequirement]:
    for line in text.replace("\\\n", " ").split("\n"):
        words = " ".join(line.split())
        if not words or words.startswith("#"):
            continue
        parts = _PINNED.match(words)
        if parts is None:
            raise malformed_release(f"{words[:80]!r} in its lock is not NAME==VERSION with SHA-256 hashes")
        hashes = frozenset(Digest(each) for each in _HASH.findall(parts["hashes"]))
        yield LockedRequirement(normalised(parts["name"]), parts["version"], hashes)


def normalised(name: str) -> str:
    """The name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


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


def check_lock(manifest: Manifest, lock: Iterable[LockedRequirement]) -> None:
    """Raises Malformed unless the lock pins exactly the wheels that are there, by their hashes."""
    wheels = {wheel.path: wheel for wheel in wheels_of(manifest)}
    digests: dict[Digest, Wheel] = {manifest.by_path[path].sha256: wheel for path, wheel in wheels.items()}
    pinned: Mapping[Digest, LockedRequirement] = {digest: each for each in lock for digest in each.hashes}
    if missing := sorted(each.name for digest, each in pinned.items() if digest not in digests):
        raise malformed_release(f"its lock names a file of {missing[0]} that is not among the wheels")
    for digest, wheel in digests.items():
        said = pinned.get(digest)
        if said is None or (said.name, said.version) != (wheel.name, wheel.version):
            raise malformed_release(f"its lock does not pin {wheel.path}")


def malformed_release(why: str) -> Malformed:
    return Malformed("not a release of Comity", why=why, code="NOT-A-RELEASE")
