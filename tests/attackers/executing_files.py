"""Files that execute: each one runs a call when its loader reads it, and names the line of Python that loads it.

The call is always the same: it opens the file `MARKER` for writing. Every file is made here from bytes, without the
libraries that load it, so that the inspection is tested everywhere; that a file really executes is proven where these
libraries are at hand (`tests/interop/test_executing_files.py`).
"""

from __future__ import annotations

import base64
import bz2
import gzip
import importlib.util
import io
import json
import lzma
import marshal
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from support import weights
from support.hdf5_files import hdf5_with_attributes

LOAD = "import pickle; pickle.load(open(FILE, 'rb'))"
JOBLIB = "import joblib; joblib.load(FILE)"
NUMPY = "import numpy; a = numpy.load(FILE, allow_pickle=True); [a[n] for n in getattr(a, 'files', ())]"
YAML = "import yaml; yaml.load(open(FILE, 'rb'), Loader=yaml.UnsafeLoader)"
RUN = "import runpy; runpy.run_path(FILE)"
PANDAS = "import pandas; pandas.read_pickle(FILE)"
TORCH = "import torch; torch.load(FILE, weights_only=False)"
KERAS = "import keras; keras.models.load_model(FILE, safe_mode=False)"
JINJA = "import jinja2; jinja2.Environment().from_string(open(FILE).read()).render(messages=[])"
NOTEBOOK = "from IPython.core.interactiveshell import InteractiveShell as S; S.instance().safe_execfile_ipy(FILE)"


@dataclass(frozen=True, slots=True)
class ExecutingFile:
    """A file and the Python that loads it, with the names FILE and MARKER; `needs`: the package that loads it."""

    name: str
    path: str
    data: bytes
    loader: str
    needs: str = ""


class Opens:
    """An object whose pickle opens the marker for writing."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.marker, "w")


def executing_files(marker: str) -> Iterator[ExecutingFile]:
    """All files; loading each one creates the file `marker`, an absolute path without spaces and quotes."""
    for family in (_pickles, _packed, _spliced, _arrays, _yaml, _programs, _tars, _torch, _keras, _templates):
        for name, (path, data, loader, *needs) in family(marker).items():
            yield ExecutingFile(f"{family.__name__[1:]}: {name}", path, data, loader, *needs)


Family = Mapping[str, tuple[Any, ...]]


def call(marker: str, protocol: int = 2) -> bytes:
    return pickle.dumps(Opens(marker), protocol)


def _line(text: str) -> bytes:
    return text.encode() + b"\n"


def _text_call(marker: str) -> bytes:
    """The call as a pickle of protocol 0, which is ASCII."""
    return b"cio\nopen\n(V" + _line(marker) + b"Vw\ntR."


def _pickles(marker: str) -> Family:
    text = _text_call(marker)
    made: dict[str, tuple[Any, ...]] = {
        f"protocol {protocol}": ("weights.bin", call(marker, protocol), LOAD) for protocol in range(6)
    }
    harmless = {
        "many opcodes": b"N0" * 15_000,
        "more opcodes than are read": b"N0" * 30_000,
        "a long line": b"V" + b"x" * 3_000_000 + b"\n0",
        "a long string": b"X\x00\x00\x10\x00" + bytes(1_048_576) + b"0",
        "many long strings": (b"X\x00\x00\x10\x00" + bytes(1_048_576) + b"0") * 14,
        "marks": b"(((1" + b"1" * 2,
        "numbers": b"I01\n0L7L\n0F1.5\n0",
        "a memo": b"I5\np0\n0g0\n0",
        "an image's mark": b"GIF89" + bytes(4) + b"0",
        "a model's mark": b"VabTFL3\n0",
        "a GGUF mark": b"GGUF\x03\x00\x00\x00\x000",
        "a parquet mark": b"VPAR1\n0",
        "a tuple of nothing": b")0",
        "a duplicate": b"N200",
    }
    for what, before in harmless.items():
        made[f"after {what}"] = ("weights.bin", before + text, LOAD)
    made["INST"] = ("a.pkl", b"(V" + _line(marker) + b"Vw\niio\nopen\n.", LOAD)
    unended = b"(V" + _line(marker) + b"Vw\niio\nopen!"  # without a line feed the last letter is cut off
    made["INST without a line feed"] = ("a.joblib", unended, JOBLIB, "joblib")
    made["OBJ"] = ("a.pkl", b"(cio\nopen\nV" + _line(marker) + b"Vw\no.", LOAD)
    made["a second pickle"] = (
        "a.pkl",
        b"I5\n." + text,
        "import pickle; f = open(FILE, 'rb'); pickle.load(f); pickle.load(f)",
    )
    made["a list of words"] = ("vocab.txt", text, LOAD)
    made["named as a configuration"] = ("config.json", text, LOAD)
    made["cloudpickle"] = (
        "a.pkl",
        call(marker, 5),
        "import cloudpickle; cloudpickle.load(open(FILE, 'rb'))",
        "cloudpickle",
    )
    made["dill"] = ("a.dill", call(marker, 4), "import dill; dill.load(open(FILE, 'rb'))", "dill")
    made["joblib"] = ("a.joblib", call(marker), JOBLIB, "joblib")
    made["numpy"] = ("a.npy", call(marker), NUMPY, "numpy")
    made["pandas"] = ("a.pkl", call(marker), PANDAS, "pandas")
    return made


def gzip_member(data: bytes, *, name: bytes = b"", extra: bytes = b"", comment: bytes = b"") -> bytes:
    flags = 8 * bool(name) | 4 * bool(extra) | 16 * bool(comment)
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    head += (struct.pack("<H", len(extra)) + extra) if extra else b""
    head += name + b"\0" if name else b""
    head += comment + b"\0" if comment else b""
    packer = zlib.compressobj(wbits=-15)
    body = packer.compress(data) + packer.flush()
    return head + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def zlib_with_empty_blocks(data: bytes, blocks: int) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    body = packer.compress(data) + packer.flush()
    return b"\x78\x9c" + b"\x00\x00\x00\xff\xff" * blocks + body + struct.pack(">I", zlib.adler32(data))


def _packed(marker: str) -> Family:
    data = call(marker)
    streams = {
        "gzip": ("a.pkl.gz", gzip.compress(data)),
        "gzip, empty first member": ("a.pkl.gz", gzip.compress(b"") + gzip.compress(data)),
        "gzip, many empty members": ("a.pkl.gz", gzip.compress(b"") * 300 + gzip.compress(data)),
        "gzip, zeros between members": ("a.pkl.gz", gzip.compress(b"") + bytes(99) + gzip.compress(data)),
        "gzip, a name of 1.1 MB": ("a.pkl.gz", gzip_member(data, name=b"n" * 1_100_000)),
        "gzip, a comment of 2 MB": ("a.pkl.gz", gzip_member(data, comment=b"n" * 2_000_000)),
        "gzip, an extra field": ("a.pkl.gz", gzip_member(data, extra=bytes(60_000))),
        "gzip, split in two members": ("a.pkl.gz", gzip.compress(data[:5]) + gzip.compress(data[5:])),
        "bzip2": ("a.pkl.bz2", bz2.compress(data)),
        "bzip2, empty first stream": ("a.pkl.bz2", bz2.compress(b"") + bz2.compress(data)),
        "xz": ("a.pkl.xz", lzma.compress(data)),
        "xz, empty first stream": ("a.pkl.xz", lzma.compress(b"") + lzma.compress(data)),
    }
    opened = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}
    made: dict[str, tuple[Any, ...]] = {}
    for what, (path, packed) in streams.items():
        module = next(module for suffix, module in opened.items() if path.endswith(suffix))
        made[what] = (path, packed, f"import {module}, pickle; pickle.load({module}.open(FILE))")
    lzma_alone = lzma.compress(data, format=lzma.FORMAT_ALONE)
    made["legacy lzma"] = ("a.pkl.lzma", lzma_alone, "import lzma, pickle; pickle.load(lzma.open(FILE))")
    made["gzip within gzip"] = (
        "a.gz",
        gzip.compress(gzip.compress(data)),
        "import gzip, pickle; pickle.load(gzip.open(gzip.open(FILE)))",
    )
    made["raw zlib"] = (
        "a.z",
        zlib.compress(data),
        "import pickle, zlib; pickle.loads(zlib.decompress(open(FILE, 'rb').read()))",
    )
    made["zlib of a small window"] = (
        "a.z",
        (lambda packer: packer.compress(data) + packer.flush())(zlib.compressobj(wbits=9)),
        "import pickle, zlib; pickle.loads(zlib.decompress(open(FILE, 'rb').read()))",
    )
    made |= {
        "joblib, zlib": ("a.joblib", zlib.compress(data, 3), JOBLIB, "joblib"),
        "joblib, zlib with empty blocks": ("a.joblib", zlib_with_empty_blocks(data, 1_000), JOBLIB, "joblib"),
        "joblib, zlib with many empty blocks": ("a.joblib", zlib_with_empty_blocks(data, 400_000), JOBLIB, "joblib"),
        "joblib, gzip with a long name": ("a.joblib", gzip_member(data, name=b"n" * 1_100_000), JOBLIB, "joblib"),
        "joblib, gzip": ("a.joblib", gzip.compress(data), JOBLIB, "joblib"),
        "joblib, bzip2": ("a.joblib", bz2.compress(data), JOBLIB, "joblib"),
        "joblib, bzip2, empty first stream": ("a.joblib", bz2.compress(b"") + bz2.compress(data), JOBLIB, "joblib"),
        "joblib, xz": ("a.joblib", lzma.compress(data), JOBLIB, "joblib"),
        "joblib, legacy lzma": ("a.joblib", lzma_alone, JOBLIB, "joblib"),
        "pandas, gzip": ("a.pkl.gz", gzip.compress(data), PANDAS, "pandas"),
        "pandas, zip": ("a.pkl.zip", zipped({"a.pkl": data}), PANDAS, "pandas"),
        "pandas, deflated zip": ("a.pkl.zip", zipped({"a.pkl": data}, method=zipfile.ZIP_DEFLATED), PANDAS, "pandas"),
        "pandas, zip of bzip2": ("a.pkl.zip", zipped({"a.pkl": data}, method=zipfile.ZIP_BZIP2), PANDAS, "pandas"),
        "pandas, zip of lzma": ("a.pkl.zip", zipped({"a.pkl": data}, method=zipfile.ZIP_LZMA), PANDAS, "pandas"),
        "a damaged gzip stream": (
            "a.pkl.gz",
            gzip.compress(data + bytes(100_000))[:-8] + b"damaged!",
            "import gzip, pickle; pickle.load(gzip.open(FILE))",
        ),
    }
    return made


def zipped(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.comment = comment
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def appended_zip(before: bytes, members: Mapping[str, bytes], comment: bytes = b"") -> bytes:
    file = io.BytesIO(before)
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = comment
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _source(marker: str) -> bytes:
    return f"open({marker!r}, 'w')\n".encode()


def safetensors_and_pickle(marker: str) -> bytes:
    """A valid safetensors file that is a pickle as well: the length of the header begins with the opcode of a short
    string, and a chain of such strings within the metadata ends among the tensors, where the call is."""
    body = b"0" + _text_call(marker)
    tail = b'"},"t":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (len(body), len(body))
    skipped = 40
    length = 0x55 | skipped << 8  # the opcode, and the length of the first string
    begin, end = 2 + skipped, 8 + length
    file = bytearray(struct.pack("<Q", length) + b'{"__metadata__":{"a":"'.ljust(length, b"x"))
    hops = -(-(end - begin) // 129)
    position = begin
    for left in range(hops, 0, -1):
        step = (end - position) // left
        file[position : position + 3] = b"0U" + bytes([step - 3])
        position += step
    file[end - len(tail) : end] = tail
    return bytes(file) + body


def _spliced(marker: str) -> Family:
    main = {"__main__.py": _source(marker)}
    tensors = weights.safetensors({"a": b"A" * 64})
    text = b"# A model\n\nWords about it.\n"
    image = b"\x89PNG\r\n\x1a\n" + bytes(64)
    return {
        "safetensors and pickle": ("model.safetensors", safetensors_and_pickle(marker), LOAD),
        "safetensors and zip": ("model.safetensors", appended_zip(tensors, main), RUN),
        "safetensors and zip with a comment": ("model.safetensors", appended_zip(tensors, main, b"c"), RUN),
        "safetensors and zip with a long comment": (
            "model.safetensors",
            appended_zip(tensors, main, b"c" * 65_000),
            RUN,
        ),
        "safetensors whose tensor is a zip": ("model.safetensors", weights.safetensors({"a": zipped(main)}), RUN),
        "safetensors whose tensor is a zip and more": (
            "model.safetensors",
            weights.safetensors({"a": zipped(main, comment=b"c" * 99)}),
            RUN,
        ),
        "GGUF and zip": ("model.gguf", appended_zip(weights.gguf({"a": b"A" * 64}), main, b"c"), RUN),
        "a text and zip": ("README.md", appended_zip(text, main, b"cc"), RUN),
        "JSON and zip": ("config.json", appended_zip(b'{"a": 1}', main, b"\n"), RUN),
        "an image and zip": ("a.png", appended_zip(image, main, b"c"), RUN),
        "an array and zip": ("a.npy", appended_zip(npy("'<f4'", bytes(4)), main, b"c"), RUN),
        "gzip and zip": ("a.gz", appended_zip(gzip.compress(text), main, b"c"), RUN),
        "zip and zip": ("a.zip", zipped({"a.txt": text}) + zipped(main, comment=b"c"), RUN),
        "zip with a comment": ("weights.bin", zipped(main, comment=b"c"), RUN),
    }


def npy(descr: str, body: bytes, *, version: int = 1, pad: int = 0, shape: str = "(1,)") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b" " * pad + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + body


def _arrays(marker: str) -> Family:
    body = call(marker)
    headers = {
        "'|O'": npy("'|O'", body),
        '"O"': npy('"O"', body),
        "'object'": npy("'object'", body),
        "'O8'": npy("'O8'", body),
        "u'|O'": npy("u'|O'", body),
        "joined literals": npy("'|' 'O'", body),
        "an escaped letter": npy("'\\x4f'", body),
        "version 2": npy("'|O'", body, version=2),
        "version 3": npy("'|O'", body, version=3),
        "a padded header": npy("'|O'", body, version=2, pad=1_100_000),
        "a header of 60 kB": npy("'|O'", body, pad=60_000),
        "fields": npy("[('a', '<f4'), ('b', '|O')]", body),
        "a field in a field": npy("[('a', [('b', '|O')])]", body),
        "another key order": b"\x93NUMPY\x01\x00"
        + struct.pack("<H", 60)
        + b"{'shape': (1,), 'fortran_order': False, 'descr': '|O'}".ljust(59)
        + b"\n"
        + body,
    }
    made: dict[str, tuple[Any, ...]] = {what: ("a.npy", data, NUMPY, "numpy") for what, data in headers.items()}
    for what in ('"O"', "'object'", "a padded header", "fields"):
        made[f"npz, {what}"] = ("a.npz", zipped({"a.npy": headers[what]}), NUMPY, "numpy")
        made[f"deflated npz, {what}"] = (
            "a.npz",
            zipped({"a.npy": headers[what]}, method=zipfile.ZIP_DEFLATED),
            NUMPY,
            "numpy",
        )
    made["npz, another member name"] = ("a.npz", zipped({"b": headers['"O"']}), NUMPY, "numpy")
    made["a second array"] = (
        "a.npy",
        npy("'<f4'", bytes(4)) + headers['"O"'],
        "import numpy; f = open(FILE, 'rb'); numpy.load(f); numpy.load(f, allow_pickle=True)",
        "numpy",
    )
    return made


def _yaml(marker: str) -> Family:
    call_of = f"[{json.dumps(marker)}, w]"
    texts = {
        "a tag": f"a: !!python/object/apply:io.open {call_of}\n",
        "a tag of a long name": f"!<tag:yaml.org,2002:python/object/apply:io.open> {call_of}\n",
        "a percent-encoded tag": f"a: !!%70ython/object/apply:io.open {call_of}\n",
        "a percent-encoded long tag": f"a: !<tag:yaml.org,2002:%70ython/object/apply:io.open> {call_of}\n",
        "a tag by a directive": f"%TAG !p! tag:yaml.org,2002:py\n---\na: !p!thon/object/apply:io.open {call_of}\n",
        "a tag by another directive": f"%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:io.open {call_of}\n",
        "two marks renamed": f"%TAG !! tag:yaml.org,2002:python/\n---\na: !!object/apply:io.open {call_of}\n",
        "a tag in a flow": f"{{a: [!!python/object/apply:io.open {call_of}]}}\n",
        "a tag without space in a flow": f"[1,!!python/object/apply:io.open {call_of}]\n",
        "a tag of a list item": f"- !!python/object/apply:io.open {call_of}\n",
        "a tag after an anchor": f"a: &x !!python/object/apply:io.open {call_of}\n",
        "a tag of a key": f"? !!python/object/apply:io.open {call_of}\n: 1\n",
        "a tag after a carriage return": f"a: 1\rb: !!python/object/apply:io.open {call_of}\r",
        "a tag after a line separator": f"a: 1\u2028b: !!python/object/apply:io.open {call_of}\n",
        "a tag on the next line": f"a:\n  !!python/object/apply:io.open\n  {call_of}\n",
        "a tag in a second document": f"a: 1\n--- !!python/object/apply:io.open {call_of}\n",
        "a mapping": f"!!python/object/apply:io.open\nargs: {call_of}\n",
        "after a long text": ("# " + "x" * 99_000 + "\n") * 50 + f"c: !!python/object/apply:io.open {call_of}\n",
    }
    load = YAML.replace("yaml.load(", "list(yaml.load_all(").removesuffix(")") + "))"
    made: dict[str, tuple[Any, ...]] = {
        what: ("config.yaml", text.encode(), load, "yaml") for what, text in texts.items()
    }
    made["UTF-16"] = ("config.yml", texts["a tag"].encode("utf-16"), load, "yaml")
    made["a model of MLflow"] = ("MLmodel", texts["a tag"].encode(), load, "yaml")
    made["upper case"] = ("CONFIG.YAML", texts["a tag"].encode(), load, "yaml")
    return made


def _bytecode(marker: str) -> bytes:
    code = compile(_source(marker), "m", "exec")
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


def notebook(marker: str) -> bytes:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": _source(marker).decode(),
    }
    return json.dumps({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [cell]}).encode()


def _programs(marker: str) -> Family:
    source, main = _source(marker), {"__main__.py": _source(marker)}
    start = "import subprocess, sys; subprocess.run([sys.executable, FILE], check=True)"
    return {
        "source": ("modeling.py", source, RUN),
        "bytecode": ("modeling.pyc", _bytecode(marker), RUN),
        "bytecode by another name": ("weights.bin", _bytecode(marker), start),
        "zipapp": ("a.pyz", zipped(main), RUN),
        "zipapp with a first line": ("run", appended_zip(b"#!/usr/bin/env python3\n", main), RUN),
        "zipapp by another name": ("weights.bin", zipped(main), start),
        "zipapp of bytecode": ("weights.bin", zipped({"__main__.pyc": _bytecode(marker)}), start),
        "deflated zipapp": ("weights.bin", zipped(main, method=zipfile.ZIP_DEFLATED), start),
        "zipapp after text": ("README.md", appended_zip(b"words\n", main), start),
        "a script": (
            "run",
            b"#!/bin/sh\n: > " + marker.encode() + b"\n",
            "import os, subprocess; os.chmod(FILE, 0o700); subprocess.run([FILE])",
        ),
        "a path file": (
            "a.pth",
            b"import os; open(" + repr(marker).encode() + b", 'w')\n",
            "import os, site; site.addsitedir(os.path.dirname(FILE))",
        ),
        "a notebook": ("a.ipynb", notebook(marker), NOTEBOOK, "IPython"),
        "a module in a zip": (
            "lib.zip",
            zipped({"evil.py": source}),
            "import sys; sys.path.insert(0, FILE); import evil",
        ),
    }


def tarred(members: Mapping[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def old_tar(members: Mapping[str, bytes]) -> bytes:
    """A tar of the seventh edition, without the mark `ustar`."""
    made = b""
    for name, data in members.items():
        head = bytearray(512)
        head[: len(name)] = name.encode()
        head[100:108], head[124:136] = b"0000644\0", b"%011o\0" % len(data)
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        made += bytes(head) + data + bytes(-len(data) % 512)
    return made + bytes(1024)


def safetensors_and_tar(marker: str) -> bytes:
    """A valid safetensors file whose first block is the head of a tar member, and whose tensors are that member."""
    data = call(marker)
    head = bytearray(b" " * 504)
    text = b'{"__metadata__":{"a":"'
    head[: len(text)] = text
    head[92:116] = b"0000644 0000000 0000000 "
    head[116:128] = b"%011o " % len(data)
    head[128:140] = b"00000000000 "
    head[140:148] = b" " * 8
    head[148:149] = b"0"
    rest = b'"},"t":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % ((len(data) + 1024 + (-len(data) % 512),) * 2)
    head[504 - len(rest) :] = rest
    block = bytearray(struct.pack("<Q", 504) + bytes(head))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o  " % sum(block)
    return bytes(block) + data + bytes(-len(data) % 512) + bytes(1024)


def _tars(marker: str) -> Family:
    data = call(marker)
    opened = "import pickle, tarfile; t = tarfile.open(FILE); pickle.load(t.extractfile(t.next()))"
    return {
        "tar": ("a.tar", tarred({"a.pkl": data}), opened),
        "gzip of tar": ("a.tar.gz", tarred({"a.pkl": data}, "w:gz"), opened),
        "bzip2 of tar": ("a.tar.bz2", tarred({"a.pkl": data}, "w:bz2"), opened),
        "xz of tar": ("a.tar.xz", tarred({"a.pkl": data}, "w:xz"), opened),
        "tar of the seventh edition": ("a.tar", old_tar({"a.pkl": data}), opened),
        "tar with a long name": ("a.tar", tarred({"d/" * 99 + "a.pkl": data}), opened),
        "a model of NeMo": ("a.nemo", tarred({"model_weights.ckpt": data}), opened),
        "safetensors and tar": ("model.safetensors", safetensors_and_tar(marker), opened),
        "pandas, tar": ("a.pkl.tar", tarred({"a.pkl": data}), PANDAS, "pandas"),
    }


def _torch(marker: str) -> Family:
    data = call(marker)
    members = {"archive/data.pkl": data, "archive/version": b"3\n", "archive/data/0": bytes(64)}
    legacy = b"".join(pickle.dumps(item, 2) for item in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return {
        "zip": ("pytorch_model.bin", zipped(members), TORCH, "torch"),
        "zip by another name": ("weights.dat", zipped(members), TORCH, "torch"),
        "legacy": ("pytorch_model.bin", legacy + data, TORCH, "torch"),
        "bare pickle": ("pytorch_model.bin", data, "import torch; torch.load(FILE, weights_only=False)", "torch"),
    }


def _lambda_code(marker: str) -> str:
    function: dict[str, Any] = {}
    exec(f"f = lambda x: [open({marker!r}, 'w'), x][1]", function)
    return base64.b64encode(marshal.dumps(function["f"].__code__)).decode()


def _functional(layer: Mapping[str, Any], *, module: str = "keras") -> dict[str, Any]:
    """The configuration of a model of one input and one layer."""
    first = {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": {"batch_shape": [None, 1], "dtype": "float32", "sparse": False, "name": "i"},
        "registered_name": None,
    }
    return {
        "module": module,
        "class_name": "Sequential",
        "config": {"name": "s", "trainable": True, "layers": [first, layer], "build_input_shape": [None, 1]},
        "registered_name": None,
        "build_config": {"input_shape": [None, 1]},
    }


def _keras_file(config: Mapping[str, Any], escaped: str = "") -> bytes:
    text = json.dumps(config)
    for letter in escaped:
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    metadata = {"keras_version": "3.9.0", "date_saved": "2026-01-01@00:00:00"}
    weights_file = hdf5_with_attributes({})
    return zipped(
        {"metadata.json": json.dumps(metadata).encode(), "config.json": text.encode(), "model.weights.h5": weights_file}
    )


def _layer(marker: str) -> dict[str, Any]:
    function = {
        "class_name": "__lambda__",
        "config": {"code": _lambda_code(marker), "defaults": None, "closure": None},
    }
    return {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"name": "l", "trainable": True, "dtype": "float32", "function": function},
        "registered_name": None,
    }


def _keras(marker: str) -> Family:
    lambda_layer = _layer(marker)
    function = {"class_name": "__lambda__", "config": {"value": _lambda_code(marker)}}
    dense = {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {"name": "d", "units": 1, "activation": function},
        "registered_name": None,
    }
    opens = {"module": "io", "class_name": "open", "config": {}, "registered_name": "open"}
    function = {"module": "os", "class_name": "function", "config": "getcwd", "registered_name": "function"}
    other = {**dense, "config": {"name": "d", "units": 1, "activation": function}}
    h5 = {
        "keras_version": b"2.12.0",
        "backend": b"tensorflow",
        "model_config": json.dumps(_functional(lambda_layer)).encode(),
    }
    escaped = {
        **h5,
        "model_config": h5["model_config"]
        .replace(b"Lambda", b"\\u004cambda")
        .replace(b"__lambda__", b"__\\u006cambda__"),
    }
    load_lambda = (
        "import keras, numpy; m = keras.models.load_model(FILE, safe_mode=False, compile=False); m(numpy.zeros((1, 1)))"
    )
    return {
        "a Lambda layer": ("a.keras", _keras_file(_functional(lambda_layer)), load_lambda, "keras"),
        "a Lambda layer, escaped": ("a.keras", _keras_file(_functional(lambda_layer), "L"), load_lambda, "keras"),
        "a function as an activation": ("a.keras", _keras_file(_functional(dense)), "", "keras"),
        "a class of another module": ("a.keras", _keras_file(_functional(opens)), "", "keras"),
        "a function of another module": ("a.keras", _keras_file(_functional(other)), "", "keras"),
        "HDF5": ("a.h5", hdf5_with_attributes(h5), load_lambda, "keras"),
        "HDF5, escaped": ("a.h5", hdf5_with_attributes(escaped), load_lambda, "keras"),
    }


def _templates(marker: str) -> Family:
    act = f"['os'].mkdir({marker!r})"
    texts = {
        "globals": "{{ lipsum.__globals__" + act + " }}",
        "escaped": "{{ lipsum['\\x5f\\x5fglobals\\x5f\\x5f']" + act + " }}",
        "joined": "{{ lipsum['__glo' ~ 'bals__']" + act + " }}",
        "a filter": "{{ (lipsum|attr('__glo' 'bals__'))" + act + " }}",
        "a variable": "{% set a = '_' ~ '_' ~ 'globals' ~ '_' ~ '_' %}{{ lipsum[a]" + act + " }}",
        "a list": "{{ lipsum[['_', '_globals_', '_']|join]" + act + " }}",
    }
    return {what: ("chat_template.jinja", text.encode(), JINJA, "jinja2") for what, text in texts.items()}
