"""From whom artifacts descend (`comity descent`): bytes on the disk an artifact, CPU seconds of filling the rows, of
counting all pages at a node, and of folding them at a client, and the client's memory.

    python bench/descent.py [--artifacts 100000] [--roots 1000] [--depth 3]

Artifacts are chains: a root of a member or of an upstream organisation, and fine-tuned ones of members, `depth`
generations each. Reading statements and manifests is not counted; there is no network between. One in ten artifacts was
pulled.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from comity.node.descent import ArtifactFacts, DescentFact, DescentRows, NamedParent
from comity.node.projection import Position
from comity.node.reading import ReadState
from comity.node.services.descent import DescentCounter
from comity.rules.descent import DescentQuestion
from comity.rules.descent_shares import DescentFolder, KnownLaws
from comity.rules.file_records import MEMBERS
from comity.trust.encoding import Digest, sha256
from harness import write


class _Pools:
    async def files(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)


def facts(count: int, roots: int, depth: int) -> Iterator[DescentFact]:
    for number in range(count):
        digest = sha256(b"%d" % number)
        chain, generation = divmod(number, depth)
        author = f"hf:org{chain % roots}" if chain % 2 else sha256(b"member %d" % (chain % 200))
        parents = (NamedParent(sha256(b"%d" % (number - 1)), "", number % 3 == 0),) if generation else ()
        by = sha256(b"member %d" % (number % 200)) if generation else author
        yield DescentFact(digest, MEMBERS, by, parents, ArtifactFacts(10**9 + number, digest, number % 50 == 0))


def counter(rows: DescentRows) -> DescentCounter:
    def recent(files: Sequence[Digest], weeks: int) -> Counter[Digest]:
        return Counter({file: 3 for file in files if file.startswith(("0", "1"))})

    reader: Any = SimpleNamespace(rows=rows, progress=lambda: ReadState(1, 1))
    pulls: Any = SimpleNamespace(recent=recent)
    other: Any = SimpleNamespace(body=None, own_node=SimpleNamespace(record=SimpleNamespace()), peers=())
    other.own_node.record = SimpleNamespace(log="log", member="", name="", place=None)
    pools: Any = _Pools()
    return DescentCounter(reader, other, other, pulls, pools, lambda: 0.0)


async def fold(asked: DescentCounter, roots: int) -> tuple[DescentFolder, float, float, int]:
    """The folded pages; CPU seconds of the node and of the client, and the number of pages."""
    laws = {f"hf:org{number}": "US" if number % 3 else "FR" for number in range(roots)}
    folder = DescentFolder(KnownLaws({sha256(b"member %d" % number): "CH" for number in range(200)}, laws, {}))
    after, pages, node_seconds, client_seconds = 0, 0, 0.0, 0.0
    while True:
        started = time.process_time()
        page = await asked.page(DescentQuestion(), after)
        counted = time.process_time()
        folder.add(page.counts, page.requiring)
        node_seconds += counted - started
        client_seconds += time.process_time() - counted
        pages += 1
        if not page.next:
            return folder, node_seconds, client_seconds, pages
        after = page.next


async def measure(arguments: argparse.Namespace, rows: DescentRows) -> dict[str, Any]:
    started = time.process_time()
    rows.add(facts(arguments.artifacts, arguments.roots, arguments.depth), Position(1, "1"))
    filled = time.process_time() - started
    asked = counter(rows)
    folder, node_seconds, client_seconds, pages = await fold(asked, arguments.roots)
    shares = folder.shares("node", 0, 13)
    assert shares.total.artifacts == arguments.artifacts
    tracemalloc.start()
    folder, *_ = await fold(asked, arguments.roots)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return {
        "artifacts": arguments.artifacts,
        "bytes_an_artifact": round(sum(f.stat().st_size for f in rows.file.parent.iterdir()) / arguments.artifacts, 1),
        "fill_us_an_artifact": round(filled / arguments.artifacts * 1e6, 1),
        "pages": pages,
        "node_cpu_seconds": round(node_seconds, 2),
        "client_cpu_seconds": round(client_seconds, 3),
        "client_bytes": held,
        "laws": len(shares.laws),
        "authors": len(shares.authors),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=int, default=100_000)
    parser.add_argument("--roots", type=int, default=1_000)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--result", default="descent")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, closing(DescentRows(Path(folder) / "rows", "")) as rows:
        found = asyncio.run(measure(arguments, rows))
    print(found)
    if arguments.result:
        write(arguments.result, **found)


if __name__ == "__main__":
    main()
