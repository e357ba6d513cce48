"""What a comparison found.

The first place where a way (`steps`) does not lead from the parent's bytes to the child's. Chunk by chunk.

The weight files of a folder, as groups of tensors: what was saved together, in however many files.

Which tensor of the parent should have become which of the child.

Within one format by name. From safetensors to GGUF by the `TensorNameMap` of the gguf package for the architecture
that the GGUF file names. For the names it is enough that they are right: a pair that does not belong together is not
equal, and nothing is proven by it.


Compare the weights of a child with those of the parent that it is said to be made from.

    (1) tensors are paired by name (`names`); what has no partner is looked for by its bytes
    (2) of each pair both sides are read in chunks, and the child's bytes are made of the parent's in each way that
        their types allow, until one gives all of them
    (3) a tensor that no way gives is reported with the first element that differs

The memory is bounded by workers times a few chunks, whatever the size of a tensor. Files are expected not to change
meanwhile; whoever signs the result hashes them.


Was this made from that? Weights of two folders, compared tensor by tensor, by making the child's bytes again.

`weights` finds the tensors, `names` says which of the parent's belongs to which of the child's, `check` reads both with
bounded memory and makes of the parent what the child should be: the same bytes (standard library alone), a cast
(`casts`, numpy) or a quantisation (`blocks`, the gguf package). What comes out says how much was proven and where the
first difference is. Nothing is loaded, unpickled or run.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from comity.derivation.steps import ConversionStep, load_casts, load_ggml, steps_between, tool_versions, tools_installed
from comity.formats.tensors import Fact, Tensor, TensorTable, reader_of
from comity.trust.errors import Conflict, Malformed, Unavailable


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where the child's tensor is not what the parent gives.

    `element` counts from 0 in the tensor's own order; `offset` counts bytes from the beginning of the child's file.
    `here` and `expected` are the bytes of that element (of a quantised tensor: of its block), in hex. `elements` is
    how many elements (or blocks) differ in all; None where that was not counted.
    """

    element: int
    offset: int
    here: str
    expected: str
    elements: int | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """One tensor of the child.

    Args:
        step: by what the parent's bytes become these: `copy`, a cast or a quantisation; empty where nothing does.
        why: why there is no step, where that is not a `difference`: no counterpart, another shape, an unknown pair.
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


@dataclass(frozen=True, slots=True)
class Comparison:
    """All tensors of the child, and what of the parent is in none of them.

    Args:
        left_out: tensors of the parent that the child has not, by name.
        dropped: those of them that converters leave out by rule (see `names.is_dropped`).
        unread: weight files of the child in formats that are not compared.
        files: weight files of the child that were read; `parent_files` those of the parent.
        tools: versions of what computed it, by name.
    """

    tensors: tuple[Compared, ...]
    left_out: tuple[str, ...]
    dropped: tuple[str, ...]
    unread: tuple[str, ...]
    files: int
    parent_files: int
    tools: Mapping[str, str]

    @property
    def equal(self) -> tuple[Compared, ...]:
        return tuple(tensor for tensor in self.tensors if tensor.equal)

    @property
    def exact(self) -> bool:
        """Every byte of weights in the child follows from the parent, and nothing of the parent is missing but what
        converters drop by rule."""
        whole = not self.unread and set(self.left_out) <= set(self.dropped)
        return bool(self.tensors) and whole and all(tensor.equal for tensor in self.tensors)

    @property
    def steps(self) -> Mapping[str, int]:
        """Tensors by the step that gives them, most first."""
        return dict(Counter(tensor.step for tensor in self.equal).most_common())

    @property
    def bytes(self) -> int:
        return sum(tensor.length for tensor in self.tensors)

    @property
    def equal_bytes(self) -> int:
        return sum(tensor.length for tensor in self.equal)


CHUNK: Final = 256 * 1024
"""Elements at a time, a multiple of every block: up to 2 MiB a side, and a few times that in between."""
_HEADER: Final = 2
"""Bytes of the scale before the elements of a Q8_0 or Q4_0 block."""


def first_difference(
    step: ConversionStep, here: BinaryIO, child: Tensor, there: BinaryIO, parent: Tensor, *, count: bool = True
) -> Difference | None:
    """Where `child` in the file `here` is not what `step` makes of `parent` in the file `there`; None where it is.

    Args:
        count: read on behind the first difference and count all, where numpy is at hand.

    Raises Conflict (CHANGED) for a file that ends too early, OSError where a file does, Unavailable (NO-GGUF).
    """
    first: Difference | None = None
    differing = 0
    for begin, source, found in _chunks(step, here, child, there, parent):
        if not step.numeric and source == found:
            continue
        if not step.numeric and not tools_installed():
            return _difference(child, begin, source, found, _first_unequal(source, found, child.block[1]))
        expected, differ = _apply_step(step, step.turn(source), found, child)
        if not differ.any():
            continue
        if first is None:
            first = _difference(child, begin, expected, found, int(differ.argmax()))
            if not count:
                return first
        differing += int(differ.sum())
    if first is None:
        return None
    return Difference(first.element, first.offset, first.here, first.expected, differing)


def read_exactly(file: BinaryIO, start: int, length: int) -> bytes:
    """Raises Conflict (CHANGED) where the file has less."""
    file.seek(start)
    data = file.read(length)
    if len(data) != length:
        raise Conflict("a weight file changed while it was read", why="it is shorter than it was", code="CHANGED")
    return data


def _chunks(
    step: ConversionStep, here: BinaryIO, child: Tensor, there: BinaryIO, parent: Tensor
) -> Iterator[tuple[int, bytes, bytes]]:
    """(first element, the parent's bytes, the child's), in whole blocks and, where rows are turned, in whole heads."""
    head = step.rows * step.columns
    most = max(CHUNK // head, 1) * head if head else CHUNK
    for begin in range(0, child.elements, most):
        elements = min(most, child.elements - begin)
        yield begin, _part(there, parent, begin, elements), _part(here, child, begin, elements)


def _part(file: BinaryIO, tensor: Tensor, begin: int, elements: int) -> bytes:
    unit, width = tensor.block
    return read_exactly(file, tensor.start + begin // unit * width, elements // unit * width)


def _apply_step(step: ConversionStep, source: bytes, found: bytes, child: Tensor) -> tuple[bytes, Any]:
    """What `step` makes of `source`, and which of its blocks are not what was found."""
    casts = load_casts()
    import numpy as np

    if step.kind == "copy" or child.block[0] > 1:
        expected = source if step.kind == "copy" else bytes(step.make(source))
        blocks = (np.frombuffer(data, np.uint8).reshape(-1, child.block[1]) for data in (expected, found))
        return expected, np.not_equal(*blocks).any(axis=1)
    words = step.make(source)
    return words.tobytes(), casts.unequal(words, casts.bits(found, child.dtype), child.dtype)


def _first_unequal(one: bytes, other: bytes, width: int) -> int:
    return next(at for at, (left, right) in enumerate(zip(one, other, strict=True)) if left != right) // width


def _difference(child: Tensor, begin: int, expected: bytes, found: bytes, block: int) -> Difference:
    unit, width = child.block
    part = slice(block * width, (block + 1) * width)
    element = begin + block * unit + _inside(child.dtype, expected[part], found[part])
    offset = child.start + (begin // unit + block) * width
    return Difference(element, offset, found[part].hex(), expected[part].hex())


def _inside(dtype: str, expected: bytes, found: bytes) -> int:
    """Which element of a block differs first, where its layout is known here; 0 where the scale does, or is not."""
    at = _first_unequal(expected, found, 1) - _HEADER
    if at < 0 or dtype not in ("Q8_0", "Q4_0"):
        return 0
    high_only = dtype == "Q4_0" and (expected[at + _HEADER] ^ found[at + _HEADER]) & 0x0F == 0
    return at + 16 if high_only else at


MAX_TENSORS: Final = 1_000_000
UNREAD: Final = frozenset(
    (".bin", ".ckpt", ".h5", ".jit", ".keras", ".mar", ".msgpack", ".npy", ".npz", ".onnx", ".ot", ".pb")
) | {".pickle", ".pkl", ".pt", ".pth", ".tflite"}
"""Endings of weight files whose tensors are not read here."""
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}\Z")


@dataclass(frozen=True, slots=True)
class LocatedTensor:
    """A tensor and the file that holds it: where that lies, and its path in the artifact."""

    path: Path
    file: str
    tensor: Tensor


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """Tensors that were saved together. `gguf` says in which format, `facts` what the first file says of itself."""

    key: str
    gguf: bool
    tensors: Mapping[str, LocatedTensor]
    facts: Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """What a folder holds: groups, the files that they are in, and weight files that are not read here."""

    groups: tuple[WeightGroup, ...]
    files: tuple[str, ...]
    unread: tuple[str, ...]


def read_weights(folder: Path, paths: Iterable[str]) -> WeightFiles:
    """The weights among the files of `folder` called `paths`.

    Raises Malformed (TENSORS) for a header that cannot be read, and for more than MAX_TENSORS tensors; Unavailable for
    a file that cannot be opened.
    """
    names = sorted(paths)
    unread = tuple(path for path in names if PurePosixPath(path).suffix.lower() in UNREAD)
    tables: dict[str, TensorTable] = {}
    total = 0
    for path in names:
        if (read := reader_of(path)) is None:
            continue
        with readable(folder / path), (folder / path).open("rb") as file:
            try:
                tables[path] = read(file, (folder / path).stat().st_size)
            except Malformed as error:
                raise Malformed(f"the tensors of {path} cannot be read", why=error.why, code="TENSORS") from error
        total += len(tables[path].tensors)
        if total > MAX_TENSORS:
            raise Malformed("too many tensors", why=f"more than {MAX_TENSORS}", code="TENSORS")
    return WeightFiles(tuple(_groups(folder, tables)), tuple(tables), unread)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What cannot be read is Unavailable, by its name."""
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
    return WeightGroup(key, gguf, tensors, next(iter(tables.values())).facts)


MAX_LAYERS: Final = 1_000
_PREFIXES: Final = ("", "model.", "bert.", "transformer.")
_TURNED: Final = re.compile(r"blk\.\d+\.attn_(q|k)\.(weight|bias)\Z")
_BUFFERS: Final = re.compile(r"(\A|\.)(position_ids|rotary_emb\.inv_freq)\Z")
_LEFT_OUT_OF_GGUF: Final = {"bert": re.compile(r"(\A|\.)pooler\.dense\.(weight|bias)\Z")}


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of the child and the parent's, if there is one. `heads`: into how many heads a converter turns the rows
    of the parent's, so that rotary positions lie as llama.cpp wants them; 0 where it does not."""

    child: LocatedTensor
    parent: LocatedTensor | None
    heads: int = 0


def pair_up(child: WeightGroup, parent: WeightGroup) -> Iterator[Pair]:
    """One pair for each tensor of the child. Raises Malformed (TENSORS) for an architecture that has no name map,
    Unavailable (code NO-GGUF) where the gguf package is needed and not installed."""
    if child.gguf and not parent.gguf:
        renamed = _name_map(child)
        by_new_name = {renamed(name): located for name, located in parent.tensors.items()}
    else:
        by_new_name = dict(parent.tensors)
    for name, located in child.tensors.items():
        yield Pair(located, by_new_name.get(name), _heads(child, name) if child.gguf and not parent.gguf else 0)


def is_dropped(name: str, child: WeightGroup) -> bool:
    """Whether converters leave the parent's tensor `name` out by rule: buffers that are computed and not learned, and,
    in GGUF files of some architectures, layers that llama.cpp has no use for."""
    unused = _LEFT_OUT_OF_GGUF.get(str(child.facts.get("general.architecture"))) if child.gguf else None
    return bool(_BUFFERS.search(name) or (unused and unused.search(name)))


def _name_map(child: WeightGroup) -> Callable[[str], str]:
    """From a name in safetensors to the one in GGUF; names that the map does not know stay as they are."""
    named = str(child.facts.get("general.architecture", ""))
    layers = child.facts.get(f"{named}.block_count", 0)
    if not isinstance(layers, int) or not 0 <= layers <= MAX_LAYERS:
        raise Malformed("the tensors cannot be paired", why=f"{layers} layers", code="TENSORS")
    known: Callable[[str], str | None] | None = load_ggml().name_map(named, layers)
    if known is None:
        why = f"no names are known for architecture {named[:40]!r}"
        raise Malformed("the tensors cannot be paired", why=why, code="TENSORS")

    def renamed(name: str) -> str:
        for prefix in _PREFIXES:
            if name.startswith(prefix) and (found := known(name.removeprefix(prefix))) is not None:
                return found
        return name

    return renamed


def _heads(child: WeightGroup, name: str) -> int:
    if not (found := _TURNED.match(name)):
        return 0
    key = "attention.head_count" if found[1] == "q" else "attention.head_count_kv"
    architecture = child.facts.get("general.architecture")
    heads = child.facts.get(f"{architecture}.{key}", child.facts.get(f"{architecture}.attention.head_count", 0))
    return heads if isinstance(heads, int) and heads > 0 else 0


BLOCK: Final = 1024 * 1024
OnRead = Callable[[int], None]


def compare(
    child: WeightFiles, parent: WeightFiles, *, workers: int = 2, on_read: OnRead = lambda _: None
) -> Comparison:
    """What of `child` follows from `parent`.

    Args:
        on_read: told the bytes of the child that were dealt with since the last call; from several threads.

    Raises Unavailable for a file that cannot be read, and (code NO-GGUF) where the extra is needed and not installed;
    Malformed (TENSORS) for a GGUF file of an architecture without a name map.
    """
    compared: list[Compared] = []
    left_out: dict[str, bool] = {}
    matched = [(group, _partner(group, child, parent)) for group in child.groups]
    for group, partner in matched:
        if partner is None:
            why = "the parent has no weights that were saved in the same place"
            compared += [_unpaired(located, why) for located in group.tensors.values()]
            continue
        pairs = list(pair_up(group, partner))
        with ThreadPoolExecutor(workers, thread_name_prefix="derivation") as pool:
            found = list(pool.map(lambda pair: _judge_pair(pair, on_read), pairs))
        spare = set(partner.tensors) - {pair.parent.tensor.name for pair in pairs if pair.parent is not None}
        if group.gguf == partner.gguf:
            found = _renamed(found, group, partner, spare)
        compared += found
        for name in spare:  # by rule only where every model of the child that lacks it may lack it
            left_out[name] = left_out.get(name, True) and is_dropped(name, group)
    used = {id(partner) for _, partner in matched}
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


def _partner(group: WeightGroup, child: WeightFiles, parent: WeightFiles) -> WeightGroup | None:
    """What the parent saved in the same place; or all it has, where there is only one thing."""
    if len(parent.groups) == 1:
        return parent.groups[0]
    same = [other for other in parent.groups if other.key == group.key]
    alone = [other for other in parent.groups if other.key == "."] if len(child.groups) == 1 else []
    return next(iter((*same, *alone)), None)


def _judge_pair(pair: Pair, on_read: OnRead) -> Compared:
    """Steps (2) and (3)."""
    child, parent = pair.child, pair.parent
    on_read(child.tensor.length)
    if parent is None:
        return _unpaired(child, "the parent has no such tensor")
    if not _of_one_shape(child, parent):
        why = f"shape {list(child.tensor.shape)}, the parent's is {list(parent.tensor.shape)}"
        return _unpaired(child, why, parent)
    steps = steps_between(parent.tensor, child.tensor, pair.heads)
    if not steps:
        why = f"{child.tensor.dtype} is not re-derived from {parent.tensor.dtype} here"
        return _unpaired(child, why, parent)
    with readable(child.path), child.path.open("rb") as here, readable(parent.path), parent.path.open("rb") as there:
        differences: list[Difference] = []
        for step in steps:
            difference = first_difference(step, here, child.tensor, there, parent.tensor, count=not differences)
            if difference is None:
                return Compared(child.file, child.tensor.name, parent.tensor.name, child.tensor.length, step.name)
            differences.append(difference)
    return Compared(child.file, child.tensor.name, parent.tensor.name, child.tensor.length, "", differences[0])


def _of_one_shape(child: LocatedTensor, parent: LocatedTensor) -> bool:
    """Equal; from one format to the other but for dimensions of one, which GGUF files leave out."""
    if reader_of(child.file) is reader_of(parent.file):
        return child.tensor.shape == parent.tensor.shape
    one, other = ([size for size in side.tensor.shape if size != 1] for side in (child, parent))
    return one == other


def _unpaired(child: LocatedTensor, why: str, parent: LocatedTensor | None = None) -> Compared:
    name = parent.tensor.name if parent else ""
    return Compared(child.file, child.tensor.name, name, child.tensor.length, "", None, why)


def _renamed(found: Sequence[Compared], group: WeightGroup, partner: WeightGroup, spare: set[str]) -> list[Compared]:
    """Give tensors without a partner the one whose bytes are theirs, under whatever name; it is taken from `spare`."""
    wanted = {
        (tensor.dtype, tensor.shape)
        for compared in found
        if not compared.parent
        for tensor in (group.tensors[compared.name].tensor,)
    }
    by_bytes: dict[tuple[str, tuple[int, ...], bytes], list[str]] = defaultdict(list)
    for name in sorted(spare):
        tensor = partner.tensors[name].tensor
        if (tensor.dtype, tensor.shape) in wanted:
            by_bytes[tensor.dtype, tensor.shape, _hash(partner.tensors[name])].append(name)
    return [_under_another_name(compared, group, by_bytes, spare) for compared in found]


def _under_another_name(
    compared: Compared,
    group: WeightGroup,
    by_bytes: dict[tuple[str, tuple[int, ...], bytes], list[str]],
    spare: set[str],
) -> Compared:
    located = group.tensors[compared.name]
    kind = located.tensor.dtype, located.tensor.shape
    if compared.parent or not any(key[:2] == kind for key in by_bytes):
        return compared
    if not (names := by_bytes.get((*kind, _hash(located)))):
        return compared
    name = names.pop()
    spare.discard(name)
    return Compared(compared.file, compared.name, name, compared.length, "copy")


def _hash(located: LocatedTensor) -> bytes:
    digest = hashlib.sha256()
    with readable(located.path), located.path.open("rb") as file:
        for start in range(0, located.tensor.length, BLOCK):
            digest.update(read_exactly(file, located.tensor.start + start, min(BLOCK, located.tensor.length - start)))
    return digest.digest()
