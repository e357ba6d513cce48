"""Weights derived in part, or in unknown ways: how much is the same, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.derivations import Named, bert_gguf, each, llama_gguf, sharded, to_bf16, write_safetensors
from support.tiny_llama import HEADS, HEADS_KV, LAYERS, LLAMA, WIDE, compared, floats, unequal


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return write_safetensors(tmp_path / "parent" / "model.safetensors", LLAMA).parent


def test_a_fine_tune_shows_its_share_of_identical_tensors(tmp_path: Path, parent: Path) -> None:
    tuned = each(LLAMA, lambda t: (t[0], *floats(*t[2])) if ".layers.1." in t[0] else t)
    write_safetensors(tmp_path / "child" / "model.safetensors", [*tuned, ("score.weight", *floats(2, WIDE))])
    found = compared(tmp_path / "child", parent)
    assert not found.exact
    assert len(found.equal) == sum(".layers.1." not in tensor[0] for tensor in LLAMA)
    assert found.equal_bytes == sum(len(t[3]) for t in LLAMA if ".layers.1." not in t[0])
    assert next(t for t in found.tensors if t.name == "score.weight").why == "the parent has no such tensor"


def test_tensors_under_other_names_are_found_by_their_bytes(tmp_path: Path, parent: Path) -> None:
    renamed = each(LLAMA, lambda t: (t[0].removeprefix("model."), *t[1:]))
    write_safetensors(tmp_path / "child" / "model.safetensors", renamed)
    found = compared(tmp_path / "child", parent)
    assert found.exact
    assert {(t.name, t.parent) for t in found.tensors} == {(t[0].removeprefix("model."), t[0]) for t in LLAMA}


def test_a_child_that_lacks_learned_tensors_is_not_exact_and_they_are_named(tmp_path: Path, parent: Path) -> None:
    write_safetensors(tmp_path / "child" / "model.safetensors", LLAMA[1:])
    found = compared(tmp_path / "child", parent)
    assert not found.exact
    assert found.left_out == (LLAMA[0][0],)
    assert found.equal_bytes == found.bytes


def test_buffers_that_are_computed_may_be_left_out(tmp_path: Path) -> None:
    buffer: Named = ("model.layers.0.self_attn.rotary_emb.inv_freq", *floats(8))
    write_safetensors(tmp_path / "parent" / "model.safetensors", [*LLAMA, buffer])
    write_safetensors(tmp_path / "child" / "model.safetensors", LLAMA)
    found = compared(tmp_path / "child", tmp_path / "parent")
    assert found.exact
    assert found.dropped == (buffer[0],)


def test_weights_in_formats_that_are_not_read_are_named_and_nothing_is_exact(tmp_path: Path, parent: Path) -> None:
    child = sharded(tmp_path / "child", LLAMA, 2)
    (child / "onnx").mkdir()
    (child / "onnx" / "model.onnx").write_bytes(b"?")
    found = compared(child, parent)
    assert found.unread == ("onnx/model.onnx",)
    assert not found.exact


def test_another_shape_or_type_is_reported(tmp_path: Path, parent: Path) -> None:
    name, _, _, data = LLAMA[0]
    first: Named = (name, "F32", (WIDE, 96), data)
    second: Named = (LLAMA[1][0], "I32", LLAMA[1][2], LLAMA[1][3])
    write_safetensors(tmp_path / "child" / "model.safetensors", [first, second, *LLAMA[2:]])
    whys = {tensor.name: tensor.why for tensor in unequal(compared(tmp_path / "child", parent))}
    assert whys == {
        name: f"shape [{WIDE}, 96], the parent's is [96, {WIDE}]",
        LLAMA[1][0]: "re-deriving I32 from F32 is not supported",
    }


def test_dimensions_of_one_count_within_a_format(tmp_path: Path) -> None:
    for name, shape in (("parent", (1, 8)), ("child", (8,))):
        write_safetensors(tmp_path / name / "m.safetensors", [("a.weight", "F32", shape, bytes(32))])
    (differs,) = unequal(compared(tmp_path / "child", tmp_path / "parent"))
    assert differs.why == "shape [8], the parent's is [1, 8]"


def test_a_tensor_may_be_missing_in_one_model_and_not_in_another_of_the_folder(tmp_path: Path) -> None:
    """A BERT in GGUF may lack the pooler; the same BERT in safetensors, in the same folder, may not."""
    pooler: list[Named] = [("pooler.dense.weight", *floats(8, 32)), ("pooler.dense.bias", *floats(8))]
    bert: list[Named] = [("embeddings.word_embeddings.weight", *floats(16, 32))]
    write_safetensors(tmp_path / "parent" / "model.safetensors", [*bert, *pooler])
    bert_gguf(tmp_path / "child" / "a.gguf", bert, "Q8_0", 0, 1)
    assert compared(tmp_path / "child", tmp_path / "parent").exact
    for name in ("a.safetensors", "z.safetensors"):  # before it, and behind it
        written = write_safetensors(tmp_path / "child" / name, bert)
        found = compared(tmp_path / "child", tmp_path / "parent")
        assert (found.exact, found.dropped) == (False, ())
        written.unlink()


def test_no_weights_prove_nothing(tmp_path: Path, parent: Path) -> None:
    (tmp_path / "child").mkdir()
    assert not compared(tmp_path / "child", parent).exact


def test_several_quantisations_in_one_folder_are_each_compared(tmp_path: Path, parent: Path) -> None:
    for kind in ("Q8_0", "F16"):
        llama_gguf(tmp_path / "child" / f"m-{kind}.gguf", LLAMA, kind, LAYERS, HEADS, HEADS_KV)
    found = compared(tmp_path / "child", parent)
    assert found.exact
    assert len(found.tensors) == 2 * len(LLAMA)


def test_two_files_of_one_folder_with_the_same_names_are_two_models(tmp_path: Path, parent: Path) -> None:
    child = write_safetensors(tmp_path / "child" / "model.safetensors", LLAMA).parent
    write_safetensors(child / "model.bf16.safetensors", each(LLAMA, to_bf16))
    assert compared(child, parent).exact
