"""Compare the weights of a child with those of the parent that it is said to be made from.

    (1) tensors are paired by name (`names`); what has no partner is looked for by its bytes
    (2) of each pair both sides are read in chunks, and the child's bytes are made of the parent's in each way that
        their types allow, until one gives all of them
    (3) a tensor that no way gives is reported with the first element that differs

The memory is bounded by workers times a few chunks, whatever the size of a tensor. Files are expected not to change
meanwhile; whoever signs the result hashes them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from comity.derivation import tools
from comity.derivation.differences import first_difference, read_exactly
from comity.derivation.names import Pair, is_dropped, pair_up
from comity.derivation.outcome import Compared, Comparison, Difference
from comity.derivation.steps import steps_between
from comity.derivation.weights import Group, Located, Weights, readable
from comity.formats.tensors import reader_of

BLOCK: Final = 1024 * 1024
OnRead = Callable[[int], None]


def compare(child: Weights, parent: Weights, *, workers: int = 2, on_read: OnRead = lambda _: None) -> Comparison:
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
            found = list(pool.map(lambda pair: _judge(pair, on_read), pairs))
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
        tools=tools.versions(),
    )


def _partner(group: Group, child: Weights, parent: Weights) -> Group | None:
    """What the parent saved in the same place; or all it has, where there is only one thing."""
    if len(parent.groups) == 1:
        return parent.groups[0]
    same = [other for other in parent.groups if other.key == group.key]
    alone = [other for other in parent.groups if other.key == "."] if len(child.groups) == 1 else []
    return next(iter((*same, *alone)), None)


def _judge(pair: Pair, on_read: OnRead) -> Compared:
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


def _of_one_shape(child: Located, parent: Located) -> bool:
    """Equal; from one format to the other but for dimensions of one, which GGUF files leave out."""
    if reader_of(child.file) is reader_of(parent.file):
        return child.tensor.shape == parent.tensor.shape
    one, other = ([size for size in side.tensor.shape if size != 1] for side in (child, parent))
    return one == other


def _unpaired(child: Located, why: str, parent: Located | None = None) -> Compared:
    name = parent.tensor.name if parent else ""
    return Compared(child.file, child.tensor.name, name, child.tensor.length, "", None, why)


def _renamed(found: Sequence[Compared], group: Group, partner: Group, spare: set[str]) -> list[Compared]:
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
    group: Group,
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


def _hash(located: Located) -> bytes:
    digest = hashlib.sha256()
    with readable(located.path), located.path.open("rb") as file:
        for start in range(0, located.tensor.length, BLOCK):
            digest.update(read_exactly(file, located.tensor.start + start, min(BLOCK, located.tensor.length - start)))
    return digest.digest()
