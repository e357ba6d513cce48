"""Wheels by hash: from folders, from what was fetched before, or from the package index that pip asks.

pip runs as a program of its own, without dependencies, and installs and executes nothing. What it brings is kept by its
SHA-256 in the user's cache, and hashed again when it is read.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from comity.rules.kits.description import KitPlatform
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Unavailable
from comity.verifier import hash_file

from comity_client.kits.lock import LockedDistribution
from comity_client.kits.wheels import SDISTS, platform_tags

FETCH_SECONDS: Final = 900
WATCH_SECONDS: Final = 0.2
MAX_SAID: Final = 64 * 1024
"""Bytes that are read of what pip wrote to standard error."""
MAX_FILES: Final = 10_000
"""Files of a folder that are hashed."""
_SHOWN: Final = 300


def ignore_count(count: int) -> None:
    """Ignore a number of bytes."""


def cache_folder() -> Path:
    """The user's cache of this product."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "comity"


def wheels_in(folders: Iterable[Path]) -> dict[Digest, Path]:
    """The wheels and source distributions in some folders, not below, by their SHA-256. Blocking. Raises
    Unavailable."""
    return files_by_hash(folders, (".whl", *SDISTS))


def files_by_hash(folders: Iterable[Path], endings: tuple[str, ...]) -> dict[Digest, Path]:
    """The files with these endings in some folders, not below, by their SHA-256. Blocking. Raises Unavailable."""
    found: dict[Digest, Path] = {}
    for folder in folders:
        try:
            files = sorted(each for each in folder.iterdir() if each.name.endswith(endings))
        except OSError as error:
            raise Unavailable(f"{folder} cannot be read", why=error.strerror or str(error)) from error
        if len(files) > MAX_FILES:
            raise Malformed(f"{folder} has too many files", why=f"at most {MAX_FILES} files are read of a folder")
        for file in files:
            found.setdefault(hash_file(file, ignore_count)[1], file)
    return found


def kept_wheel(sha256: Digest) -> Path | None:
    """A wheel that was fetched before, as it was then; who reads it hashes it."""
    folder = cache_folder() / "wheels" / sha256
    return next(iter(sorted(folder.glob("*.whl"))), None)


def fetch_wheels(locked: Sequence[LockedDistribution], platform: KitPlatform) -> dict[Digest, Path]:
    """All wheels of these distributions, of the cache or fetched now. Blocking. Raises Unavailable (KIT-WHEELS-MISSING)
    that names those of which a hash is not at the index."""
    kept = {wheel: path for each in locked for wheel in each.wheels if (path := kept_wheel(wheel))}
    for python in platform.python:
        missing = [each for each in locked if not kept.keys() >= set(each.wheels)]
        if missing:
            kept |= _download(missing, _selecting(platform.arch, python))
    absent = [each for each in locked if not kept.keys() >= set(each.wheels)]
    if absent:
        names = ", ".join(f"{each.name}=={each.version}" for each in absent[:5])
        why = "the index has no wheel of a hash that the lock names, for a Python and the machine of the recipe"
        raise Unavailable(f"wheels of {names} were not found", why=why, code="KIT-WHEELS-MISSING")
    return kept


def fetch_wheel(
    locked: LockedDistribution,
    *,
    begin: Callable[[int], None] = ignore_count,
    advance: Callable[[int], None] = ignore_count,
    size: int = 0,
) -> Path:
    """The one wheel of a distribution, for any machine, of the cache or fetched now. Blocking. Raises Unavailable, and
    Malformed if the one that is kept is damaged; it is removed then.

    Args:
        begin: called with `size`, the bytes of the wheel, when a download begins.
        advance: called with the number of bytes that arrived since.
    """
    (sha256,) = locked.wheels
    if kept := kept_wheel(sha256):
        if hash_file(kept, ignore_count)[1] == sha256:
            return kept
        kept.unlink()
        raise Malformed("the cached wheel is damaged", why="its sha256 is not the pinned one; the wheel was removed")
    begin(size)
    return _download([locked], (), advance)[sha256]


def _selecting(arch: str, python: str) -> tuple[str, ...]:
    """Options of pip by which it takes wheels for this Python on machines of this architecture."""
    platforms = [option for tag in platform_tags(arch) for option in ("--platform", tag)]
    return ("--implementation", "cp", "--python-version", python, *platforms)


def _download(
    locked: Sequence[LockedDistribution], options: Sequence[str], advance: Callable[[int], None] = ignore_count
) -> dict[Digest, Path]:
    """Fetch a wheel of each of these distributions. Raises Unavailable."""
    kept, wanted = cache_folder() / "wheels", {wheel for each in locked for wheel in each.wheels}
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as scratch:
        lock = Path(scratch) / "requirements.lock"
        lock.write_text("".join(f"{each.line}\n" for each in locked))
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        only = ["--only-binary=:all:", "--require-hashes", "--dest", scratch, "-r", str(lock)]
        status, said = _run_watched([*pip, *only, *options], Path(scratch), advance)
        found = wheels_in([Path(scratch)])
        if status or not found:
            hint = "or give a folder that has the wheels: --wheels DIR"
            raise Unavailable("pip could not fetch the wheels", why=said.strip()[-_SHOWN:], hint=hint)
        placed = {}
        for sha256 in wanted & found.keys():
            placed[sha256] = kept / sha256 / found[sha256].name
            placed[sha256].parent.mkdir(exist_ok=True)
            found[sha256].replace(placed[sha256])
    return placed


def _run_watched(command: Sequence[str], scratch: Path, advance: Callable[[int], None]) -> tuple[int, str]:
    """Run pip with `scratch` for its temporary files, and report what arrives there. Returns the exit status and what
    it wrote to standard error. Raises Unavailable when it takes too long."""
    seen, deadline = 0, time.monotonic() + FETCH_SECONDS
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment) as pip,
    ):
        while pip.poll() is None:
            if time.monotonic() > deadline:
                pip.kill()
                raise Unavailable("pip timed out", why=f"after {FETCH_SECONDS} s")
            with contextlib.suppress(subprocess.TimeoutExpired):
                pip.wait(WATCH_SECONDS)
            now = _largest(scratch)
            advance(max(0, now - seen))
            seen = max(seen, now)
        said.seek(0)
        return pip.returncode, said.read(MAX_SAID).decode(errors="replace")


def _largest(folder: Path) -> int:
    """Return the bytes of the largest file in a folder that another program changes."""
    sizes = [0]
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            sizes.append(path.stat().st_size)
    return max(sizes)
