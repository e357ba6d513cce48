"""Whether a model fits, compared with cases that were calculated without the program."""

from __future__ import annotations

from typing import Final

import pytest
from comity.addons.fit.fit import AcceleratorGroup, OfferFit, Workload, fit
from comity.addons.fit.kv_cache import UnknownCache, cache_of
from comity.addons.fit.model_memory import Model, ModelWeights, by_headers, by_size, weight_files
from comity.trust.artifact import FileEntry
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, NotFound
from hypothesis import given
from hypothesis import strategies as st

GIB: Final = 1 << 30

SEVEN_B = Model(
    "Llama-2-7B",
    ModelWeights({"BF16": 13_476_831_232}, "a test", ()),  # 6,738,415,616 parameters of 2 bytes
    cache_of({"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}),
)
SEVENTY_B = Model(
    "Llama-3-70B in FP8",
    # 68,452,360,192 parameters of 1 byte; embedding and head, 2 x 128,256 x 8,192, stay at 2 bytes
    ModelWeights({"F8_E4M3": 68_452_360_192, "BF16": 4_202_692_608}, "a test", ()),
    cache_of({"model_type": "llama", "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
              "hidden_size": 8192}),
)  # fmt: skip
ONE_T = Model(
    "a 1T mixture of experts in 4 bits",
    ModelWeights({"I32": 562_000_000_000, "BF16": 39_000_000_000}, "a test", ()),  # eight 4-bit numbers in each I32
    cache_of({"model_type": "kimi_k2", "num_hidden_layers": 61, "num_attention_heads": 64, "kv_lora_rank": 512,
              "qk_rope_head_dim": 64}),
)  # fmt: skip


def line(found: OfferFit, name: str) -> str:
    return dict(found.lines)[name]


def test_a_7b_in_bf16_fits_one_l4() -> None:
    found = fit(SEVEN_B, AcceleratorGroup("L4", 1, 24, 1), Workload(4096))
    assert (found.fits, found.accelerators, found.because) == (True, 1, "fits with 1 L4")
    # 13,476,831,232 bytes are 12.55 GiB; 32 layers x 4,096 tokens x 2 x 32 x 128 numbers x 2 bytes are 2 GiB
    assert line(found, "weights").startswith("12.55 GiB: BF16 12.55 GiB")
    assert line(found, "KV-cache").startswith(
        "2.00 GiB: (32 layers x 4,096 tokens) x (2 x 32 KV heads x 128) x 2 bytes (bf16) x 1 at a time"
    )
    assert line(found, "together") == "14.55 GiB"
    assert line(found, "usable").startswith("21.60 GiB each, of the memory declared: 10 % of it kept free")


def test_the_same_takes_two_t4_because_one_would_be_over_by_a_little() -> None:
    room = AcceleratorGroup("T4", 4, 16, 1)  # 14.40 GiB are usable of each, 14.55 GiB are needed
    found = fit(SEVEN_B, room, Workload(4096))
    assert (found.fits, found.accelerators) == (True, 2)
    assert line(found, "on 2 x 1").startswith("7.28 GiB each (6.28 GiB of weights + 1.00 GiB of KV-cache), at most")


def test_a_70b_in_fp8_with_eight_long_sequences_takes_two_h100() -> None:
    # 72,655,052,800 bytes are 67.67 GiB; 80 x 8,192 x (2 x 8 x 128) x 2 bytes x 8 are 20 GiB; 80 GiB less 10 % are 72
    found = fit(SEVENTY_B, AcceleratorGroup("H100", 8, 80, 1, "NVLink"), Workload(8192, batch=8))
    assert (found.fits, found.because) == (True, "fits with 2 H100")
    assert line(found, "together") == "87.67 GiB"
    assert line(found, "on 2 x 1").startswith("43.83 GiB each")


def test_a_70b_in_fp8_does_not_fit_two_small_ones_because() -> None:
    found = fit(SEVENTY_B, AcceleratorGroup("A100", 2, 40, 1), Workload(8192, batch=8))
    assert found.fits is False
    assert found.because == ("does not fit, because each of 2 A100 would hold 43.83 GiB, and 36.00 GiB are usable")


def test_a_1t_in_four_bits_fits_eight_h100_with_a_short_context_only() -> None:
    # 601e9 bytes / 8 are 69.97 GiB; latent attention keeps 61 x 576 x 2 = 70,272 bytes a token, on every accelerator
    room = AcceleratorGroup("H100", 8, 80, 1, "NVLink")
    short = fit(ONE_T, room, Workload(8192))
    assert (short.fits, short.accelerators) == (True, 8)
    assert line(short, "KV-cache").startswith(
        "0.54 GiB: (61 layers x 8,192 tokens) x (512 latent + 64 rotary) x 2 bytes"
    )
    long = fit(ONE_T, room, Workload(131_072))
    assert long.because == ("does not fit, because each of 8 H100 would hold 78.54 GiB, and 72.00 GiB are usable")


def test_a_1t_with_a_long_context_takes_two_nodes_if_a_fabric_joins_them() -> None:
    # 31 of 61 layers on the fuller node: 601e9 x 31 / 61 / 8 are 35.56 GiB, and 4.36 GiB of KV-cache
    found = fit(ONE_T, AcceleratorGroup("H100", 8, 80, 2, "NVLink", "InfiniBand NDR"), Workload(131_072))
    assert (found.fits, found.per_node, found.nodes) == (True, 8, 2)
    assert found.because == "fits with 16 H100, 8 on each of 2 nodes"
    assert line(found, "on 8 x 2").startswith("39.92 GiB each (35.56 GiB of weights + 4.36 GiB of KV-cache)")


def test_nodes_without_a_fabric_are_not_one_machine() -> None:
    found = fit(ONE_T, AcceleratorGroup("H100", 8, 80, 2, "NVLink"), Workload(131_072))
    assert found.fits is False
    assert found.because.endswith("; 2 nodes without a fabric between them are not one")


def test_an_unknown_cache_gives_no_yes() -> None:
    model = Model("a state-space model", SEVEN_B.weights, UnknownCache("nobody knows"))
    found = fit(model, AcceleratorGroup("L4", 1, 24, 1), Workload(4096))
    assert (found.fits, line(found, "KV-cache")) == (None, "unknown: nobody knows")
    assert found.because == "the weights fit with 1 L4; the KV-cache is unknown: nobody knows"


def test_weights_that_do_not_fit_are_a_no_with_any_cache() -> None:
    model = Model("a large state-space model", ONE_T.weights, UnknownCache("nobody knows"))
    assert fit(model, AcceleratorGroup("L4", 8, 24, 1), Workload(4096)).fits is False


def test_more_accelerators_than_kv_heads_keep_copies() -> None:
    model = Model("multi-query", ModelWeights({"BF16": 8 * GIB}, "a test", ()), cache_of(
        {"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 1,
         "hidden_size": 4096}))  # fmt: skip
    found = fit(
        model, AcceleratorGroup("small", 8, 3, 1), Workload(131_072)
    )  # 1 GiB of KV-cache and 1 GiB of weights each
    assert line(found, "on 8 x 1").startswith("3.00 GiB each (1.00 GiB of weights + 2.00 GiB of KV-cache)")
    assert found.fits is False


@given(
    st.integers(1, 10**13), st.integers(1, 16), st.integers(1, 300), st.integers(1, 8), st.integers(1, 10**6),
    st.sampled_from([SEVEN_B, SEVENTY_B, ONE_T]),
)  # fmt: skip
def test_a_model_that_fits_also_fits_with_more_memory_and_a_shorter_context(
    total: int, count: int, memory: int, nodes: int, context: int, like: Model
) -> None:
    model = Model("any", ModelWeights({"Q4_K": total}, "a test", ()), like.cache)
    found = fit(model, AcceleratorGroup("X", count, memory, nodes, fabric="yes"), Workload(context))
    more = fit(model, AcceleratorGroup("X", count, 2 * memory, nodes, fabric="yes"), Workload(context))
    shorter = fit(model, AcceleratorGroup("X", count, memory, nodes, fabric="yes"), Workload(max(1, context // 2)))
    assert found.accelerators <= count * nodes
    assert not found.fits or (more.fits and shorter.fits and more.accelerators <= found.accelerators)


def files(*named: tuple[str, int]) -> tuple[FileEntry, ...]:
    return tuple(FileEntry(path, size, sha256(path.encode())) for path, size in named)


def test_safetensors_count_and_their_copies_do_not() -> None:
    found = weight_files(
        files(("consolidated.safetensors", 9), ("model-00001-of-00002.safetensors", 5), ("original/a.pth", 9),
              ("model-00002-of-00002.safetensors", 6), ("pytorch_model.bin", 11), ("config.json", 1))
    )  # fmt: skip
    assert by_size(found).total == 11
    assert by_size(found).source == "2 files, by size alone"


def test_several_quantizations_in_one_artifact_have_to_be_chosen_from() -> None:
    several = files(("m-Q4_K_M-00001-of-00002.gguf", 5), ("m-Q4_K_M-00002-of-00002.gguf", 6), ("m-Q8_0.gguf", 20))
    with pytest.raises(Malformed) as refused:
        weight_files(several)
    assert refused.value.code == "WHICH-WEIGHTS"
    assert by_size(weight_files(several, "*Q4_K_M*")).total == 11


@pytest.mark.parametrize("pattern", ["", "*.gguf"])
def test_an_artifact_without_weights_fits_no_machine(pattern: str) -> None:
    with pytest.raises(NotFound):
        weight_files(files(("README.md", 3)), pattern)


def test_types_add_up_over_files() -> None:
    weights = by_headers([{"BF16": 2, "F32": 1}, {"BF16": 3}], ["a", "b"])
    assert (weights.total, weights.types, weights.source) == (6, ("BF16", "F32"), "the headers of 2 files")
