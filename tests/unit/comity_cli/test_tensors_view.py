"""What is said of files with tensors of an artifact: in sentences of some names, and in JSON with more of them."""

from __future__ import annotations

from pathlib import Path

from comity.trust.encoding import sha256
from comity_cli.tensors_view import LISTED, TensorCount, _said, same_tensors_items
from comity_client.identify.disk import DiskFile
from comity_client.identify.judging import KnownArtifact
from comity_client.identify.tensors import ComparedTensors, SameTensors, SameTensorsFound

NAMES = tuple(f"t{number}" for number in range(LISTED + 7))
NONE = ((),) * 7
PART = ComparedTensors(9, 9_000, 2, 2_000, ("x = a",), ("r",), NAMES[:5], ("u",), ("n",), ("c",), ("m",), ("there",))


def test_each_kind_of_tensor_has_its_words_and_three_names() -> None:
    assert "; ".join(_said(PART)) == (
        "2 of 9 tensors (2.0 kB of 9.0 kB) the same; 1 renamed; same bytes, other type or shape: r;"
        " other bytes: t0, t1, t2 and 2 more; not all there: c; not compared: u; not found there: n; not found here: m"
    )
    assert list(_said(ComparedTensors(1, 5, 1, 5, *NONE, ("there",)))) == ["all 1 tensor (5 B) the same"]


def test_the_document_counts_all_names_and_lists_a_bounded_number() -> None:
    assert TensorCount.of(NAMES) == TensorCount(len(NAMES), NAMES[:LISTED])
    artifact, file = sha256(b"artifact"), DiskFile(Path("m/f"), 9, sha256(b"f"))
    found = SameTensorsFound(
        (SameTensors(Path("m"), (file,), artifact, PART),), {artifact: KnownArtifact(artifact, "a/b@v1")}
    )
    (item,) = same_tensors_items(found)
    assert (item.title, item.files, item.of, item.all_same) == ("a/b@v1", (Path("m/f"),), ("there",), False)
    assert (item.changed.count, item.missing.names, item.same_bytes) == (5, ("m",), 2_000)
