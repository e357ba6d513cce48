"""Blobs of a store are inspected like files, whatever their size; an empty file needs no blob."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore, inspect_blob
from comity.formats.inspect import inspect
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound
from support import weights

SAMPLES = {
    "model.safetensors": weights.safetensors({"a": b"A" * 300_000, "b": b"B"}),
    "model.gguf": weights.gguf({"a": b"A" * 9}, tokens=("token",) * 40_000),
    "pytorch_model.bin": pickle.dumps(print, 0),
    "config.json": b'{"auto_map": {"AutoModel": "a.B"}}',
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_blob_is_inspected_like_its_file(tmp_path: Path, name: str) -> None:
    store, data = FolderStore(tmp_path), SAMPLES[name]
    store.put(sha256(data), data)
    found = inspect_blob(store, sha256(data), name, len(data))
    assert found == inspect(io.BytesIO(data), name, len(data))
    assert found.format != "unknown"


def test_an_empty_file_is_inspected_without_a_blob(tmp_path: Path) -> None:
    assert inspect_blob(FolderStore(tmp_path), sha256(b""), "empty", 0).format == "empty"


def test_a_missing_blob_is_reported_as_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        inspect_blob(FolderStore(tmp_path), sha256(b"x"), "x", 1)
