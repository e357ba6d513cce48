"""The folder of a release, from the wheel of the product and the wheels that its lock names: the same files in, the
same bytes out. `comity_client.release_parts` says what is in it.

Nothing here asks a network: `build_release` brings the wheels.
"""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any, Final

from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, format_time, sha256
from comity.trust.frozen import frozen
from comity_client.cyclonedx import bom_text, comity_property, sha256_hashes
from comity_client.kits.lock import parse_lock
from comity_client.release_parts import (
    PRODUCT,
    RELEASE_BOM,
    RELEASE_FILE,
    RELEASE_LOCK,
    ProductRelease,
    Wheel,
    check_lock,
    read_release_lock,
)
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NOTES: Final = ("LICENSE", "CHANGELOG.md", "README.md", "SECURITY.md")
"""Files of the source that a release has in its root."""
MAX_METADATA: Final = 4 * 1024 * 1024
_LICENCE: Final = re.compile(r"[^/]+\.dist-info/(?:licenses/.+|(?:LICEN[CS]E|COPYING|NOTICE|AUTHORS)[^/]*)\Z", re.I)
_METADATA: Final = re.compile(r"[^/]+\.dist-info/METADATA\Z")

Component = dict[str, Any]


@frozen
class ReleaseTargets:
    """The machines that a release is for: Linux on this architecture, with these minor versions of CPython."""

    arch: str
    pythons: tuple[str, ...]

    def need(self, requirement: Requirement, extras: Sequence[str] = ()) -> bool:
        """Whether a requirement holds on one of them, with one of these extras."""
        marker = requirement.marker
        return marker is None or any(
            marker.evaluate(self._environment(python) | {"extra": extra})
            for python in self.pythons
            for extra in ("", *extras)
        )

    def _environment(self, python: str) -> dict[str, str]:
        return {name: str(value) for name, value in default_environment().items()} | {
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": self.arch,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "python_version": python,
            "python_full_version": f"{python}.0",
        }


@frozen
class ReleaseWheel:
    """A wheel of a release: its name, its digest, and its metadata."""

    wheel: Wheel
    sha256: Digest
    metadata: Message

    @property
    def purl(self) -> str:
        """Its package URL, with the file, because a distribution may have several."""
        file = self.wheel.path.rpartition("/")[2]
        return f"pkg:pypi/{self.wheel.name}@{self.wheel.version}?file_name={file.replace('+', '%2B')}"

    def requires(self, targets: ReleaseTargets, extras: Sequence[str] = ()) -> frozenset[str]:
        """The names of the distributions that it requires there."""
        wanted = map(Requirement, self.metadata.get_all("Requires-Dist") or ())
        return frozenset(canonicalize_name(each.name) for each in wanted if targets.need(each, extras))


def requirements_of(lock: str, targets: ReleaseTargets) -> dict[Requirement, tuple[Digest, ...]]:
    """The requirements of a lock of the repository that hold on these machines, each with the digests that it
    allows."""
    found = {}
    for each in parse_lock(lock.encode(), conditions=True):
        requirement = Requirement(each.requirement)
        if targets.need(requirement):
            found[requirement] = each.wheels
    return found


def write_release(
    folder: Path, release: ProductRelease, product: Path, wheels: Path, lock: str, source: Path, targets: ReleaseTargets
) -> None:
    """Write the folder, which must not exist.

    Args:
        product: the wheel of the product, as `stored_wheel` writes it.
        wheels: a folder with the wheels that the lock names, and perhaps others, which are left out.
        lock: `requirements/node.txt` of the source.
        source: the tree of the commit.
    """
    (folder / "wheels").mkdir(parents=True)
    wanted = requirements_of(lock, targets)
    allowed = {digest for digests in wanted.values() for digest in digests}
    files = [product, *(path for path in sorted(wheels.glob("*.whl")) if sha256(path.read_bytes()) in allowed)]
    for path in files:
        shutil.copyfile(path, folder / "wheels" / path.name)
    found = [read_wheel(path) for path in sorted((folder / "wheels").iterdir())]
    (folder / RELEASE_LOCK).write_text(lock_text(release, wanted, found), "ascii")
    (folder / RELEASE_FILE).write_bytes(release.encode())
    (folder / RELEASE_BOM).write_text(release_bom(release, found, targets), "utf-8")
    for name in NOTES:
        shutil.copyfile(source / name, folder / name)
    for name, data in licences(folder / "wheels"):
        target = folder / "licences" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    check_lock(manifest_of(folder), read_release_lock((folder / RELEASE_LOCK).read_bytes()))


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a folder without a pack: its digest is the artifact."""
    return Manifest.of(
        FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, sha256(path.read_bytes()))
        for path in folder.rglob("*")
        if path.is_file()
    )


def read_wheel(path: Path) -> ReleaseWheel:
    data = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (name,) = (each for each in archive.namelist() if _METADATA.match(each))
        with archive.open(name) as file:
            metadata = BytesParser().parsebytes(file.read(MAX_METADATA))
    return ReleaseWheel(Wheel.of(f"wheels/{path.name}"), sha256(data), metadata)


def lock_text(
    release: ProductRelease, wanted: Mapping[Requirement, Iterable[Digest]], wheels: Sequence[ReleaseWheel]
) -> str:
    """The lock of the release: the product first, then what it requires, each with the wheels that are there."""
    product = [each for each in wheels if each.wheel.name == PRODUCT]
    extras = f"[{','.join(release.extras)}]" if release.extras else ""
    blocks = [_locked(f"{PRODUCT}{extras}=={release.version}", (each.sha256 for each in product))]
    for requirement, digests in wanted.items():
        here = [each.sha256 for each in wheels if each.sha256 in set(digests)]
        if not here:
            raise SystemExit(f"no wheel of {requirement} is there for these versions of Python")
        blocks.append(_locked(str(requirement).replace(";", " ;"), here))
    return "".join(blocks)


def _locked(said: str, digests: Iterable[Digest]) -> str:
    return " \\\n".join([said, *(f"    --hash=sha256:{each}" for each in sorted(digests))]) + "\n"


def licences(wheels: Path) -> Iterator[tuple[str, bytes]]:
    """The texts of licences in wheels, by `DISTRIBUTION/FILE`; each distribution once."""
    seen = set[str]()
    for path in sorted(wheels.iterdir()):
        wheel = Wheel.of(f"wheels/{path.name}")
        with zipfile.ZipFile(path) as archive:
            for name in sorted(each for each in archive.namelist() if _LICENCE.match(each) and each[-1] != "/"):
                target = f"{wheel.name}/{name.partition('/')[2].removeprefix('licenses/')}"
                if target not in seen:
                    seen.add(target)
                    yield target, archive.read(name)


def release_bom(release: ProductRelease, wheels: Sequence[ReleaseWheel], targets: ReleaseTargets) -> str:
    """A CycloneDX bill of the product and all wheels that it is installed with: names, versions, package URLs, hashes,
    licences as they declare them, and who requires whom."""
    (product,) = (each for each in wheels if each.wheel.name == PRODUCT)
    others = [each for each in wheels if each is not product]
    refs = {name: [each.purl for each in others if each.wheel.name == name] for name in {w.wheel.name for w in others}}
    dependencies = [
        {
            "ref": each.purl,
            "dependsOn": sorted(
                purl
                for name in each.requires(targets, release.extras if each is product else ())
                for purl in refs.get(name, ())
            ),
        }
        for each in wheels
    ]
    described = _component(product) | {
        "type": "application",
        "properties": [
            comity_property("commit", release.commit),
            *(comity_property("extra", extra) for extra in release.extras),
        ],
    }
    metadata = {"timestamp": format_time(release.time), "component": described}
    seed = sha256("\n".join(sorted(each.sha256 for each in wheels)).encode())
    return bom_text(seed, metadata, [_component(each) for each in others], dependencies=dependencies)


def _component(each: ReleaseWheel) -> Component:
    component: Component = {
        "type": "library",
        "bom-ref": each.purl,
        "name": each.wheel.name,
        "version": each.wheel.version,
        "purl": each.purl,
        "hashes": sha256_hashes(each.sha256),
    }
    if licence := _licence(each.metadata):
        component["licenses"] = [licence]
    return component


def _licence(metadata: Message) -> Component:
    """What a distribution declares: an SPDX expression, or else the name that it gives."""
    if expression := metadata.get("License-Expression"):
        return {"expression": str(expression), "acknowledgement": "declared"}
    classified = [str(each) for each in metadata.get_all("Classifier") or () if str(each).startswith("License :: ")]
    stated = str(metadata.get("License") or "").strip()
    name = stated if stated and "\n" not in stated else "; ".join(each.rpartition(" :: ")[2] for each in classified)
    return {"license": {"name": name[:200], "acknowledgement": "declared"}} if name else {}


def stored_wheel(source: Path, target: Path) -> None:
    """Write a wheel again without compression: its bytes then depend on no version of a compressor."""
    with zipfile.ZipFile(source) as packed, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as stored:
        for info in packed.infolist():
            plain = zipfile.ZipInfo(info.filename, info.date_time)
            plain.external_attr, plain.create_system = info.external_attr, 3
            stored.writestr(plain, packed.read(info))
