"""What differs between two artifacts: files, tensors, configuration, tokenizer, licence, and who stands behind each.

`sides` gathers what is known of each, from a folder or from the nodes; the others compare, each one thing. What was
looked at in the bytes and what is only said by manifests or signed by somebody is kept apart.


Files of two manifests, by path and by hash.

One side of a comparison: an artifact, what is said of it, and its bytes where they can be had.

Configuration and tokenizer: JSON files of two sides, key by key, and the tokens of their vocabularies.

These are strangers' files: bounded before they are read, parsed and never run; what does not parse is said to differ as
a whole.


Tensors of two folders: by name, type, shape and the hash of their bytes. Or, where bytes are not here, how much of
the second's weights has the same pieces as the first's.

Two sides compared, part by part. What could not be looked at is named, never passed over."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from comity.content.blobs import piece_lengths
from comity.content.ingest import hash_pieces
from comity.derivation.check import UNREAD, LocatedTensor, WeightFiles, read_exactly, read_weights, readable
from comity.formats.tensors import reader_of
from comity.trust.artifact import FileEntry, Manifest, PieceRecord
from comity.trust.claims import Readings
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound, Unavailable, Untrusted
from comity.trust.evidence import Evidence, Row, Verdict
from comity.trust.policy import Policy
from comity.trust.statements import Published
from comity.trust.verify import verify
from comity.verifier import read_bounded
from comity.wire.client import NodeClient
from comity_client.events import OnEvent
from comity_client.evidence.gather import collect_proofs, fetch_object
from comity_client.evidence.resolve import Resolution
from comity_client.pull.destinations import LocalCopy
from comity_client.pull.fetch import Layouts, named_indexes
from comity_client.seen import SeenLogs
from comity_client.session import Session


@dataclass(frozen=True, slots=True)
class FileChanges:
    """What has to happen to the first list of files to get the second. `renamed` are (before, after) of equal bytes."""

    added: tuple[FileEntry, ...]
    removed: tuple[FileEntry, ...]
    changed: tuple[tuple[FileEntry, FileEntry], ...]
    renamed: tuple[tuple[FileEntry, FileEntry], ...]
    same: int


def compare_files(before: Manifest, after: Manifest) -> FileChanges:
    """A file that is gone and whose bytes are there under a new path was renamed; each is taken for one only."""
    common = before.by_path.keys() & after.by_path.keys()
    gone = [entry for entry in before.files if entry.path not in common]
    new = [entry for entry in after.files if entry.path not in common]
    by_bytes: dict[Digest, list[FileEntry]] = defaultdict(list)
    for entry in reversed(gone):
        by_bytes[entry.sha256].append(entry)
    renamed = tuple((by_bytes[entry.sha256].pop(), entry) for entry in new if by_bytes[entry.sha256])
    moved = {entry.path for pair in renamed for entry in pair}
    pairs = [(before.by_path[path], after.by_path[path]) for path in sorted(common)]
    return FileChanges(
        added=tuple(entry for entry in new if entry.path not in moved),
        removed=tuple(entry for entry in gone if entry.path not in moved),
        changed=tuple(pair for pair in pairs if pair[0] != pair[1]),
        renamed=renamed,
        same=sum(one == other for one, other in pairs),
    )


@dataclass(frozen=True, slots=True)
class ComparedArtifact:
    """`folder` holds the bytes, hashed just now; None where only manifest and claims are known. `verdict` judges the
    claims, not the files; `published` is what the publication says that it goes by."""

    title: str
    manifest: Manifest
    folder: Path | None
    readings: Readings
    published: Published | None
    verdict: Verdict

    @property
    def artifact(self) -> Digest:
        return self.manifest.digest


def side_of_folder(here: LocalCopy, policy: Policy) -> ComparedArtifact:
    """A folder, with what its pack says."""
    verdict = verify(replace(here.evidence, manifest=here.manifest.encode(), files=None), policy)
    return ComparedArtifact(
        here.title, here.manifest, here.folder, here.readings, _published(here.readings, verdict), verdict
    )


async def side_of_resolution(
    session: Session,
    memory: SeenLogs,
    resolution: Resolution,
    policy: Policy,
    on_event: OnEvent,
    hold: Callable[[], LocalCopy] | None,
) -> ComparedArtifact:
    """What all nodes say, and the bytes where `hold` hashes them on this machine. Raises NotFound, Unavailable."""
    data = await fetch_object(session, resolution.artifact)
    gathered = resolution.gathered
    collected = await collect_proofs(session, memory, gathered.readings, policy, (), on_event)
    evidence = Evidence(data, None, gathered.lines, tuple(kept.proof for kept in collected.proofs))
    verdict = verify(evidence, policy)
    folder = (await asyncio.to_thread(hold)).folder if hold else None
    published = resolution.publication.published if resolution.publication else None
    return ComparedArtifact(resolution.title, Manifest.parse(data), folder, gathered.readings, published, verdict)


async def read_file(session: Session, side: ComparedArtifact, path: str, limit: int) -> bytes:
    """The bytes of one small file, from the folder or from a node, checked against the manifest.

    Raises NotFound where the side has no such file, Unavailable where nobody gives it or it is larger than `limit`.
    """
    entry = side.manifest.by_path.get(path)
    if entry is None:
        raise NotFound(f"{side.title} has no {path}")
    if entry.size > limit:
        raise Unavailable(f"{path} was not read", why=f"{entry.size} bytes, at most {limit} are compared")
    if side.folder is not None:
        return read_bounded(side.folder / path, limit)
    return await session.first(lambda node: _blob(node, entry), f"nobody gives {path} of {side.title}")


async def pieces_of(session: Session, side: ComparedArtifact, entry: FileEntry) -> list[PieceRecord]:
    """The records of a file, from the nodes. Raises Unavailable."""
    first = side.published.pieces.digest if side.published else None
    async for wanted in Layouts(session, side.manifest, named_indexes(side.readings, first)).ways(entry):
        return list(wanted.records)
    raise Unavailable(f"{entry.path} cannot be had in pieces")


async def _blob(node: NodeClient, entry: FileEntry) -> bytes:
    parts = [part async for part in node.read(entry.sha256, 0, entry.size)]
    data = b"".join(parts)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise Untrusted(f"{entry.path} has other bytes", why="its hash is not the manifest's")
    return data


def _published(readings: Readings, verdict: Verdict) -> Published | None:
    """The publication that the verdict goes by; without a name in it, the first."""
    publications = [publication.published for publication in readings.publications]
    named = [published for published in publications if str(published.name) == verdict.name]
    return next(iter((*named, *publications)), None)


MAX_TEXT: Final = 32 * 1024 * 1024
MAX_KEYS: Final = 2_000
MAX_DEPTH: Final = 12
_SHOWN: Final = 80
KEYED: Final = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
VOCABULARY: Final = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key, dots between its parts, and the values before and after in short; None where it is absent."""

    key: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class TokenChanges:
    """Tokens that one vocabulary has and the other has not, and those whose number is another."""

    added: int
    removed: int
    renumbered: int
    examples: tuple[str, ...]


def compare_keys(before: bytes, after: bytes) -> tuple[KeyChange, ...] | None:
    """The keys of two JSON objects that differ, at most MAX_KEYS; None where one of them is no such object."""
    one, other = _flat(before), _flat(after)
    if one is None or other is None:
        return None
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return tuple(KeyChange(key, one.get(key), other.get(key)) for key in keys[:MAX_KEYS])


def compare_vocabularies(before: bytes, after: bytes) -> TokenChanges | None:
    """Of two `tokenizer.json`; None where one has no vocabulary that can be read."""
    one, other = _tokens(before), _tokens(after)
    if one is None or other is None:
        return None
    added, removed = other.keys() - one.keys(), one.keys() - other.keys()
    renumbered = [token for token in one.keys() & other.keys() if one[token] != other[token]]
    examples = tuple(sorted(added)[:3] + sorted(removed)[:3])
    return TokenChanges(len(added), len(removed), len(renumbered), examples)


def _flat(data: bytes) -> dict[str, str] | None:
    document = _parsed(data)
    if not isinstance(document, dict):
        return None
    return {key: json.dumps(value, sort_keys=True)[:_SHOWN] for key, value in _leaves(document, "", 0)}


def _leaves(value: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item and depth < MAX_DEPTH:
            yield from _leaves(item, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", item


def _tokens(data: bytes) -> dict[str, Any] | None:
    match _parsed(data):
        case {"model": {"vocab": dict(vocabulary)}}:
            return vocabulary
        case {"model": {"vocab": [*pairs]}} if all(isinstance(pair, list) and pair for pair in pairs):
            return {str(pair[0]): number for number, pair in enumerate(pairs)}  # Unigram: [token, score]
    return None


def _parsed(data: bytes) -> Any:
    if len(data) > MAX_TEXT:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


BLOCK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TensorChanges:
    """Names of tensors; `changed` says in which of type, shape and bytes. `bytes` counts those of the second side."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[tuple[str, str], ...]
    same: int
    same_bytes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Shared:
    """Of `bytes` of weights on the second side, so many are in pieces or files that the first side has too."""

    shared: int
    bytes: int


def compare_tensors(before: WeightFiles, first: Manifest, after: WeightFiles, second: Manifest) -> TensorChanges:
    """Both sides' files have to be as their manifests say. Raises Unavailable, Conflict."""
    one, other = _named(before), _named(after)
    changed, same, same_bytes = [], 0, 0
    for name in sorted(one.keys() & other.keys()):
        what = _difference(one[name], first, other[name], second)
        if what:
            changed.append((name, what))
        else:
            same, same_bytes = same + 1, same_bytes + other[name].tensor.length
    return TensorChanges(
        added=tuple(sorted(other.keys() - one.keys())),
        removed=tuple(sorted(one.keys() - other.keys())),
        changed=tuple(changed),
        same=same,
        same_bytes=same_bytes,
        bytes=sum(located.tensor.length for located in other.values()),
    )


def compare_facts(before: WeightFiles, after: WeightFiles) -> tuple[KeyChange, ...]:
    """What two GGUF models say of themselves in numbers and short texts, where each side has one; their tokenizers are
    not read."""
    models = [[group for group in side.groups if group.gguf] for side in (before, after)]
    if any(len(groups) != 1 for groups in models):
        return ()
    one, other = ({key: str(value) for key, value in groups[0].facts.items()} for groups in models)
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return tuple(KeyChange(key, one.get(key), other.get(key)) for key in keys)


def compare_pieces(before: Iterable[PieceRecord], after: Iterable[PieceRecord]) -> Shared:
    """How many bytes of `after` are in pieces that `before` has."""
    known = {record.sha256 for record in before}
    records = list(after)
    return Shared(sum(r.length for r in records if r.sha256 in known), sum(r.length for r in records))


def _named(weights: WeightFiles) -> dict[str, LocatedTensor]:
    """Tensors by name; where several groups are there, with the group's name before it."""
    alone = len(weights.groups) == 1
    return {
        name if alone else f"{group.key}: {name}": located
        for group in weights.groups
        for name, located in group.tensors.items()
    }


def _difference(one: LocatedTensor, first: Manifest, other: LocatedTensor, second: Manifest) -> str:
    """In what two tensors of one name differ; empty where in nothing."""
    before, after = one.tensor, other.tensor
    if before.dtype != after.dtype:
        return f"{before.dtype} became {after.dtype}"
    if before.shape != after.shape:
        return f"{list(before.shape)} became {list(after.shape)}"
    files = first.by_path[one.file].sha256, second.by_path[other.file].sha256
    if files[0] == files[1] and before.start == after.start:
        return ""  # one place of one file
    return "" if _hash(one) == _hash(other) else "other bytes"


def _hash(located: LocatedTensor) -> bytes:
    digest = hashlib.sha256()
    tensor = located.tensor
    with readable(located.path), located.path.open("rb") as file:
        for start in range(0, tensor.length, BLOCK):
            digest.update(read_exactly(file, tensor.start + start, min(BLOCK, tensor.length - start)))
    return digest.digest()


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

    before: ComparedArtifact
    after: ComparedArtifact
    files: FileChanges
    tensors: TensorChanges | Shared | None
    keys: Mapping[str, tuple[KeyChange, ...] | None]
    tokens: TokenChanges | None
    vouching: tuple[tuple[Row, Row], ...]
    unread: tuple[str, ...]


async def compare_sides(session: Session, before: ComparedArtifact, after: ComparedArtifact) -> Differences:
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
    before: ComparedArtifact,
    after: ComparedArtifact,
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


async def _pieces(session: Session, side: ComparedArtifact, entry: FileEntry, unread: list[str]) -> list[PieceRecord]:
    try:
        if side.folder is not None:
            return await asyncio.to_thread(_cut, side, entry)
        return await pieces_of(session, side, entry)
    except ComityError as error:
        unread.append(f"pieces of {entry.path} in {side.title}: {error}")
        return []


def _cut(side: ComparedArtifact, entry: FileEntry) -> list[PieceRecord]:
    """The records of a file that is here, cut as whoever publishes it would cut it."""
    assert side.folder is not None
    path = side.folder / entry.path
    with readable(path), path.open("rb") as file:
        _, lengths = piece_lengths(entry.path, file, entry.size)
        file.seek(0)
        return hash_pieces(file, lengths, lambda _: None)[1]
