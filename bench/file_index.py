"""The index of files of a node: bytes on the disk a file, and CPU seconds of filling it, of answering questions, of
giving all of it to a client, and of finding files there.

    python bench/file_index.py [--artifacts 100000] [--files 20] [--rounds 5] [--looked-up 100000]

Artifacts have random files, in the tables of a node's own index. A question has 1,000 prefixes, of as many bits as a
client takes for so many files, and its answer is encoded as it is sent. Reading and parsing manifests is not counted.
A client takes the index as it is sent, in calls of about 16 MiB, without a network between; then it looks for digests,
of which the index has one in ten; then it takes what 1,000 new artifacts add.
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
from comity.node.services.index_records import FileIndexSender
from comity.trust.encoding import Digest
from comity.trust.keys import HybridSigner, PrivateKey
from comity.trust.statement import Author
from comity.v1 import artifact_pb2
from comity.wire import limits
from comity.wire.codec import MessageCodec
from comity.wire.files import PAIR_BYTES, FileIndexPart, FilePrefixes, FoundFiles
from comity_client.identify.kept_indexes import KeptIndex, KeptIndexes, find_files
from comity_client.identify.lookup import bits_for
from harness import write

TOGETHER = 16
NEW = 1_000
KNOWN = 10_000


class _Pools:
    async def files(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)


def artifacts(count: int, files: int) -> Iterator[IndexedArtifact]:
    for number in range(count):
        digest = Digest(os.urandom(32).hex())
        references = frozenset(os.urandom(16) for _ in range(files))
        yield IndexedArtifact(digest, number % 2, references, f"publisher-{number % 997}/model-{number}@v1.0")


def fill(index: FileIndex, count: int, files: int) -> tuple[float, set[bytes]]:
    """CPU seconds, and some of the references."""
    spent, made, some_references = 0.0, artifacts(count, files), set[bytes]()
    for number in range(0, count, TOGETHER):
        some = [next(made) for _ in range(min(TOGETHER, count - number))]
        if len(some_references) < KNOWN:
            some_references |= some[0].references
        begun = time.process_time()
        index.add(some, Position(number + 1, "statement"))
        spent += time.process_time() - begun
    return spent, some_references


class Node:
    """A node that gives its index, and the client's side of it."""

    def __init__(self, index: FileIndex) -> None:
        self.signer = HybridSigner((PrivateKey.generate("ed25519"), PrivateKey.generate("ml-dsa-65")))
        author = Author("node", self.signer.public.id)
        self.record: Any = SimpleNamespace(node=author, online=self.signer.public, name="node")
        tables = SimpleNamespace(
            logs=SimpleNamespace(heads=lambda: {f"node-{n}.example/log+key": (n, b"") for n in range(200)}),
            intake=SimpleNamespace(entries_processed=lambda: (1, 1)),
        )
        reader: Any = SimpleNamespace(index=index, progress=lambda: ReadState(1, 1))
        pools: Any = _Pools()
        ledger: Any = SimpleNamespace(tables=tables, read=pools.files)
        signer: Any = SimpleNamespace(record=self.record, online=self.signer)
        self.sender = FileIndexSender(reader, ledger, pools, signer, time.time)

    async def fetch(self, folder: Path) -> tuple[KeptIndex, dict[str, float]]:
        """CPU seconds of the node and of the client, wall seconds, and bytes that were sent."""
        codec, indexes = MessageCodec(FileIndexPart, artifact_pb2.FileIndexPart), KeptIndexes(folder, [self.record])
        spent, begun = {"node": 0.0, "client": 0.0, "bytes": 0.0}, time.perf_counter()
        with indexes.writing(self.record) as writer:
            while True:
                line, start = b"", time.process_time()
                async for part in self.sender.send(writer.count, writer.head):
                    data = codec.encode(part).SerializeToString()
                    middle = time.process_time()
                    read = codec.decode(artifact_pb2.FileIndexPart.FromString(data))
                    writer.add(read.records)
                    line = read.state
                    end = time.process_time()
                    spent["node"] += middle - start
                    spent["client"] += end - middle
                    spent["bytes"] += len(data)
                    start = end
                kept = writer.keep(line)
                spent["client"] += time.process_time() - start
                if not kept.state.later:
                    spent["wall"] = time.perf_counter() - begun
                    return kept, spent


def opening(file: Path) -> float:
    """CPU seconds until the index of a node that starts can answer."""
    begun = time.process_time()
    with closing(FileIndex(file, "basis")) as index:
        found = (index.position, index.count, index.last_record)
    assert all(found)
    return time.process_time() - begun


def look_up(kept: KeptIndex, known: set[bytes], count: int) -> float:
    """CPU seconds."""
    here = set(list(known)[: count // 10])
    wanted = frozenset(here | {os.urandom(16) for _ in range(count - len(here))})
    begun = time.process_time()
    found = find_files(kept, wanted)
    spent = time.process_time() - begun
    assert set().union(*(each.references for each in found.artifacts.values())) == here
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
    options.add_argument("--looked-up", type=int, default=100_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "files.sqlite"
        with closing(FileIndex(file, "basis")) as index:
            load, (filled, known) = os.getloadavg()[0], fill(index, given.artifacts, given.files)
            asked = [asyncio.run(ask(index)) for _ in range(given.rounds)]
            count, node, kept_in = index.count, Node(index), Path(folder) / "client"
            kept_in.mkdir()
            kept, fetched = asyncio.run(node.fetch(kept_in))
            looked_up = [look_up(kept, known, given.looked_up) for _ in range(given.rounds)]
            index.add(artifacts(NEW, given.files), Position(given.artifacts + 1, "statement"))
            _, updated = asyncio.run(node.fetch(kept_in))
            sent = kept.size
        size = file.stat().st_size
        opened = [opening(file) for _ in range(given.rounds)]
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
        "open_cpu_s": round(statistics.median(opened), 4),
        "kept_bytes_a_file": round(sent / count, 1),
        "fetch_bytes": round(fetched["bytes"]),
        "fetch_node_cpu_s": round(fetched["node"], 2),
        "fetch_client_cpu_s": round(fetched["client"], 2),
        "fetch_s": round(fetched["wall"], 2),
        "update_artifacts": NEW,
        "update_bytes": round(updated["bytes"]),
        "update_cpu_s": round(updated["node"] + updated["client"], 3),
        "looked_up": given.looked_up,
        "look_up_cpu_s": round(statistics.median(looked_up), 2),
        "load_before": load,
    }
    for name, value in result.items():
        print(f"{name:<20}{value}")
    write("file_index", rounds=given.rounds, **result)


if __name__ == "__main__":
    main()
