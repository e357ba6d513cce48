"""Compares the weights of a child with those of its claimed parent.

(1) The tensors of both folders are grouped by what was saved together, in any number of files, and paired by name.
    From safetensors to GGUF the `TensorNameMap` of the gguf package for the file's architecture is used. A wrong pair
    is not equal and proves nothing. Unpaired tensors are matched by their bytes.
(2) Both sides of each pair are read in chunks. The child's bytes are made from the parent's by each step that their
    types allow (`steps`), until one step gives all of them.
(3) A tensor that no step gives is reported with the first element that differs.

Memory is bounded by the number of workers times a few chunks, for any tensor size. Files must not change meanwhile; the
signer of the result hashes them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from comity.addons.derivation.steps import ConversionStep, load_casts, steps_between, tool_versions, tools_installed
from comity.formats.tensors import MetadataValue, Tensor, TensorTable, tensor_reader
from comity.trust.errors import Conflict, Malformed, Unavailable
from comity.trust.frozen import frozen


@frozen
class Difference:
    """The first element of the child's tensor that a step does not give.

    `element` counts from 0 in the tensor's own order; `offset` counts bytes from the start of the child's file.
    `found` and `expected` are the bytes of that element (or of its quantised block), in hex. `elements` is the number
    of elements (or blocks) that differ; None if not counted.
    """

    element: int
    offset: int
    found: str
    expected: str
    elements: int | None = None


@frozen
class ComparedTensor:
    """One tensor of the child.

    Args:
        step: the step that makes these bytes from the parent's: `copy`, a cast or a quantisation; empty if none does.
        why: why there is no step, if not a `difference`: no counterpart, another shape, an unsupported pair of types.
    """

    file: str
    name: str
    parent: str
    length: int
    step: str
    difference: Difference | None = None
    why: str = ""

    @property
    def equal(self) -> bool:
        return bool(self.step)


@frozen
class Comparison:
    """The result for all tensors of the child, and the tensors of the parent that the child lacks.

    Args:
        left_out: names of the parent's tensors that the child does not have.
        dropped: those of `left_out` that converters omit by rule (see `is_dropped`).
        unread: weight files of the child in formats that are not compared.
        files: number of weight files of the child that were read; `parent_files` those of the parent.
        tools: versions of the software, by name.
    """

    tensors: tuple[ComparedTensor, ...]
    left_out: tuple[str, ...]
    dropped: tuple[str, ...]
    unread: tuple[str, ...]
    files: int
    parent_files: int
    tools: Mapping[str, str]

    @property
    def equal(self) -> tuple[ComparedTensor, ...]:
        return tuple(tensor for tensor in self.tensors if tensor.equal)

    @property
    def exact(self) -> bool:
        """Whether every weight byte of the child follows from the parent, and the child lacks only tensors that
        converters drop by rule."""
        whole = not self.unread and set(self.left_out) <= set(self.dropped)
        return bool(self.tensors) and whole and all(tensor.equal for tensor in self.tensors)

    @property
    def steps(self) -> Mapping[str, int]:
        """Number of tensors per step, largest first."""
        return dict(Counter(tensor.step for tensor in self.equal).most_common())

    @property
    def bytes(self) -> int:
        return sum(tensor.length for tensor in self.tensors)

    @property
    def equal_bytes(self) -> int:
        return sum(tensor.length for tensor in self.equal)


CHUNK: Final = 256 * 1024
"""Elements per chunk, a multiple of every block size: up to 2 MiB per side, and a few times that for temporaries."""
_HEADER: Final = 2
"""Bytes of the scale at the start of a Q8_0 or Q4_0 block."""


def first_difference(
    step: ConversionStep,
    child_file: BinaryIO,
    child: Tensor,
    parent_file: BinaryIO,
    parent: Tensor,
    *,
    count: bool = True,
) -> Difference | None:
    """The first element of `child` that `step` does not make from `parent`; None if all are equal.

    Args:
        count: continue after the first difference and count all, if numpy is installed.

    Raises Conflict (CHANGED) if a file ends too early, OSError if a file does, Unavailable (NO-GGUF).
    """
    first: Difference | None = None
    differing = 0
    for begin, source, found in _chunks(step, child_file, child, parent_file, parent):
        if not step.numeric and source == found:
            continue
        if not step.numeric and not tools_installed():
            return _difference(child, begin, source, found, _first_unequal(source, found, child.block[1]))
        expected, differ = _apply_step(step, step.permute_rows(source), found, child)
        if not differ.any():
            continue
        if first is None:
            first = _difference(child, begin, expected, found, int(differ.argmax()))
            if not count:
                return first
        differing += int(differ.sum())
    if first is None:
        return None
    return Difference(first.element, first.offset, first.found, first.expected, differing)


def read_exactly(file: BinaryIO, start: int, length: int) -> bytes:
    """Read `length` bytes from offset `start`. Raises Conflict (CHANGED) if the file has fewer."""
    file.seek(start)
    data = file.read(length)
    if len(data) != length:
        raise Conflict("a weight file changed while it was read", why="it is shorter than it was", code="CHANGED")
    return data


def _chunks(
    step: ConversionStep, child_file: BinaryIO, child: Tensor, parent_file: BinaryIO, parent: Tensor
) -> Iterator[tuple[int, bytes, bytes]]:
    """(first element, the parent's bytes, the child's), in whole blocks and, if rows are permuted, whole heads."""
    head = step.rows * step.columns
    most = max(CHUNK // head, 1) * head if head else CHUNK
    for begin in range(0, child.elements, most):
        elements = min(most, child.elements - begin)
        yield begin, _part(parent_file, parent, begin, elements), _part(child_file, child, begin, elements)


def _part(file: BinaryIO, tensor: Tensor, begin: int, elements: int) -> bytes:
    unit, width = tensor.block
    return read_exactly(file, tensor.start + begin // unit * width, elements // unit * width)


def _apply_step(step: ConversionStep, source: bytes, found: bytes, child: Tensor) -> tuple[bytes, Any]:
    """The result of `step` for `source`, and which of its elements or blocks differ from `found`."""
    casts = load_casts()
    import numpy as np

    if step.kind == "copy" or child.block[0] > 1:
        expected = source if step.kind == "copy" else bytes(step.convert(source))
        blocks = (np.frombuffer(data, np.uint8).reshape(-1, child.block[1]) for data in (expected, found))
        return expected, np.not_equal(*blocks).any(axis=1)
    words = step.convert(source)
    return words.tobytes(), casts.unequal(words, casts.bits(found, child.dtype), child.dtype)


def _first_unequal(one: bytes, other: bytes, width: int) -> int:
    return next(at for at, (left, right) in enumerate(zip(one, other, strict=True)) if left != right) // width


def _difference(child: Tensor, begin: int, expected: bytes, found: bytes, block: int) -> Difference:
    unit, width = child.block
    part = slice(block * width, (block + 1) * width)
    element = begin + block * unit + _element_in_block(child.dtype, expected[part], found[part])
    offset = child.start + (begin // unit + block) * width
    return Difference(element, offset, found[part].hex(), expected[part].hex())


def _element_in_block(dtype: str, expected: bytes, found: bytes) -> int:
    """The first differing element of a block of known layout; 0 if the scale differs or the layout is unknown."""
    at = _first_unequal(expected, found, 1) - _HEADER
    if at < 0 or dtype not in ("Q8_0", "Q4_0"):
        return 0
    high_only = dtype == "Q4_0" and (expected[at + _HEADER] ^ found[at + _HEADER]) & 0x0F == 0
    return at + 16 if high_only else at


MAX_TENSORS: Final = 1_000_000
UNREAD: Final = frozenset(
    (".bin", ".ckpt", ".h5", ".jit", ".keras", ".mar", ".msgpack", ".npy", ".npz", ".onnx", ".ot", ".pb")
) | {".pickle", ".pkl", ".pt", ".pth", ".tflite"}
"""Suffixes of weight files whose tensors are not read."""
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}\Z")


@frozen
class LocatedTensor:
    """A tensor and its file: the local path, and the path in the artifact."""

    path: Path
    file: str
    tensor: Tensor


@frozen
class WeightGroup:
    """Tensors that were saved together. `gguf`: whether the format is GGUF; `metadata`: that of the first file."""

    key: str
    gguf: bool
    tensors: Mapping[str, LocatedTensor]
    metadata: Mapping[str, MetadataValue]


@frozen
class WeightFiles:
    """The weights of a folder: groups, the files that hold them, and weight files that are not read."""

    groups: tuple[WeightGroup, ...]
    files: tuple[str, ...]
    unread: tuple[str, ...]


def read_weights(folder: Path, paths: Iterable[str]) -> WeightFiles:
    """Read the headers of the weight files among `paths` in `folder`.

    Raises Malformed (TENSORS) for an unreadable header or more than MAX_TENSORS tensors; Unavailable if a file cannot
    be opened.
    """
    names = sorted(paths)
    unread = tuple(path for path in names if PurePosixPath(path).suffix.lower() in UNREAD)
    tables: dict[str, TensorTable] = {}
    total = 0
    for path in names:
        if (read := tensor_reader(path)) is None:
            continue
        with read_errors(folder / path), (folder / path).open("rb") as file:
            try:
                tables[path] = read(file, (folder / path).stat().st_size)
            except Malformed as error:
                raise Malformed(f"the tensors of {path} cannot be read", why=error.why, code="TENSORS") from error
        total += len(tables[path].tensors)
        if total > MAX_TENSORS:
            raise Malformed("too many tensors", why=f"more than {MAX_TENSORS}", code="TENSORS")
    return WeightFiles(tuple(_groups(folder, tables)), tuple(tables), unread)


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Translate an OSError inside the block to Unavailable with the file's name."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot read {path}", why=error.strerror or str(error)) from error


def _groups(folder: Path, tables: Mapping[str, TensorTable]) -> Iterator[WeightGroup]:
    """One for each folder and format, or for each set of shards where names in a folder are given twice."""
    together: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for path in tables:
        together[PurePosixPath(path).parent.as_posix(), path.lower().endswith(".gguf")].append(path)
    for (parent, gguf), paths in together.items():
        names = [tensor.name for path in paths for tensor in tables[path].tensors]
        if len(set(names)) == len(names) and not gguf:
            yield _group(parent, gguf, folder, {path: tables[path] for path in paths})
            continue
        sets: dict[str, dict[str, TensorTable]] = defaultdict(dict)
        for path in paths:
            sets[_SHARD.sub("", PurePosixPath(path).with_suffix("").as_posix())][path] = tables[path]
        for key, shards in sets.items():
            yield _group(key, gguf, folder, shards)


def _group(key: str, gguf: bool, folder: Path, tables: Mapping[str, TensorTable]) -> WeightGroup:
    tensors: dict[str, LocatedTensor] = {}
    for path, table in tables.items():
        for tensor in table.tensors:
            if tensor.name in tensors:
                why = f"{tensor.name[:80]!r} is in {tensors[tensor.name].file} and in {path}"
                raise Malformed("the tensors cannot be read", why=why, code="TENSORS")
            tensors[tensor.name] = LocatedTensor(folder / path, path, tensor)
    return WeightGroup(key, gguf, tensors, next(iter(tables.values())).metadata)


MAX_LAYERS: Final = 1_000
_PREFIXES: Final = ("", "model.", "bert.", "transformer.")
_PERMUTED: Final = re.compile(r"blk\.\d+\.attn_(q|k)\.(weight|bias)\Z")
_BUFFERS: Final = re.compile(r"(\A|\.)(position_ids|rotary_emb\.inv_freq)\Z")
_LEFT_OUT_OF_GGUF: Final = {"bert": re.compile(r"(\A|\.)pooler\.dense\.(weight|bias)\Z")}


@frozen
class TensorPair:
    """A tensor of the child and its counterpart in the parent, if any. `heads`: the number of heads by which a
    converter permutes the parent's rows into llama.cpp's order of rotary positions; 0 if it does not."""

    child: LocatedTensor
    parent: LocatedTensor | None
    heads: int = 0


def pair_tensors(child: WeightGroup, parent: WeightGroup) -> Iterator[TensorPair]:
    """One pair for each tensor of the child. Raises Malformed (TENSORS) if the architecture has no name map,
    Unavailable (code NO-GGUF) if the gguf package is needed and not installed."""
    if child.gguf and not parent.gguf:
        renamed = _name_map(child)
        by_new_name = {renamed(name): located for name, located in parent.tensors.items()}
    else:
        by_new_name = dict(parent.tensors)
    for name, located in child.tensors.items():
        yield TensorPair(located, by_new_name.get(name), _heads(child, name) if child.gguf and not parent.gguf else 0)


def is_dropped(name: str, child: WeightGroup) -> bool:
    """Whether converters omit the parent's tensor `name` by rule: buffers that are computed and not learned, and, in
    GGUF files of some architectures, layers that llama.cpp does not use."""
    unused = _LEFT_OUT_OF_GGUF.get(str(child.metadata.get("general.architecture"))) if child.gguf else None
    return bool(_BUFFERS.search(name) or (unused and unused.search(name)))


def _name_map(child: WeightGroup) -> Callable[[str], str]:
    """A function from safetensors names to GGUF names; names that the map does not know are unchanged."""
    named = str(child.metadata.get("general.architecture", ""))
    layers = child.metadata.get(f"{named}.block_count", 0)
    if not isinstance(layers, int) or not 0 <= layers <= MAX_LAYERS:
        raise Malformed("the tensors cannot be paired", why=f"{layers} layers", code="TENSORS")
    known: Callable[[str], str | None] | None = load_casts().name_map(named, layers)
    if known is None:
        why = f"unknown architecture {named[:40]!r}"
        raise Malformed("the tensors cannot be paired", why=why, code="TENSORS")

    def renamed(name: str) -> str:
        for prefix in _PREFIXES:
            if name.startswith(prefix) and (found := known(name.removeprefix(prefix))) is not None:
                return found
        return name

    return renamed


def _heads(child: WeightGroup, name: str) -> int:
    if not (found := _PERMUTED.match(name)):
        return 0
    key = "attention.head_count" if found[1] == "q" else "attention.head_count_kv"
    architecture = child.metadata.get("general.architecture")
    heads = child.metadata.get(f"{architecture}.{key}", child.metadata.get(f"{architecture}.attention.head_count", 0))
    return heads if isinstance(heads, int) and heads > 0 else 0


BLOCK: Final = 1024 * 1024
OnRead = Callable[[int], None]


def compare(
    child: WeightFiles, parent: WeightFiles, *, workers: int = 2, on_read: OnRead = lambda _: None
) -> Comparison:
    """Compare all tensors of `child` with those of `parent`.

    Args:
        on_read: called with the bytes of the child compared since the last call, from several threads.

    Raises Unavailable if a file cannot be read, and (code NO-GGUF) if the extra is needed and not installed; Malformed
    (TENSORS) for a GGUF file of an architecture without a name map.
    """
    compared: list[ComparedTensor] = []
    left_out: dict[str, bool] = {}
    matched = [(group, _find_parent_group(group, child, parent)) for group in child.groups]
    for group, parent_group in matched:
        if parent_group is None:
            why = "the parent has no weights in the same folder"
            compared += [_unpaired(located, why) for located in group.tensors.values()]
            continue
        pairs = list(pair_tensors(group, parent_group))
        with ThreadPoolExecutor(workers, thread_name_prefix="derivation") as pool:
            found = list(pool.map(lambda pair: _judge_pair(pair, on_read), pairs))
        unmatched = set(parent_group.tensors) - {pair.parent.tensor.name for pair in pairs if pair.parent is not None}
        if group.gguf == parent_group.gguf:
            found = _match_by_bytes(found, group, parent_group, unmatched)
        compared += found
        for name in unmatched:  # by rule only if all groups of the child that lack it may lack it
            left_out[name] = left_out.get(name, True) and is_dropped(name, group)
    used = {id(parent_group) for _, parent_group in matched}
    left_out |= {name: False for group in parent.groups if id(group) not in used for name in group.tensors}
    return Comparison(
        tensors=tuple(compared),
        left_out=tuple(sorted(left_out)),
        dropped=tuple(sorted(name for name, by_rule in left_out.items() if by_rule)),
        unread=child.unread,
        files=len(child.files),
        parent_files=len(parent.files),
        tools=tool_versions(),
    )


def _find_parent_group(group: WeightGroup, child: WeightFiles, parent: WeightFiles) -> WeightGroup | None:
    """The parent's group in the same folder, or its only group."""
    if len(parent.groups) == 1:
        return parent.groups[0]
    same = [other for other in parent.groups if other.key == group.key]
    alone = [other for other in parent.groups if other.key == "."] if len(child.groups) == 1 else []
    return next(iter((*same, *alone)), None)


def _judge_pair(pair: TensorPair, on_read: OnRead) -> ComparedTensor:
    """Steps (2) and (3)."""
    child, parent = pair.child, pair.parent
    on_read(child.tensor.length)
    if parent is None:
        return _unpaired(child, "the parent has no such tensor")
    if not _same_shape(child, parent):
        why = f"shape {list(child.tensor.shape)}, the parent's is {list(parent.tensor.shape)}"
        return _unpaired(child, why, parent)
    steps = steps_between(parent.tensor, child.tensor, pair.heads)
    if not steps:
        why = f"re-deriving {child.tensor.dtype} from {parent.tensor.dtype} is not supported"
        return _unpaired(child, why, parent)
    with (
        read_errors(child.path),
        child.path.open("rb") as child_file,
        read_errors(parent.path),
        parent.path.open("rb") as parent_file,
    ):
        differences: list[Difference] = []
        for step in steps:
            difference = first_difference(
                step, child_file, child.tensor, parent_file, parent.tensor, count=not differences
            )
            if difference is None:
                return ComparedTensor(child.file, child.tensor.name, parent.tensor.name, child.tensor.length, step.name)
            differences.append(difference)
    return ComparedTensor(child.file, child.tensor.name, parent.tensor.name, child.tensor.length, "", differences[0])


def _same_shape(child: LocatedTensor, parent: LocatedTensor) -> bool:
    """Whether the shapes are equal; between formats, ignoring dimensions of one, which GGUF files omit."""
    if tensor_reader(child.file) is tensor_reader(parent.file):
        return child.tensor.shape == parent.tensor.shape
    one, other = ([size for size in side.tensor.shape if size != 1] for side in (child, parent))
    return one == other


def _unpaired(child: LocatedTensor, why: str, parent: LocatedTensor | None = None) -> ComparedTensor:
    name = parent.tensor.name if parent else ""
    return ComparedTensor(child.file, child.tensor.name, name, child.tensor.length, "", None, why)


def _match_by_bytes(
    found: Sequence[ComparedTensor], group: WeightGroup, parent_group: WeightGroup, unmatched: set[str]
) -> list[ComparedTensor]:
    """Pair tensors without a counterpart with one of any name and equal bytes, and remove that from `unmatched`."""
    wanted = {
        (tensor.dtype, tensor.shape)
        for compared in found
        if not compared.parent
        for tensor in (group.tensors[compared.name].tensor,)
    }
    by_bytes: dict[tuple[str, tuple[int, ...], bytes], list[str]] = defaultdict(list)
    for name in sorted(unmatched):
        tensor = parent_group.tensors[name].tensor
        if (tensor.dtype, tensor.shape) in wanted:
            by_bytes[tensor.dtype, tensor.shape, _hash(parent_group.tensors[name])].append(name)
    return [_match_tensor_by_bytes(compared, group, by_bytes, unmatched) for compared in found]


def _match_tensor_by_bytes(
    compared: ComparedTensor,
    group: WeightGroup,
    by_bytes: dict[tuple[str, tuple[int, ...], bytes], list[str]],
    unmatched: set[str],
) -> ComparedTensor:
    located = group.tensors[compared.name]
    kind = located.tensor.dtype, located.tensor.shape
    if compared.parent or not any(key[:2] == kind for key in by_bytes):
        return compared
    if not (names := by_bytes.get((*kind, _hash(located)))):
        return compared
    name = names.pop()
    unmatched.discard(name)
    return ComparedTensor(compared.file, compared.name, name, compared.length, "copy")


def _hash(located: LocatedTensor) -> bytes:
    digest = hashlib.sha256()
    with read_errors(located.path), located.path.open("rb") as file:
        for start in range(0, located.tensor.length, BLOCK):
            digest.update(read_exactly(file, located.tensor.start + start, min(BLOCK, located.tensor.length - start)))
    return digest.digest()
