"""The index of files of a node: bytes on the disk a file, and CPU seconds of filling it and of answering questions.

    python bench/file_index.py [--artifacts 100000] [--files 20] [--rounds 5]

Artifacts have random files, in the tables of a node's own index. A question has 1,000 prefixes, of as many bits as a
client takes for so many files, and its answer is encoded as it is sent. Reading and parsing manifests is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from comity.node.file_index import FileIndex, IndexedArtifact
from comity.node.projection import Position
from comity.node.reading import ReadState
from comity.node.services.files import FileFinder
from comity.trust.encoding import Digest
from comity.v1 import artifact_pb2
from comity.wire import limits
from comity.wire.codec import MessageCodec
from comity.wire.files import PAIR_BYTES, FilePrefixes, FoundFiles
from comity_client.identify.lookup import bits_for
from harness import write

TOGETHER = 16


class _Pools:
    async def files(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)


def artifacts(count: int, files: int) -> Iterator[IndexedArtifact]:
    for number in range(count):
        digest = Digest(os.urandom(32).hex())
        yield IndexedArtifact(digest, number % 2, frozenset(os.urandom(16) for _ in range(files)))


def fill(index: FileIndex, count: int, files: int) -> float:
    """CPU seconds."""
    spent, made = 0.0, artifacts(count, files)
    for number in range(0, count, TOGETHER):
        some = [next(made) for _ in range(min(TOGETHER, count - number))]
        begun = time.process_time()
        index.add(some, Position(number + 1, "statement"))
        spent += time.process_time() - begun
    return spent


async def ask(index: FileIndex) -> tuple[float, int, int]:
    """CPU seconds, bytes of the answer, and files in it."""
    bits = bits_for(index.count)
    prefixes = sorted({int.from_bytes(os.urandom(4), "big") >> (32 - bits) for _ in range(limits.FILE_PREFIXES)})
    reader: Any = SimpleNamespace(index=index, progress=lambda: ReadState(1, 1))
    pools: Any = _Pools()
    codec, size, found, begun = MessageCodec(FoundFiles, artifact_pb2.FoundFiles), 0, 0, time.process_time()
    together = max(1, limits.FILES_ASKED // max(1, index.count >> bits))
    for start in range(0, len(prefixes), together):
        question = FilePrefixes(bits, tuple(prefixes[start : start + together]))
        async for part in FileFinder(reader, pools).find(question):
            size += len(codec.encode(part).SerializeToString())
            found += len(part.of_members + part.of_others) // PAIR_BYTES
    return time.process_time() - begun, size, found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--artifacts", type=int, default=100_000)
    options.add_argument("--files", type=int, default=20)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "files.sqlite"
        with closing(FileIndex(file, "basis")) as index:
            load, filled = os.getloadavg()[0], fill(index, given.artifacts, given.files)
            asked = [asyncio.run(ask(index)) for _ in range(given.rounds)]
            count = index.count
        size = file.stat().st_size
    cpu = [each[0] for each in asked]
    result: dict[str, Any] = {
        "artifacts": given.artifacts,
        "files": count,
        "bytes_a_file": round(size / count, 1),
        "fill_cpu_us_a_file": round(filled / count * 1e6, 1),
        "bits": bits_for(count),
        "question_cpu_s": round(statistics.median(cpu), 3),
        "question_cpu_min": round(min(cpu), 3),
        "question_cpu_max": round(max(cpu), 3),
        "answer_bytes": round(statistics.median(each[1] for each in asked)),
        "answer_files": round(statistics.median(each[2] for each in asked)),
        "load_before": load,
    }
    for name, value in result.items():
        print(f"{name:<20}{value}")
    write("file_index", rounds=given.rounds, **result)


if __name__ == "__main__":
    main()
