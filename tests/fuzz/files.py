"""Fuzz the inspection of files: `python tests/fuzz/files.py [--seconds N] [--seed N]`.

Two kinds of files are made from the corpora: mutants of files that execute, and splices, which are the beginning of a
file of one format before a file that executes. A file that a loader would execute (`fuzz.executions`) and that the
default policy does not refuse ends the run: it is shown in hex on standard error, and the status is 1.
"""

from __future__ import annotations

import argparse
import io
import itertools
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from attackers.executing_files import executing_files
from comity.formats.inspect import inspect
from comity.trust.evidence import FoundFile
from comity.trust.policy import SafetyRule
from comity.trust.rows.content import refused_content
from fuzz.executions import executes
from fuzz.mutate import mutations
from support.harmless_files import harmless_files

MAX_SAMPLE: Final = 32 * 1024
MARKER: Final = "/nonexistent/ran"
NAMES: Final = ("weights.bin", "README.md", "model.safetensors", "config.json", "run", "tokenizer.model", "vocab.txt")


def samples() -> list[bytes]:
    """The files of the corpus that a fuzzer can change quickly."""
    return list(dict.fromkeys(file.data for file in executing_files(MARKER) if len(file.data) <= MAX_SAMPLE))


def mutants(seed: int) -> Iterator[bytes]:
    """Endless mutants of files that execute."""
    return mutations(samples(), seed)


def splices(seed: int) -> Iterator[bytes]:
    """Each format's file before each file that executes: whole first, then endless ones cut at some place."""
    heads = [data for _, data in harmless_files() if len(data) <= MAX_SAMPLE]
    bodies = samples()
    pairs = list(itertools.product(heads, bodies))
    rng = random.Random(seed)
    rng.shuffle(pairs)
    for head, body in pairs:
        yield head + body
    while True:
        head, body = rng.choice(pairs)
        cut = rng.choice((rng.randint(0, min(16, len(head))), rng.randint(0, len(head))))
        yield head[:cut] + rng.choice((b"", b"", b"\n", b"0", bytes(rng.randrange(64)))) + body


def is_clean(data: bytes, name: str) -> bool:
    """Whether the default policy accepts the file."""
    seen = inspect(io.BytesIO(data), name, len(data))
    return not list(refused_content(SafetyRule(), FoundFile(name, len(data), None, inspection=seen)))


def clean_and_executed(files: Iterator[bytes], scratch: Path) -> Iterator[tuple[bytes, str, str]]:
    """For each file its bytes, the name under which it is clean, and the loader that would execute it; the last two
    are empty if there is none. Every file has one of the names, in turn."""
    for data, name in zip(files, itertools.cycle(NAMES), strict=False):
        clean = is_clean(data, name)
        yield data, name if clean else "", executes(data, scratch) if clean else ""


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="Fuzz the inspection of files.")
    options.add_argument("--seconds", type=float, default=60, help="for both kinds together (default: 60)")
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args(arguments)
    found = 0
    with TemporaryDirectory() as scratch:
        for kind, files in (("mutants", mutants(chosen.seed)), ("splices", splices(chosen.seed))):
            tried = clean = 0
            deadline = time.monotonic() + chosen.seconds / 2
            for data, name, loader in clean_and_executed(files, Path(scratch)):
                tried += 1
                clean += bool(name)
                if loader:
                    found += 1
                    print(f"{loader} executes this clean {name}: {data.hex()}", file=sys.stderr)
                if time.monotonic() > deadline:
                    break
            print(f"{kind}: {tried} files, {clean} of them clean, {found} executed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
