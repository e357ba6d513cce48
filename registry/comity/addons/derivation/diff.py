"""Compare two artifacts: files, tensors, configuration, tokenizer, and the evidence for each.

Each side is a folder, or an artifact as nodes describe it; its bytes are used if they are on this machine. The result
keeps apart what was computed from bytes and what is only claimed or signed. Files are untrusted: they are bounded
before they are read, and parsed but never run. Parts that could not be compared are listed in `Differences.unread`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from comity_client.artifact_client import ArtifactClient
from comity_client.events import OnEvent, Progress, ignore_event
from comity_client.evidence.proofs import complete, fetch_object
from comity_client.evidence.resolve import Resolution
from comity_client.pull.destinations import LocalCopy, local_copy_loader
from comity_client.pull.fetch import Layouts, fetch_small_file
from comity_client.seen import SeenLogs
from comity_client.session import Session

from comity.addons.derivation.check import UNREAD, LocatedTensor, WeightFiles, read_errors, read_exactly, read_weights
from comity.bounded_file import read_bounded
from comity.content.blobs import piece_lengths
from comity.content.ingest import hash_pieces
from comity.formats.tensors import tensor_reader
from comity.trust.artifact import FileEntry, Manifest, PieceRecord
from comity.trust.claims import ParsedClaims
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.trust.evidence import Evidence, Row, Verdict
from comity.trust.frozen import frozen
from comity.trust.policy import Policy
from comity.trust.statements import Published
from comity.trust.verify import verify


@frozen
class FileChanges:
    """The changes from the first list of files to the second. `renamed` are pairs (before, after) with equal bytes."""

    added: tuple[FileEntry, ...]
    removed: tuple[FileEntry, ...]
    changed: tuple[tuple[FileEntry, FileEntry], ...]
    renamed: tuple[tuple[FileEntry, FileEntry], ...]
    same: int


def compare_files(before: Manifest, after: Manifest) -> FileChanges:
    """Compare two manifests. A removed file whose bytes appear under a new path is renamed; each file is in one pair at
    most."""
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


@frozen
class ComparedArtifact:
    """One side of a comparison. `folder` holds the bytes, which were hashed just now; None if only manifest and claims
    are known. `verdict` is about the claims, not the files; `published` is the publication that the verdict uses."""

    title: str
    manifest: Manifest
    folder: Path | None
    readings: ParsedClaims
    published: Published | None
    verdict: Verdict

    @property
    def artifact(self) -> Digest:
        return self.manifest.digest


def compared_folder(local: LocalCopy, policy: Policy) -> ComparedArtifact:
    """Return the side for a folder, with the claims of its evidence pack."""
    verdict = verify(replace(local.evidence, manifest=local.manifest.encode(), files=None), policy)
    return ComparedArtifact(
        local.title, local.manifest, local.folder, local.readings, _published(local.readings, verdict), verdict
    )


async def compared_resolution(
    resolution: Resolution, seen_logs: SeenLogs, on_event: OnEvent, load: Callable[[], LocalCopy] | None
) -> ComparedArtifact:
    """Return the side for a resolution: the claims of all nodes, and the bytes if `load` hashes a local copy. Raises
    NotFound, Unavailable."""
    session = resolution.inquiry.session
    data = await fetch_object(session, resolution.artifact)
    evidence, _ = await complete(session, seen_logs, resolution.evidence, Evidence(None, None), on_event)
    judged = evidence.evidence(data, None)
    publisher, commit = resolution.publisher, resolution.commit
    verdict = verify(judged, evidence.policy, reader=session.reader, publisher=publisher, commit=commit)
    folder = (await asyncio.to_thread(load)).folder if load else None
    published = resolution.current.published if resolution.current else None
    return ComparedArtifact(resolution.title, Manifest.parse(data), folder, evidence.claims, published, verdict)


async def read_file(session: Session, side: ComparedArtifact, path: str, limit: int) -> bytes:
    """Return the bytes of one small file, from the folder or from a node, verified against the manifest.

    Raises NotFound if the side has no such file, Unavailable if no node serves it or it is larger than `limit`.
    """
    entry = side.manifest.by_path.get(path)
    if entry is None:
        raise NotFound(f"{side.title} has no {path}")
    if entry.size > limit:
        raise Unavailable(f"{path} was not read", why=f"{entry.size} bytes, at most {limit} are compared")
    if side.folder is not None:
        return read_bounded(side.folder / path, limit)
    return await fetch_small_file(session, entry)


async def pieces_of(session: Session, side: ComparedArtifact, entry: FileEntry) -> list[PieceRecord]:
    """Fetch the piece records of a file from nodes. Raises Unavailable."""
    async for wanted in Layouts.named(session, side.manifest, side.readings, side.published).layouts_of(entry):
        return list(wanted.records)
    raise Unavailable(f"no usable piece index for {entry.path}")


def _published(readings: ParsedClaims, verdict: Verdict) -> Published | None:
    """Return the publication that the verdict uses; if the verdict has no name, the first publication."""
    publications = [publication.published for publication in readings.publications]
    named = [published for published in publications if str(published.name) == verdict.name]
    return next(iter((*named, *publications)), None)


MAX_TEXT: Final = 32 * 1024 * 1024
MAX_KEYS: Final = 2_000
MAX_DEPTH: Final = 12
_VALUE_LENGTH: Final = 80
KEYED_FILES: Final = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
VOCABULARY: Final = "tokenizer.json"


@frozen
class KeyChange:
    """A key, its parts joined by dots, and its shortened values before and after; None if absent."""

    key: str
    before: str | None
    after: str | None


@frozen
class TokenChanges:
    """Counts of tokens that were added or removed, and of those whose number changed."""

    added: int
    removed: int
    renumbered: int
    examples: tuple[str, ...]


def compare_keys(before: bytes, after: bytes) -> tuple[KeyChange, ...] | None:
    """Return the keys of two JSON objects that differ, at most MAX_KEYS; None if either is not a JSON object."""
    one, other = _flat(before), _flat(after)
    if one is None or other is None:
        return None
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return tuple(KeyChange(key, one.get(key), other.get(key)) for key in keys[:MAX_KEYS])


def compare_vocabularies(before: bytes, after: bytes) -> TokenChanges | None:
    """Compare the vocabularies of two `tokenizer.json`; None if one has no readable vocabulary."""
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
    return {key: json.dumps(value, sort_keys=True)[:_VALUE_LENGTH] for key, value in _leaf_items(document, "", 0)}


def _leaf_items(value: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item and depth < MAX_DEPTH:
            yield from _leaf_items(item, f"{prefix}{key}.", depth + 1)
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


@frozen
class TensorChanges:
    """Names of tensors; each entry of `changed` says what differs: type, shape or bytes. `bytes` counts those of the
    second side."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[tuple[str, str], ...]
    same: int
    same_bytes: int
    bytes: int


@frozen
class Shared:
    """Of `bytes` of weights on the second side, `shared` bytes are in pieces or files that the first side has too."""

    shared: int
    bytes: int


def compare_tensors(before: WeightFiles, first: Manifest, after: WeightFiles, second: Manifest) -> TensorChanges:
    """Compare tensors; the files of both sides must match their manifests. Raises Unavailable, Conflict."""
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
    """Compare the numbers and short texts in the metadata of two GGUF models, if each side has one model. Tokenizers
    are not read."""
    models = [[group for group in side.groups if group.gguf] for side in (before, after)]
    if any(len(groups) != 1 for groups in models):
        return ()
    one, other = ({key: str(value) for key, value in groups[0].metadata.items()} for groups in models)
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return tuple(KeyChange(key, one.get(key), other.get(key)) for key in keys)


def compare_pieces(before: Iterable[PieceRecord], after: Iterable[PieceRecord]) -> Shared:
    """Count the bytes of `after` that are in pieces of `before`."""
    known = {record.sha256 for record in before}
    records = list(after)
    return Shared(sum(r.length for r in records if r.sha256 in known), sum(r.length for r in records))


def _named(weights: WeightFiles) -> dict[str, LocatedTensor]:
    """Return tensors by name; if there are several groups, with the name of the group as a prefix."""
    alone = len(weights.groups) == 1
    return {
        name if alone else f"{group.key}: {name}": located
        for group in weights.groups
        for name, located in group.tensors.items()
    }


def _difference(one: LocatedTensor, first: Manifest, other: LocatedTensor, second: Manifest) -> str:
    """Describe how two tensors of the same name differ; empty if they are equal."""
    before, after = one.tensor, other.tensor
    if before.dtype != after.dtype:
        return f"{before.dtype} became {after.dtype}"
    if before.shape != after.shape:
        return f"{list(before.shape)} became {list(after.shape)}"
    files = first.by_path[one.file].sha256, second.by_path[other.file].sha256
    if files[0] == files[1] and before.start == after.start:
        return ""  # the same range of the same file
    return "" if _hash(one) == _hash(other) else "other bytes"


def _hash(located: LocatedTensor) -> bytes:
    digest = hashlib.sha256()
    tensor = located.tensor
    with read_errors(located.path), located.path.open("rb") as file:
        for start in range(0, tensor.length, BLOCK):
            digest.update(read_exactly(file, tensor.start + start, min(BLOCK, tensor.length - start)))
    return digest.digest()


VOUCHING: Final = ("signatures", "key policy", "transparency", "cosigners", "replicas")
"""Rows of the verdict about the evidence for an artifact."""
GGUF: Final = "metadata of the GGUF file"


@frozen
class Differences:
    """The differences of two artifacts.

    Args:
        tensors: tensor changes if the bytes of both sides are here, else shared pieces; None if neither has weights.
        keys: changed keys of configuration files, by path; None for a file that is not a JSON object. Changes of GGUF
            metadata are under GGUF.
        tokens: changes of `tokenizer.json`; None if it did not change or has no readable vocabulary.
        vouching: evidence rows that differ: (before, after).
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
    """Compare two sides. Failures to read a part are listed in `unread`, not raised."""
    unread: list[str] = []
    files = compare_files(before.manifest, after.manifest)
    changed = [old.path for old, _ in files.changed]
    keys: dict[str, tuple[KeyChange, ...] | None] = {}
    tensors = await _tensors(session, before, after, keys, unread)
    tokens = None
    for path in changed:
        name = PurePosixPath(path).name
        if name not in (*KEYED_FILES, VOCABULARY):
            continue
        try:
            texts = [await read_file(session, side, path, MAX_TEXT) for side in (before, after)]
        except ComityError as error:
            unread.append(f"{path}: {error}")
            continue
        if name in KEYED_FILES:
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
        entry
        for entry in manifest.files
        if tensor_reader(entry.path) or PurePosixPath(entry.path).suffix.lower() in UNREAD
    ]


async def _pieces(session: Session, side: ComparedArtifact, entry: FileEntry, unread: list[str]) -> list[PieceRecord]:
    try:
        if side.folder is not None:
            return await asyncio.to_thread(_local_pieces, side, entry)
        return await pieces_of(session, side, entry)
    except ComityError as error:
        unread.append(f"pieces of {entry.path} in {side.title}: {error}")
        return []


def _local_pieces(side: ComparedArtifact, entry: FileEntry) -> list[PieceRecord]:
    """Return the piece records of a local file, with the cuts that publishing would use."""
    assert side.folder is not None
    path = side.folder / entry.path
    with read_errors(path), path.open("rb") as file:
        _, lengths = piece_lengths(entry.path, file, entry.size)
        file.seek(0)
        return hash_pieces(file, lengths, lambda _: None).records


def compare(
    client: ArtifactClient,
    before: Path | str,
    after: Path | str,
    *,
    policy: Policy | None = None,
    hub_cache: Path | None = None,
    on_event: OnEvent = ignore_event,
) -> Differences:
    """Compare two artifacts, each a folder or a reference.

    Raises as `User.resolve` and `destinations.hash_local_copy` do. The result lists the parts that could not be
    compared.
    """
    user = client.user

    def load(what: Path | str) -> LocalCopy:
        return client.local_copy(what, hub_cache=hub_cache, on_hashed=lambda count: on_event(Progress("", count)))

    async def side(session: Session, what: Path | str, judged_by: Policy) -> ComparedArtifact:
        if isinstance(what, Path) or Path(what).exists():
            return compared_folder(await asyncio.to_thread(load, what), judged_by)
        resolution = await user.resolve(session, what, judged_by)
        here = local_copy_loader(f"sha256:{resolution.artifact}", hub_cache, load)
        return await compared_resolution(resolution, user.seen_logs(), on_event, here)

    async def work(session: Session) -> Differences:
        judged_by = policy or user.policy(session.pins)
        sides = [await side(session, what, judged_by) for what in (before, after)]
        return await compare_sides(session, *sides)

    return user.run(work, on_event)
