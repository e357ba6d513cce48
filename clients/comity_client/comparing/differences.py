"""Two sides compared, part by part. What could not be looked at is named, never passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from comity.content.ingest import hash_pieces
from comity.content.layout import piece_lengths
from comity.derivation.weights import UNREAD, read_weights, readable
from comity.formats.tensors import reader_of
from comity.trust.errors import ComityError
from comity.trust.manifest import FileEntry, Manifest
from comity.trust.pieces import PieceRecord
from comity.trust.verdict import Row

from comity_client.comparing.files import FileChanges, compare_files
from comity_client.comparing.sides import Side, pieces_of, read_file
from comity_client.comparing.tensors import Shared, TensorChanges, compare_facts, compare_pieces, compare_tensors
from comity_client.comparing.texts import (
    KEYED,
    MAX_TEXT,
    VOCABULARY,
    KeyChange,
    TokenChanges,
    compare_keys,
    compare_vocabularies,
)
from comity_client.nodes.session import Session

VOUCHING: Final = ("signatures", "key policy", "transparency", "cosigners", "replicas")
"""Rows of the verdict that say who stands behind an artifact."""
GGUF: Final = "metadata of the GGUF file"


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs.

    Args:
        tensors: of tensors where both sides' bytes are here, else of pieces; None where neither has weights.
        keys: by path, the changed keys of configuration files; None for one that is no JSON object. Those of a GGUF
            file's metadata are under GGUF.
        tokens: of `tokenizer.json`; None where it did not change, or has no vocabulary that is read.
        vouching: rows about who stands behind each side, those that differ: (before, after).
        unread: what could not be compared, and why.
    """

    before: Side
    after: Side
    files: FileChanges
    tensors: TensorChanges | Shared | None
    keys: Mapping[str, tuple[KeyChange, ...] | None]
    tokens: TokenChanges | None
    vouching: tuple[tuple[Row, Row], ...]
    unread: tuple[str, ...]


async def compare_sides(session: Session, before: Side, after: Side) -> Differences:
    """Raises nothing for what cannot be had: it is in `unread`."""
    unread: list[str] = []
    files = compare_files(before.manifest, after.manifest)
    changed = [old.path for old, _ in files.changed]
    keys: dict[str, tuple[KeyChange, ...] | None] = {}
    tensors = await _tensors(session, before, after, keys, unread)
    tokens = None
    for path in changed:
        name = PurePosixPath(path).name
        if name not in (*KEYED, VOCABULARY):
            continue
        try:
            texts = [await read_file(session, side, path, MAX_TEXT) for side in (before, after)]
        except ComityError as error:
            unread.append(f"{path}: {error}")
            continue
        if name in KEYED:
            keys[path] = compare_keys(*texts)
        else:
            tokens = await asyncio.to_thread(compare_vocabularies, *texts)
    rows = ((before.verdict.row(name), after.verdict.row(name)) for name in VOUCHING)
    vouching = tuple(pair for pair in rows if (pair[0].state, pair[0].summary) != (pair[1].state, pair[1].summary))
    return Differences(before, after, files, tensors, keys, tokens, vouching, tuple(unread))


async def _tensors(
    session: Session,
    before: Side,
    after: Side,
    keys: dict[str, tuple[KeyChange, ...] | None],
    unread: list[str],
) -> TensorChanges | Shared | None:
    one, other = _weights(before.manifest), _weights(after.manifest)
    if not one and not other:
        return None
    if before.folder is not None and after.folder is not None:
        try:
            sides = [read_weights(side.folder, side.manifest.by_path) for side in (before, after) if side.folder]
            if facts := compare_facts(*sides):
                keys[GGUF] = facts
            return await asyncio.to_thread(compare_tensors, sides[0], before.manifest, sides[1], after.manifest)
        except ComityError as error:
            unread.append(f"tensors: {error}")
    known = {entry.sha256 for entry in one}
    same = sum(entry.size for entry in other if entry.sha256 in known)
    unlike = [entry for entry in other if entry.sha256 not in known]
    found = [
        [record for entry in entries for record in await _pieces(session, side, entry, unread)]
        for side, entries in ((before, one if unlike else []), (after, unlike))
    ]
    shared = compare_pieces(*found)
    return Shared(same + shared.shared, sum(entry.size for entry in other))


def _weights(manifest: Manifest) -> list[FileEntry]:
    return [
        entry for entry in manifest.files if reader_of(entry.path) or PurePosixPath(entry.path).suffix.lower() in UNREAD
    ]


async def _pieces(session: Session, side: Side, entry: FileEntry, unread: list[str]) -> list[PieceRecord]:
    try:
        if side.folder is not None:
            return await asyncio.to_thread(_cut, side, entry)
        return await pieces_of(session, side, entry)
    except ComityError as error:
        unread.append(f"pieces of {entry.path} in {side.title}: {error}")
        return []


def _cut(side: Side, entry: FileEntry) -> list[PieceRecord]:
    """The records of a file that is here, cut as whoever publishes it would cut it."""
    assert side.folder is not None
    path = side.folder / entry.path
    with readable(path), path.open("rb") as file:
        _, lengths = piece_lengths(entry.path, file, entry.size)
        file.seek(0)
        return hash_pieces(file, lengths, lambda _: None)[1]
