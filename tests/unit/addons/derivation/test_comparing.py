"""Files, settings, vocabularies and pieces of two artifacts compared: pure functions over strangers' bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from comity.addons.derivation.diff import (
    MAX_KEYS,
    Shared,
    compare_files,
    compare_keys,
    compare_pieces,
    compare_vocabularies,
)
from comity.trust.artifact import FileEntry, Manifest, PieceRecord
from comity.trust.encoding import sha256
from hypothesis import given
from hypothesis import strategies as st


def manifest(files: dict[str, str]) -> Manifest:
    return Manifest.of(FileEntry(path, len(body), sha256(body.encode())) for path, body in files.items())


def test_files_are_same_added_removed_changed_or_renamed() -> None:
    before = manifest({"a": "same", "b": "old", "c": "gone", "d": "moved", "e": "moved"})
    after = manifest({"a": "same", "b": "new", "f": "moved", "g": "fresh"})
    found = compare_files(before, after)
    assert found.same == 1
    assert [entry.path for entry in found.added] == ["g"]
    assert [entry.path for entry in found.removed] == ["c", "e"]
    assert [old.path for old, _ in found.changed] == ["b"]
    assert [(old.path, new.path) for old, new in found.renamed] == [("d", "f")]


@given(*[st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["x", "yy", "zzz"]))] * 2)
def test_the_changes_turn_one_list_of_files_into_the_other(one: dict[str, str], other: dict[str, str]) -> None:
    before, after = manifest(one), manifest(other)
    found = compare_files(before, after)
    files = set(before.files) - set(found.removed) - {old for old, _ in (*found.changed, *found.renamed)}
    assert len(files) == found.same
    files |= set(found.added) | {new for _, new in (*found.changed, *found.renamed)}
    assert files == set(after.files)
    assert all(old.sha256 == new.sha256 and old.path != new.path for old, new in found.renamed)


def keys(before: Any, after: Any) -> dict[str, tuple[str | None, str | None]]:
    found = compare_keys(json.dumps(before).encode(), json.dumps(after).encode())
    assert found is not None
    return {change.key: (change.before, change.after) for change in found}


def test_settings_are_compared_key_by_key_down_to_the_leaves() -> None:
    before = {"torch_dtype": "float32", "rope": {"type": "linear", "factor": 2.5}, "layers": 6, "same": [1, {}]}
    after = {"torch_dtype": "bfloat16", "rope": {"type": "linear"}, "layers": 6, "same": [1, {}], "auto_map": {}}
    assert keys(before, after) == {
        "torch_dtype": ('"float32"', '"bfloat16"'),
        "rope.factor": ("2.5", None),
        "auto_map": (None, "{}"),
    }


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"a":', b"null"])
def test_a_document_that_is_no_json_object_is_not_compared(data: bytes) -> None:
    assert compare_keys(data, b"{}") is None
    assert compare_keys(b"{}", data) is None
    assert compare_vocabularies(data, data) is None


def test_hostile_settings_are_bounded() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = {"a": deep}
    assert len(keys(deep, {})) == 1
    many = keys({f"k{n}": "x" * 1000 for n in range(MAX_KEYS + 50)}, {})
    assert len(many) == MAX_KEYS
    assert max(len(before or "") for before, _ in many.values()) == 80


def tokenizer(vocabulary: Any) -> bytes:
    return json.dumps({"model": {"vocab": vocabulary}}).encode()


def test_vocabularies_are_compared_token_by_token() -> None:
    found = compare_vocabularies(tokenizer({"a": 0, "b": 1, "c": 2}), tokenizer({"a": 0, "c": 1, "d": 2, "e": 3}))
    assert found is not None
    assert (found.added, found.removed, found.renumbered) == (2, 1, 1)
    assert found.examples == ("d", "e", "b")
    unigram = compare_vocabularies(tokenizer([["a", -1.5], ["b", -2]]), tokenizer([["a", -1.5]]))
    assert unigram is not None
    assert (unigram.added, unigram.removed) == (0, 1)


def test_pieces_that_both_have_are_counted_by_their_bytes() -> None:
    one, two, three = (PieceRecord(length, bytes([length]) * 32) for length in (10, 20, 30))
    assert compare_pieces([one, two], [two, three, two]) == Shared(40, 70)
