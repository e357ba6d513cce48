"""Build the folder of a release from a commit of this repository: `make release`. See docs/releasing.md.

The wheel is built from an export of the commit, with tools that `requirements/build.txt` pins, at the time of the
commit. The wheels that `requirements/node.txt` pins come from the package index that pip is set to, or from a folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from comity_client.release_parts import ProductRelease
from release_folder import ReleaseTargets, manifest_of, requirements_of, stored_wheel, write_release

ROOT: Final = Path(__file__).resolve().parents[2]
EXTRAS: Final = ("node", "oidc", "postgres", "s3")
"""Those of `requirements/node.txt`."""
PYTHONS: Final = ("3.11", "3.12", "3.13")
NEWEST_GLIBC: Final = 28
"""Wheels may need glibc 2.28, of 2018, or less."""
OLD_PLATFORMS: Final = ("manylinux2014", "manylinux2010", "manylinux1")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Build the folder of a release from a commit.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; it must not exist")
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--arch", default="x86_64", help="of the machines that the wheels are for")
    parser.add_argument("--python", dest="pythons", action="append", help="3.11; repeatable")
    parser.add_argument("--wheels", type=Path, help="take the wheels from this folder instead of the package index")
    given = parser.parse_args(arguments)
    targets = ReleaseTargets(given.arch, tuple(given.pythons or PYTHONS))
    with tempfile.TemporaryDirectory(prefix="comity-release-") as scratch:
        folder = Path(scratch)
        commit, time = export(given.commit, folder / "source")
        product = build_wheel(folder / "source", folder, time)
        lock = (folder / "source/requirements/node.txt").read_text()
        wheels = given.wheels or download(lock, folder / "wheels", targets)
        version = tomllib.loads((folder / "source/pyproject.toml").read_text())["project"]["version"]
        release = ProductRelease(version, commit, time, EXTRAS)
        write_release(given.out, release, product, wheels, lock, folder / "source", targets)
    sys.stdout.write(f"comity {version} of commit {commit}: sha256:{manifest_of(given.out).digest}\n")


def export(commit: str, to: Path) -> tuple[str, int]:
    """Write the tree of a commit. Returns its full name and its time."""
    name, time = _git("log", "-1", "--format=%H %ct", commit).split()
    archive = to.with_suffix(".tar")
    _git("archive", "--format=tar", f"--output={archive}", name)
    with tarfile.open(archive) as packed:
        packed.extractall(to, filter="data")
    return name, int(time)


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True).stdout


def build_wheel(source: Path, scratch: Path, time: int) -> Path:
    """Build the wheel of a tree with pinned tools in an environment of their own."""
    tools = scratch / "tools"
    subprocess.run([sys.executable, "-m", "venv", str(tools)], check=True)
    for lock in ("build.txt", "node.txt"):  # the second one: the manual pages are made by the commands themselves
        pinned = str(source / "requirements" / lock)
        _pip(tools / "bin/python", "install", "--require-hashes", "--only-binary", ":all:", "-r", pinned)
    environment = {"PATH": os.environ["PATH"], "HOME": str(scratch), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    environment |= {"SOURCE_DATE_EPOCH": str(time), "PYTHONHASHSEED": "0"}
    words = [str(tools / "bin/python"), "-m", "build", "--wheel", "--no-isolation", "--outdir", str(scratch / "dist")]
    subprocess.run([*words, str(source)], check=True, env=environment, stdout=subprocess.DEVNULL)
    (built,) = (scratch / "dist").glob("*.whl")
    stored_wheel(built, scratch / built.name)
    return scratch / built.name


def download(lock: str, to: Path, targets: ReleaseTargets) -> Path:
    """Fetch the wheels that a lock pins, for each version of Python."""
    to.mkdir()
    arch = targets.arch
    names = [f"manylinux_2_{minor}_{arch}" for minor in range(NEWEST_GLIBC, 4, -1)]
    platforms = [
        word for name in (*names, *(f"{old}_{arch}" for old in OLD_PLATFORMS)) for word in ("--platform", name)
    ]
    for python in targets.pythons:
        pinned = to / f"{python}.txt"
        pinned.write_text(
            "".join(
                f"{each.name}=={next(iter(each.specifier)).version} {' '.join(f'--hash=sha256:{d}' for d in digests)}\n"
                for each, digests in requirements_of(lock, ReleaseTargets(arch, (python,))).items()
            )
        )
        words = ["--python-version", python, "--implementation", "cp", *platforms, "--no-deps", "--require-hashes"]
        _pip(Path(sys.executable), "download", "--only-binary", ":all:", *words, "-d", str(to), "-r", str(pinned))
    return to


def _pip(python: Path, *words: str) -> None:
    subprocess.run([str(python), "-m", "pip", *words, "--quiet", "--disable-pip-version-check"], check=True)


if __name__ == "__main__":
    main()
