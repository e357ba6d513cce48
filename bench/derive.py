"""What it costs to make a child's tensors again: `comity derive check` without its hashing, beside a hash of both.

python bench/derive.py [--mib 512] [--rounds 5]

Figures are MB of the parent a second, with two workers. Memory is what a process grows by while it compares.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gguf
import numpy as np
from comity.addons.derivation import casts
from comity.addons.derivation.check import compare, read_weights
from harness import show, speeds, take_turns, write

ROWS, COLUMNS = 2048, 4096
CHILDREN = ("copy", "bf16", "q8_0", "q4_0")
HASH = "sha256 of both"
GROWTH = """
import sys
from pathlib import Path
from comity.addons.derivation import casts
from comity.addons.derivation.check import compare
from comity.addons.derivation.check import read_weights
def peak():
    with open("/proc/self/status") as status:  # getrusage counts what ran before exec, too
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
sides = [read_weights(Path(name), [p.name for p in Path(name).iterdir()]) for name in sys.argv[1:]]
before = peak()
assert compare(*sides).exact
print(peak() - before)
"""


def write_safetensors(path: Path, dtype: str, tensors: list[bytes]) -> None:
    header, at = {}, 0
    for number, data in enumerate(tensors):
        shape = [ROWS, COLUMNS]
        header[f"layer.{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.parent.mkdir()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(tensors)


def write_gguf(path: Path, kind: str, numbers: list[np.ndarray]) -> None:
    path.parent.mkdir()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(0)
    wanted = gguf.GGMLQuantizationType[kind]
    for number, values in enumerate(numbers):
        writer.add_tensor(f"layer.{number}", gguf.quants.quantize(values, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(folder: Path, mib: int) -> None:
    made = np.random.default_rng(7)
    numbers = [made.normal(0, 0.02, (ROWS, COLUMNS)).astype("<f4") for _ in range(mib * 2**20 // (ROWS * COLUMNS * 4))]
    write_safetensors(folder / "parent" / "model.safetensors", "F32", [values.tobytes() for values in numbers])
    write_safetensors(folder / "copy" / "other.safetensors", "F32", [values.tobytes() for values in numbers])
    half = [casts.cast(values.reshape(-1), "BF16").tobytes() for values in numbers]
    write_safetensors(folder / "bf16" / "model.safetensors", "BF16", half)
    for kind in ("Q8_0", "Q4_0"):
        write_gguf(folder / kind.lower() / "model.gguf", kind, numbers)


def derived(folder: Path, child: str) -> None:
    sides = [read_weights(folder / name, [p.name for p in (folder / name).iterdir()]) for name in (child, "parent")]
    assert compare(*sides).exact


def hashed(folder: Path, child: str) -> None:
    for name in (child, "parent"):
        for path in (folder / name).iterdir():
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mib", type=int, default=512)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(folder, chosen.mib)
        peers: dict[str, Callable[[], None]] = {child: partial(derived, folder, child) for child in CHILDREN}
        peers[HASH] = lambda: hashed(folder, "copy")
        table = speeds(take_turns(peers, chosen.rounds), chosen.mib * 2**20, HASH)
        growth = {child: _growth(folder, child) for child in CHILDREN}
    show(table)
    print("grows by, in MiB:", growth)
    figure = "MB of the FP32 parent a second; grows_by in MiB"
    write("derive", rounds=chosen.rounds, figure=figure, mib=chosen.mib, peers=table, grows_by=growth)


def _growth(folder: Path, child: str) -> int:
    command = [sys.executable, "-c", GROWTH, str(folder / child), str(folder / "parent")]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
