"""Releases of the product that tests make: small wheels, and the folder that `release_folder` writes of them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from comity.trust.encoding import sha256
from comity_client.release_parts import ProductRelease
from release_folder import NOTES, ReleaseTargets, write_release

COMMIT = "5a" * 20
TIME = 1_764_000_000
ANY = "py3-none-any"
TARGETS = ReleaseTargets("x86_64", ("3.11", "3.12"))


def write_wheel(folder: Path, name: str, version: str, tags: str = ANY, metadata: Sequence[str] = ()) -> Path:
    """A wheel with nothing in it but its metadata and a licence."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{name}-{version}-{tags}.whl", f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *metadata]
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: {tags}\n",
        f"{info}/licenses/LICENSE": f"the licence of {name}\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in (*files.items(), (f"{info}/RECORD", record)):
            archive.writestr(zipfile.ZipInfo(member, (2025, 11, 24, 0, 0, 0)), text)
    return path


def make_release(folder: Path, version: str, tags: str = ANY) -> Path:
    """A folder of a release in `folder/VERSION`; what it needs has wheels with these tags."""
    built, source = folder / f"built-{version}", folder / f"source-{version}"
    product = write_wheel(
        built / "product",
        "comity",
        version,
        metadata=(
            "License-Expression: Apache-2.0",
            "Requires-Dist: needed_one>=1",
            "Requires-Dist: other; extra == 'x'",
        ),
    )
    needed = write_wheel(built / "wheels", "needed_one", "1.5", tags, ("License: MIT",))
    source.mkdir()
    for name in NOTES:
        (source / name).write_text(f"{name} of {version}\n")
    digest = sha256(needed.read_bytes())
    lock = (
        f"# by a test\nneeded-one==1.5 \\\n    --hash=sha256:{digest} \\\n    --hash=sha256:{'0' * 64}\n"
        f"elsewhere==1 ; sys_platform == 'win32' \\\n    --hash=sha256:{'1' * 64}\n"
    )
    out = folder / version
    release = ProductRelease(version, COMMIT, TIME, ("node",))
    write_release(out, release, product, built / "wheels", lock, source, TARGETS)
    return out
