"""Weights derived from others in every known way: exact, or with the first bit that differs."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from comity.addons.derivation import casts, steps
from comity.addons.derivation import check as differences
from comity.addons.derivation.check import compare
from comity.trust.errors import Malformed, Unavailable
from support.derivations import Named, each, flip, llama_gguf, sharded, to_bf16, write_safetensors
from support.tiny_llama import HEADS, HEADS_KV, LAYERS, LLAMA, WIDE, compared, unequal, weights


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return write_safetensors(tmp_path / "parent" / "model.safetensors", LLAMA).parent


def test_shards_of_the_same_tensors_are_the_same_weights(tmp_path: Path, parent: Path) -> None:
    found = compared(sharded(tmp_path / "child", LLAMA, 3), parent)
    assert found.exact
    assert found.steps == {"copy": len(LLAMA)}
    assert (found.files, found.parent_files) == (3, 1)


def test_shards_merge_again_and_the_comparison_works_both_ways(tmp_path: Path, parent: Path) -> None:
    assert compared(parent, sharded(tmp_path / "child", LLAMA[::-1], 4)).exact


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_a_llama_in_gguf_is_made_from_its_parent_with_permuted_queries_and_keys(
    tmp_path: Path, parent: Path, kind: str
) -> None:
    llama_gguf(tmp_path / "child" / "m.gguf", LLAMA, kind, LAYERS, HEADS, HEADS_KV)
    found = compared(tmp_path / "child", parent)
    assert found.exact, unequal(found)
    assert sum(count for step, count in found.steps.items() if step.endswith("+llama-rows")) == 2 * LAYERS


def test_a_permutation_by_another_number_of_heads_is_detected(tmp_path: Path, parent: Path) -> None:
    made = tmp_path / "child" / "m.gguf"
    llama_gguf(made, LLAMA, "F16", LAYERS, HEADS, HEADS_KV)
    count = b"llama.attention.head_count" + struct.pack("<I", 4)
    made.write_bytes(made.read_bytes().replace(count + struct.pack("<I", HEADS), count + struct.pack("<I", 8)))
    assert {tensor.name for tensor in unequal(compared(made.parent, parent))} == {
        f"blk.{layer}.attn_q.weight" for layer in range(LAYERS)
    }


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
def test_a_gguf_is_made_from_another_gguf(tmp_path: Path, kind: str) -> None:
    for name, as_kind in (("parent", "F32"), ("child", kind)):
        llama_gguf(tmp_path / name / "m.gguf", LLAMA, as_kind, LAYERS, HEADS, HEADS_KV)
    assert compared(tmp_path / "child", tmp_path / "parent").exact


CHANGES: dict[str, tuple[Callable[[Named], Named], str]] = {
    "to BF16": (to_bf16, "bf16-nearest-even"),
    "to BF16, cut off": (
        lambda t: (t[0], "BF16", t[2], b"".join(t[3][at + 2 : at + 4] for at in range(0, len(t[3]), 4))),
        "bf16-toward-zero",
    ),
    "to FP16": (
        lambda t: (
            t[0],
            "F16",
            t[2],
            b"".join(struct.pack("<e", *struct.unpack("<f", t[3][at : at + 4])) for at in range(0, len(t[3]), 4)),
        ),
        "f16-nearest-even",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_cast_is_proven_with_its_rounding_named(tmp_path: Path, parent: Path, change: str) -> None:
    cast, step = CHANGES[change]
    write_safetensors(tmp_path / "child" / "model.safetensors", each(LLAMA, cast))
    found = compared(tmp_path / "child", parent)
    assert found.exact
    assert found.steps == {step: len(LLAMA)}
    back = compared(parent, tmp_path / "child")
    assert not back.exact  # rounding cannot be undone


def test_widening_is_exact(tmp_path: Path) -> None:
    half = each(LLAMA, CHANGES["to FP16"][0])
    wide = each(
        half,
        lambda t: (t[0], "F32", t[2], struct.pack(f"<{len(t[3]) // 2}f", *struct.unpack(f"<{len(t[3]) // 2}e", t[3]))),
    )
    write_safetensors(tmp_path / "parent" / "m.safetensors", half)
    write_safetensors(tmp_path / "child" / "m.safetensors", wide)
    found = compared(tmp_path / "child", tmp_path / "parent")
    assert found.exact
    assert found.steps == {"widen": len(LLAMA)}


@pytest.mark.parametrize(("element", "bit"), [(0, 0), (1234, 3), (96 * WIDE - 1, 7)])
def test_one_bit_is_named_by_tensor_and_element(tmp_path: Path, parent: Path, element: int, bit: int) -> None:
    child = sharded(tmp_path / "child", each(LLAMA, to_bf16), 2)
    flip(child / "model-00001-of-00002.safetensors", LLAMA[0][0], element, 2, bit)
    (altered,) = unequal(compared(child, parent))
    assert altered.name == LLAMA[0][0]
    assert altered.difference is not None
    assert (altered.difference.element, altered.difference.elements) == (element, 1)
    here, expected = (
        int.from_bytes(bytes.fromhex(text), "little")
        for text in (altered.difference.found, altered.difference.expected)
    )
    assert here ^ expected == 1 << bit


@pytest.mark.parametrize(
    ("kind", "byte", "element"), [("Q8_0", 2 + 5, 5), ("Q8_0", 1, 0), ("Q4_0", 2 + 5, 5), ("Q4_0", 0, 0)]
)
def test_one_bit_in_a_quantised_block_is_named(
    tmp_path: Path, parent: Path, kind: str, byte: int, element: int
) -> None:
    made = tmp_path / "child" / "m.gguf"
    llama_gguf(made, LLAMA, kind, LAYERS, HEADS, HEADS_KV)
    (group,) = weights(made.parent).groups
    found = group.tensors["token_embd.weight"].tensor
    data = bytearray(made.read_bytes())
    data[found.start + 3 * found.block[1] + byte] ^= 1
    made.write_bytes(data)
    (altered,) = unequal(compared(made.parent, parent))
    assert altered.name == "token_embd.weight"
    assert altered.difference is not None
    assert (altered.difference.element, altered.difference.elements) == (3 * 32 + element, 1)
    assert altered.difference.offset == found.start + 3 * found.block[1]


def test_the_upper_four_bits_of_a_q4_0_byte_are_the_later_element() -> None:
    assert differences._element_in_block("Q4_0", bytes(2) + b"\x10" + bytes(15), bytes(18)) == 16
    assert differences._element_in_block("Q4_0", bytes(2) + b"\x11" + bytes(15), bytes(18)) == 0


def test_an_architecture_without_a_name_map_is_refused_with_its_name(tmp_path: Path, parent: Path) -> None:
    made = tmp_path / "child" / "m.gguf"
    llama_gguf(made, LLAMA, "F16", LAYERS, HEADS, HEADS_KV)
    made.write_bytes(made.read_bytes().replace(b"llama", b"lemma"))
    with pytest.raises(Malformed, match="lemma"):
        compared(made.parent, parent)


def test_a_hostile_count_of_layers_or_heads_is_bounded(tmp_path: Path, parent: Path) -> None:
    made = tmp_path / "child" / "m.gguf"
    llama_gguf(made, LLAMA, "F16", LAYERS, HEADS, HEADS_KV)
    good = made.read_bytes()
    for key, count in ((b"head_count", HEADS), (b"block_count", LAYERS)):
        pair = key + struct.pack("<II", 4, count)
        made.write_bytes(good.replace(pair, key + struct.pack("<II", 4, 2**32 - 1)))
        if key == b"block_count":
            with pytest.raises(Malformed, match="4294967295 layers"):
                compared(made.parent, parent)
        else:
            assert not compared(made.parent, parent).exact


def test_without_the_extra_unchanged_tensors_are_compared_and_casts_name_what_to_install(
    tmp_path: Path, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gguf", "numpy", "comity.addons.derivation.casts", "comity.addons.derivation.casts"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("comity.addons.derivation.steps.tools_installed", lambda: False)
    child = sharded(tmp_path / "child", LLAMA, 2)
    assert compared(child, parent).exact
    flip(child / "model-00001-of-00002.safetensors", LLAMA[0][0], 77, 4)
    (altered,) = unequal(compared(child, parent))
    assert altered.difference is not None
    assert (altered.difference.element, altered.difference.elements) == (77, None)
    assert list(compared(child, parent).tools) == ["comity"]
    half = write_safetensors(
        tmp_path / "half" / "m.safetensors", [(LLAMA[0][0], "F16", (96, WIDE), bytes(96 * WIDE * 2))]
    )
    with pytest.raises(Unavailable) as caught:
        compared(half.parent, parent)
    assert (caught.value.code, caught.value.hint) == ("NO-GGUF", "pip install 'comity[gguf]'")


def test_a_file_that_shrinks_during_the_comparison_is_detected(tmp_path: Path, parent: Path) -> None:
    found = weights(parent)
    data = (parent / "model.safetensors").read_bytes()
    (parent / "model.safetensors").write_bytes(data[:-8])
    with pytest.raises(Exception, match="changed while it was read"):
        compare(found, found)


def test_a_tensor_is_compared_over_the_borders_of_chunks(
    tmp_path: Path, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(differences, "CHUNK", 256)
    child = sharded(tmp_path / "child", each(LLAMA, to_bf16), 2)
    assert compared(child, parent).exact
    for element in (255, 256, 96 * WIDE - 1):
        flip(child / "model-00001-of-00002.safetensors", LLAMA[0][0], element, 2)
    (altered,) = unequal(compared(child, parent))
    assert altered.difference is not None
    assert (altered.difference.element, altered.difference.elements) == (255, 3)
    llama_gguf(tmp_path / "gguf" / "m.gguf", LLAMA, "Q8_0", LAYERS, HEADS, HEADS_KV)
    assert compared(tmp_path / "gguf", parent).exact


def test_a_head_that_is_too_large_to_permute_is_not_permuted(monkeypatch: pytest.MonkeyPatch, parent: Path) -> None:
    monkeypatch.setattr(steps, "MAX_HEAD", 10)
    (group,) = weights(parent).groups
    query = group.tensors["model.layers.0.self_attn.q_proj.weight"].tensor
    assert [step.name for step in steps.steps_between(query, query, HEADS)] == ["copy"]


def test_every_quantiser_that_is_named_is_there() -> None:
    assert set(steps.QUANTISED) == {"Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"}
    assert casts.WIDTHS.keys() == set(steps.FLOATS)
