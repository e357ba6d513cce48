"""Derivations of real weights: all-MiniLM-L6-v2 cast, sharded differently, and quantised by the writer of the gguf
package.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from comity.addons.derivation.check import Comparison, WeightFiles, compare, read_weights
from comity.trust.errors import Unavailable
from comity_cli.lab.weights import real_weights
from support.derivations import Named, bert_gguf, each, flip, read_all, sharded, to_bf16
from support.tools import missing

pytestmark = pytest.mark.slow

LAYERS, HEADS, TENSORS = 6, 12, 104
POOLER = ("pooler.dense.bias", "pooler.dense.weight")
CHILD_MEMORY = """
import sys
from pathlib import Path
from comity.addons.derivation.check import compare
from comity.addons.derivation.check import read_weights
sides = [read_weights(Path(name), [p.name for p in Path(name).iterdir() if p.is_file()]) for name in sys.argv[1:]]
from comity.addons.derivation import casts
def peak():
    with open("/proc/self/status") as status:  # getrusage counts what ran before exec, too
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
before = peak()
assert compare(*sides).exact
print(peak() - before)
"""


@pytest.fixture(scope="module")
def model() -> Path:
    try:
        return real_weights(lambda _: None)
    except Unavailable as error:
        missing(f"{error}; unlock: a package index that pip reaches")


@pytest.fixture(scope="module")
def tensors(model: Path) -> list[Named]:
    return read_all(model / "model.safetensors")


def weights(folder: Path) -> WeightFiles:
    return read_weights(folder, [path.name for path in folder.iterdir() if path.is_file()])


def compared(child: Path, parent: Path) -> Comparison:
    return compare(weights(child), weights(parent))


def test_bf16_in_three_shards_is_proven_and_one_bit_in_it_is_named(
    tmp_path: Path, model: Path, tensors: list[Named]
) -> None:
    child = sharded(tmp_path, each(tensors, to_bf16), 3)
    found = compared(child, model)
    assert found.exact
    assert found.steps == {"bf16-nearest-even": TENSORS - 1, "copy": 1}  # position_ids are integers
    name = "encoder.layer.3.attention.self.query.weight"
    shard = child / f"model-{[t[0] for t in tensors].index(name) % 3 + 1:05}-of-00003.safetensors"
    flip(shard, name, 70_001, 2)
    (altered,) = [tensor for tensor in compared(child, model).tensors if not tensor.equal]
    assert (altered.file, altered.name) == (shard.name, name)
    assert altered.difference is not None
    assert (altered.difference.element, altered.difference.elements) == (70_001, 1)


@pytest.mark.parametrize(("kind", "step"), [("Q8_0", "q8_0"), ("Q4_0", "q4_0"), ("F16", "f16-nearest-even")])
def test_a_gguf_is_proven_with_the_pooler_named_as_left_out(
    tmp_path: Path, model: Path, tensors: list[Named], kind: str, step: str
) -> None:
    bert_gguf(tmp_path / f"minilm-{kind}.gguf", tensors, kind, LAYERS, HEADS)
    found = compared(tmp_path, model)
    assert found.exact
    assert found.steps == {"copy": 62, step: 39}
    assert found.left_out == found.dropped == ("embeddings.position_ids", *POOLER)


def test_memory_stays_bounded_by_chunks(tmp_path: Path, model: Path, tensors: list[Named]) -> None:
    """The largest tensor is 47 MB in FP32; far less of it is in memory at any time."""
    bert_gguf(tmp_path / "minilm.gguf", tensors, "Q8_0", LAYERS, HEADS)
    ran = subprocess.run(
        [sys.executable, "-c", CHILD_MEMORY, str(tmp_path), str(model)], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 40, f"{ran.stdout} MiB more"
