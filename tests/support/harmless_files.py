"""Files as people put them into repositories of models, none of which can call anything: made here, small, one or more
of each format. Real ones come from packages (`tests/interop/test_real_files.py`).
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

from support import model_files, weights
from support.hdf5_files import hdf5_with_attributes

WORDS: Final = "# A model\n\nIt answers questions. Größe: 3 µm.\n"


def harmless_files() -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of each file."""
    for family in (_texts, _weights, _models, _media, _packed):
        yield from family().items()


def _texts() -> Mapping[str, bytes]:
    config = {"architectures": ["BertModel"], "hidden_size": 384, "id2label": {"0": "a"}, "torch_dtype": "float32"}
    return {
        "README.md": ("---\nlicense: apache-2.0\ntags:\n- embeddings\n---\n" + WORDS).encode(),
        "LICENSE": b"Apache License\n" * 40,
        "NOTICE": b"",
        "USE_POLICY.md": WORDS.encode(),
        ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        ".gitignore": b"__pycache__/\n",
        "config.json": json.dumps(config, indent=2).encode(),
        "generation_config.json": b'{"eos_token_id": [1, 2], "temperature": 0.6}\n',
        "model.safetensors.index.json": b'{"metadata": {"total_size": 8}, "weight_map": {"a": "model-1.safetensors"}}',
        "special_tokens_map.json": b'{"unk_token": {"content": "<unk>", "lstrip": false}}',
        "added_tokens.json": b'{"<|im_end|>": 151645}',
        "vocab.json": json.dumps({"!": 0, "\u0120the": 1, "c": 2, "cos\nsystem": 3}).encode(),
        "tokenizer.json": json.dumps({"version": "1.0", "model": {"type": "BPE", "merges": ["a b"]}}).encode(),
        "modules.json": b'[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]',
        "model_index.json": b'{"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}',
        "trainer_state.json": b'{"log_history": [{"loss": NaN, "step": 1}]}',
        "vocab.txt": b"[PAD]\n[unused0]\nc\n!\n##ing\n(\n",
        "merges.txt": b"#version: 0.2\nt h\n! !\n",
        "config.yaml": b"model:\n  name: a\n  layers: [1, 2]\n",
        "params.toml": b"[model]\nname = 'a'\n",
        "train.csv": b"text,label\nhello,1\n",
        "train.tsv": b"text\tlabel\nhello\t1\n",
        "data.jsonl": b'{"a": 1}\n{"a": 2}\n',
        "openvino_model.xml": b'<?xml version="1.0"?>\n<net name="a" version="11"><layers/></net>\n',
        "figure.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>\n',
        "latin-1.txt": WORDS.encode("latin-1"),
        "utf-16.txt": WORDS.encode("utf-16"),
        "utf-16-be.csv": b"\xfe\xff" + WORDS.encode("utf-16-be"),
        "with a mark.txt": WORDS.encode("utf-8-sig"),
        "windows.txt": WORDS.replace("\n", "\r\n").encode("cp1252"),
    }


def npy(values: bytes, descr: str = "<f4") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({len(values) // 4},), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + values


def _weights() -> Mapping[str, bytes]:
    numbers = struct.pack("<8f", *range(8))
    pieces = (b"<unk>", b"<s>", b"</s>")
    return {
        "model.safetensors": weights.safetensors({"a": numbers, "b": bytes(16)}, {"format": "pt"}),
        "model.gguf": weights.gguf({"a": numbers}, tokens=("<s>", "a"), texts={"general.name": "a"}),
        "a.npy": npy(numbers),
        "a.npz": zipped({"a.npy": npy(numbers), "b.npy": npy(numbers)}),
        "deflated.npz": zipped({"a.npy": npy(numbers)}, zipfile.ZIP_DEFLATED),
        "model.onnx": b"\x08\x07\x12\x04test\x3a\x03\x12\x01x\x42\x02\x10\x0b",
        "model.onnx_data": numbers * 20,
        "openvino_model.bin": numbers * 20,
        "tokenizer.model": b"".join(
            b"\n" + bytes([len(piece) + 7]) + b"\n" + bytes([len(piece)]) + piece + b"\x15\0\0\0\0" for piece in pieces
        ),
        "flax_model.msgpack": b"\x81\xa6params\x81\xa1a\x93\x01\x02\x03",
        "model.weights.h5": hdf5_with_attributes({"backend": b"jax"}),
        "events.out.tfevents.1700000000.host.1.0": tf_records(b"\x09" + bytes(8) + b"\x1a\rbrain.Event:2", b"\x10\x01"),
    }


def _media() -> Mapping[str, bytes]:
    chunk = b"\0\0\0\rIHDR" + bytes(13) + bytes(4)
    wav = b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\x08\0\0\0" + bytes(8)
    return {
        "image.png": b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82",
        "image.jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01" + bytes(8) + b"\xff\xda\0\x08" + bytes(40) + b"\xff\xd9",
        "image.gif": b"GIF89a\x01\0\x01\0\0\0\0;",
        "image.webp": b"RIFF" + struct.pack("<I", 16) + b"WEBPVP8 \x04\0\0\0" + bytes(4),
        "sample.wav": b"RIFF" + struct.pack("<I", len(wav)) + wav,
        "sample.flac": b"fLaC\x80\0\0\x22" + bytes(34),
        "sample.ogg": b"OggS\0\x02" + bytes(21),
        "sample.mp3": b"ID3\x04\0\0\0\0\0\0" + b"\xff\xfb\x90\0" + bytes(64),
        "paper.pdf": b"%PDF-1.5\n%\xd0\xd4\xc5\xd8\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n",
    }


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _models() -> Mapping[str, bytes]:
    return {
        "ggml-tiny.bin": model_files.whisper(),
        "lid.176.bin": model_files.fasttext(),
        "lid.176.ftz": model_files.fasttext(quantised=True),
        "a.mlmodel": model_files.coreml(500, model_files.coreml_network(model_files.coreml_layer(140))),
        "a.mlpackage/Data/com.apple.CoreML/weights/weight.bin": model_files.coreml_weights(b"1" * 100),
        "a.ttf": model_files.font(),
    }


def _packed() -> Mapping[str, bytes]:
    text = WORDS.encode() * 9
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("vocab.txt")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    return {
        "vocab.txt.gz": gzip.compress(text),
        "vocab.txt.bz2": bz2.compress(text),
        "vocab.txt.xz": lzma.compress(text),
        "vocab.txt.lzma": lzma.compress(text, format=lzma.FORMAT_ALONE),
        "vocab.z": zlib.compress(text),
        "vocab.zip": zipped({"vocab.txt": text}, zipfile.ZIP_DEFLATED),
        "vocab.tar": tar.getvalue(),
        "vocab.tar.gz": gzip.compress(tar.getvalue()),
    }


def tf_records(*records: bytes) -> bytes:
    """The records as TensorFlow writes them: a length and its checksum, the bytes and theirs."""
    made = b""
    for record in records:
        length = struct.pack("<Q", len(record))
        made += length + struct.pack("<I", _masked(length)) + record + struct.pack("<I", _masked(record))
    return made


def _masked(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
