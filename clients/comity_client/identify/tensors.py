"""Which tensors of two sets of weight files have the same bytes, by the hashes of their pieces.

Both are cut in the layout that begins a piece at each tensor (protocol, section 4), so that a large tensor has the same
pieces whatever file, name or shard it lies in. Small neighbours share a piece: they are found only beside the same
neighbours. Nothing is said of tensors that are not proven to be equal or different: these are `undecided`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from comity.content.blobs import piece_lengths
from comity.content.durable import disk_errors
from comity.content.ingest import hash_pieces
from comity.formats.tensors import Tensor, read_gguf, read_safetensors
from comity.rules.pieces import encode_records, fixed_pieces
from comity.transfer.pieces import WantedFile
from comity.trust.artifact import parse_records
from comity.trust.encoding import MAX_INTEGER, Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen

from comity_client.identify.disk import DiskFile
from comity_client.identify.judging import KnownArtifact
from comity_client.identify.piece_cache import PieceCache

TensorBytes: TypeAlias = "tuple[tuple[bytes, ...], int, int]"


@frozen
class WeightFile:
    """A weight file, its pieces, and its tensors: on this machine, or at `path` of an artifact."""

    path: str
    pieces: WantedFile
    tensors: tuple[Tensor, ...]


@frozen
class ComparedTensors:
    """The tensors of some weight files, compared with those of an artifact.

    Attributes:
        tensors: how many there are, without empty ones; `bytes`: of all of them.
        same: how many have the bytes, type and shape of one of the artifact; `same_bytes`: of all of these.
        renamed: those of the same ones that have another name there, each "NAME = NAME THERE".
        retyped: tensors with the bytes of one of the artifact, and another type or shape.
        changed: those that are proven to have other bytes than the tensor of that name in the artifact.
        undecided: those with a tensor of that name in the artifact, of which the hashes of pieces do not tell whether
            its bytes are the same.
        not_found: those without a tensor of that name in the artifact, whose bytes were not found there.
        cut: those whose bytes are not all there, because the file ends too early.
        missing: tensors of `of` that were not found here, neither by name nor by their bytes.
        of: files of the artifact that have the same bytes.
    """

    tensors: int
    bytes: int
    same: int
    same_bytes: int
    renamed: tuple[str, ...]
    retyped: tuple[str, ...]
    changed: tuple[str, ...]
    undecided: tuple[str, ...]
    not_found: tuple[str, ...]
    cut: tuple[str, ...]
    missing: tuple[str, ...]
    of: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether there are the bytes of any tensor of the artifact."""
        return bool(self.same or self.retyped)

    @property
    def all_same(self) -> bool:
        """Whether these are the same tensors as those of the artifact's files, under whatever names."""
        return self.same == self.tensors and not self.missing


@frozen
class SameTensors:
    """Files of one folder, no one of which is published, that have tensors of an artifact."""

    folder: Path
    files: tuple[DiskFile, ...]
    artifact: Digest
    compared: ComparedTensors


@frozen
class SameTensorsFound:
    """What was found, and what the policy says of the artifacts, none of whose files are meant."""

    same: tuple[SameTensors, ...] = ()
    artifacts: Mapping[Digest, KnownArtifact] = field(default_factory=dict)


def read_weight_file(file: DiskFile, cache: PieceCache | None, on_hashed: Callable[[int], None]) -> WeightFile | None:
    """Cut a file at its tensors, and hash the pieces; None if it is no readable weight file, or changed since it was
    hashed. Whatever its name is: a store may name it by its digest. Blocking."""
    try:
        with disk_errors(f"{file.path} was not read"), file.path.open("rb") as opened:
            found = _cut(opened, os.fstat(opened.fileno()).st_size)
            if found is None:
                return None
            tensors, lengths = found
            opened.seek(0)
            pieces = _kept(file, cache, lengths) or _hash(file, cache, opened, lengths, on_hashed)
    except (ComityError, EOFError):
        return None
    return WeightFile(str(file.path), pieces, tensors) if pieces is not None else None


def _kept(file: DiskFile, cache: PieceCache | None, lengths: Sequence[int]) -> WantedFile | None:
    """The pieces of a file as an earlier run has hashed them; None if that is not known."""
    data = cache.get(file.sha256) if cache is not None and file.sha256 is not None else None
    if data is None or file.sha256 is None:
        return None
    try:
        records = parse_records(data, size=file.size)
    except Malformed:
        return None  # damaged: they are hashed again
    same = [record.length for record in records] == list(lengths)
    return WantedFile(file.sha256, file.size, records) if same else None


def _hash(
    file: DiskFile,
    cache: PieceCache | None,
    opened: BufferedReader,
    lengths: Sequence[int],
    on_hashed: Callable[[int], None],
) -> WantedFile | None:
    """Hash the pieces of a file; None if it has another hash than before. Raises EOFError."""
    hashed = hash_pieces(opened, lengths, on_hashed)
    if hashed.digest != file.sha256:
        return None
    if cache is not None:
        cache.keep(hashed.digest, encode_records(hashed.records))
    return WantedFile(hashed.digest, sum(lengths), hashed.records)


def _cut(file: BinaryIO, size: int) -> tuple[tuple[Tensor, ...], list[int]] | None:
    """The tensors of a weight file, and the lengths of its pieces: where it ends too early, or late, as if it had the
    length that its header says, as far as it goes. Raises Malformed."""
    start = file.read(9)
    if start[:4] == b"GGUF":
        read, name = read_gguf, "weights.gguf"
    elif start[8:] == b"{":
        read, name = read_safetensors, "weights.safetensors"
    else:
        return None
    tensors = tuple(each for each in read(file, MAX_INTEGER).tensors if each.length)
    if not tensors:
        return None
    end = tensors[-1].start + tensors[-1].length
    if read is read_gguf:  # whose last tensor may be padded
        end = max(end, size)
    _, lengths = piece_lengths(name, file, end)
    return tensors, list(_first(lengths, size)) + fixed_pieces(max(0, size - end))


def _first(lengths: Iterable[int], size: int) -> Iterator[int]:
    """The lengths of the pieces of the first `size` bytes."""
    for length in lengths:
        if size > 0:
            yield min(length, size)
        size -= length


@frozen
class _Located:
    """A tensor and its file."""

    file: WeightFile
    tensor: Tensor

    @property
    def content(self) -> TensorBytes | None:
        """What two tensors have in common only if their bytes are the same: the hashes of the pieces that they are in,
        where they begin there, and how long they are. None if the file ends before the tensor does."""
        pieces, start, length = self.file.pieces, self.tensor.start, self.tensor.length
        if start + length > pieces.size:
            return None
        first, last = pieces.at(start), pieces.at(start + length - 1)
        hashes = tuple(record.sha256 for record in pieces.records[first : last + 1])
        return hashes, start - pieces.offsets[first], length

    def own_pieces(self) -> dict[tuple[int, int], bytes]:
        """The hashes of the pieces that have bytes of this tensor alone, by where they begin in it and their length."""
        pieces, start, end = self.file.pieces, self.tensor.start, self.tensor.start + self.tensor.length
        spans = ((number, *pieces.span(number)) for number in range(pieces.at(start), pieces.at(end - 1) + 1))
        return {
            (offset - start, length): pieces.records[number].sha256
            for number, offset, length in spans
            if start <= offset and offset + length <= end
        }

    def is_typed_as(self, other: _Located) -> bool:
        return (self.tensor.dtype, self.tensor.shape) == (other.tensor.dtype, other.tensor.shape)

    def differs_from(self, other: _Located) -> bool:
        """Whether it is proven that their bytes are not the same."""
        if self.tensor.length != other.tensor.length:
            return True
        own, others = self.own_pieces(), other.own_pieces()
        return any(own[each] != others[each] for each in own.keys() & others.keys())


_Kind: TypeAlias = Literal["same", "retyped", "changed", "undecided", "not found", "cut"]


def compare(here: Sequence[WeightFile], published: Sequence[WeightFile]) -> ComparedTensors:
    """Compare weight files that belong together with those of an artifact."""
    ours, theirs = list(_located(here)), list(_located(published))
    by_content: dict[TensorBytes | None, list[_Located]] = defaultdict(list)
    by_name: dict[str, list[_Located]] = defaultdict(list)
    for each in theirs:
        by_content[each.content].append(each)
        by_name[each.tensor.name].append(each)
    found: dict[_Kind, list[tuple[_Located, _Located | None]]] = defaultdict(list)
    for each in ours:
        kind, twin = _kind(each, by_content.get(each.content, ()), by_name.get(each.tensor.name, ()))
        found[kind].append((each, twin))
    names: dict[_Kind, tuple[str, ...]] = defaultdict(tuple)
    names |= {kind: tuple(each.tensor.name for each, _ in some) for kind, some in found.items()}
    twins = [(each.tensor, twin.tensor) for each, twin in found["same"] if twin is not None]
    of = {twin.file.path for _, twin in found["same"] + found["retyped"] if twin is not None}
    told, contents = {*names["changed"], *names["undecided"], *names["cut"]}, {each.content for each in ours}
    rest = (each for each in theirs if each.file.path in of and each.content not in contents)
    return ComparedTensors(
        tensors=len(ours),
        bytes=sum(each.tensor.length for each in ours),
        same=len(twins),
        same_bytes=sum(one.length for one, _ in twins),
        renamed=tuple(f"{one.name} = {other.name}" for one, other in twins if one.name != other.name),
        retyped=names["retyped"],
        changed=names["changed"],
        undecided=names["undecided"],
        not_found=names["not found"],
        cut=names["cut"],
        missing=tuple(each.tensor.name for each in rest if each.tensor.name not in told),
        of=tuple(sorted(of)),
    )


def _located(files: Sequence[WeightFile]) -> Iterator[_Located]:
    yield from (_Located(file, tensor) for file in files for tensor in file.tensors if tensor.length)


def _kind(one: _Located, twins: Sequence[_Located], named: Sequence[_Located]) -> tuple[_Kind, _Located | None]:
    """What is proven of a tensor, and the one of the artifact that has its bytes."""
    if one.content is None:
        return "cut", None
    if twins:
        best = min(twins, key=lambda each: (not one.is_typed_as(each), each.tensor.name != one.tensor.name))
        return "same" if one.is_typed_as(best) else "retyped", best
    if not named:
        return "not found", None
    return "changed" if all(one.differs_from(each) for each in named) else "undecided", None
