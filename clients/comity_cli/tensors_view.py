"""What `comity identify` says of weight files that no node knows, and that have tensors of an artifact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

from comity_cli.output import Output, plural, size

if TYPE_CHECKING:
    from comity_client.identify.tensors import ComparedTensors, SameTensors, SameTensorsFound

LISTED: Final = 1_000
"""Names that a list has at most in JSON."""
NAMED: Final = 3
"""Names of a list that are printed."""


@frozen
class TensorCount:
    """Tensors of one kind: how many there are, and the names of the first of them."""

    count: int
    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> TensorCount:
        return cls(len(names), tuple(names[:LISTED]))


@frozen
class SameTensorsItem:
    """Files of one folder, none of which is published, with tensors of an artifact, by the piece index and the headers
    of its files.

    `same`: tensors with the bytes, type and shape of one there; of these, `renamed` have another name there, as "NAME =
    NAME THERE". `retyped`: with the bytes of one there, and another type or shape. `changed`: with other bytes than the
    tensor of that name there. `undecided`: with a tensor of that name there, of which nothing is proven. `not_found`:
    neither name nor bytes were found there. `cut`: the file ends too early. `missing`: tensors of the files `of` there
    that were not found here. `all_same`: all are the same, and none is missing.
    """

    folder: Path
    files: tuple[Path, ...]
    artifact: Digest
    title: str
    of: tuple[str, ...]
    all_same: bool
    tensors: int
    bytes: int
    same: int
    same_bytes: int
    renamed: TensorCount
    retyped: TensorCount
    changed: TensorCount
    undecided: TensorCount
    not_found: TensorCount
    cut: TensorCount
    missing: TensorCount

    @classmethod
    def of_found(cls, each: SameTensors, title: str) -> SameTensorsItem:
        found = each.compared
        counts = (found.renamed, found.retyped, found.changed, found.undecided, found.not_found, found.cut)
        files = tuple(file.path for file in each.files)
        totals = (found.tensors, found.bytes, found.same, found.same_bytes)
        kinds = map(TensorCount.of, (*counts, found.missing))
        return cls(each.folder, files, each.artifact, title, found.of, found.all_same, *totals, *kinds)


def same_tensors_items(found: SameTensorsFound) -> tuple[SameTensorsItem, ...]:
    return tuple(SameTensorsItem.of_found(each, found.artifacts[each.artifact].title) for each in found.same)


@frozen
class KnownDerivationItem:
    """What `by` signed: the weights of the artifact were computed from those of `parent`. `equal` of its `tensors`
    follow from these, and if `exact` all do. Proven here is who said it."""

    parent: Digest
    title: str
    relation: str
    exact: bool
    equal: int
    tensors: int
    by: str


def show_same_tensors(out: Output, found: SameTensorsFound) -> None:
    if found.same:
        rows = [
            (_name(each), found.artifacts[each.artifact].title, "; ".join(_said(each.compared))) for each in found.same
        ]
        out.table(("other file", "has tensors of", ""), rows, shorten=("other file", "has tensors of"))
    for known in found.artifacts.values():
        if known.problem:
            out.prose(
                f"{known.title}, which has the same tensors: {known.problem}", first=f"{out.mark('!', 'yellow')} "
            )
        for advised in known.advised:
            out.warn(f"{known.title}, which has the same tensors: {advised}")


def _name(each: SameTensors) -> str:
    return str(each.files[0].path if len(each.files) == 1 else f"{each.folder}: {len(each.files)} files")


def _said(found: ComparedTensors) -> Iterator[str]:
    if found.same == found.tensors:
        yield f"all {plural(found.tensors, 'tensor')} ({size(found.bytes)}) the same"
    else:
        bytes_same = f"{size(found.same_bytes)} of {size(found.bytes)}"
        yield f"{found.same} of {plural(found.tensors, 'tensor')} ({bytes_same}) the same"
    if found.renamed:
        yield f"{len(found.renamed)} renamed"
    for names, what in (
        (found.retyped, "same bytes, other type or shape"),
        (found.changed, "other bytes"),
        (found.cut, "not all there"),
        (found.undecided, "not compared"),
        (found.not_found, "not found there"),
        (found.missing, "not found here"),
    ):
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            yield f"{what}: {', '.join(names[:NAMED])}{more}"
