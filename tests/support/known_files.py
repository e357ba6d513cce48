"""Files of artifacts of a federation that is acted, for tests of what starts from files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.fakes import FakeFederation, release

FILES = {"config.json": b'{"model_type": "tiny"}', "README.md": b"# Tiny\n", "sub/tokens.json": b"[]"}
LATER = {**FILES, "README.md": b"# Tiny, second\n"}


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The folder, with these files."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@contextmanager
def two_versions(folder: Path) -> Iterator[FakeFederation]:
    """Three nodes that know `FILES` as swiss-ai/tiny@v1, and `LATER` as its v2."""
    with FakeFederation(("CH", "SG", "ES")).running() as running:
        running.publish(release(folder / "first", FILES, by=running.publisher))
        running.publish(release(folder / "later", LATER, by=running.publisher, name="swiss-ai/tiny@v2"))
        yield running
