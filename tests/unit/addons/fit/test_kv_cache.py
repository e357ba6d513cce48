"""The size of a KV-cache follows from the configuration, or is unknown with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from comity.addons.fit.kv_cache import Cache, UnknownCache, cache_of, cache_of_gguf
from hypothesis import given
from hypothesis import strategies as st

LLAMA_7B = {"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}
MISTRAL = {**LLAMA_7B, "model_type": "mistral", "num_key_value_heads": 8, "sliding_window": None}
GPT_OSS = {
    "model_type": "gpt_oss", "num_hidden_layers": 4, "num_attention_heads": 64, "num_key_value_heads": 8,
    "head_dim": 64, "hidden_size": 2880, "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip
KIMI_K2 = {
    "model_type": "kimi_k2", "num_hidden_layers": 61, "num_attention_heads": 64, "num_key_value_heads": 64,
    "kv_lora_rank": 512, "qk_rope_head_dim": 64,
}  # fmt: skip


def known(config: dict[str, Any]) -> Cache:
    cache = cache_of(config)
    assert isinstance(cache, Cache), cache
    return cache


def why(config: dict[str, Any]) -> str:
    cache = cache_of(config)
    assert isinstance(cache, UnknownCache), cache
    return cache.why


def test_multi_head_attention_keeps_keys_and_values_of_every_head() -> None:
    assert known(LLAMA_7B).bytes(4096, 1, 2) == 2 << 30


def test_grouped_attention_keeps_those_of_the_shared_heads() -> None:
    cache = known({**LLAMA_7B, "num_key_value_heads": 8})
    assert (cache.kind, cache.bytes(4096, 1, 2)) == ("grouped-query attention", (2 << 30) // 4)


def test_multi_query_attention_keeps_one() -> None:
    cache = known({"model_type": "gemma", "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1,
                   "head_dim": 256, "hidden_size": 2048})  # fmt: skip
    assert (cache.kind, cache.elements) == ("multi-query attention", 512)


def test_plain_multi_head_models_are_read_by_their_own_names() -> None:
    cache = known({"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768})
    assert cache.bytes(1024, 1, 2) == 2 * 12 * 768 * 1024 * 2


def test_latent_attention_keeps_one_compressed_vector_on_every_accelerator() -> None:
    cache = known(KIMI_K2)
    assert (cache.bytes(1, 1, 2), cache.heads) == (61 * 576 * 2, 1)


def test_windowed_layers_that_are_listed_keep_no_more_than_the_window() -> None:
    cache = known(GPT_OSS)
    assert cache.tokens(8192) == 2 * 8192 + 2 * 128
    assert cache.tokens(100) == 4 * 100


def test_a_mistral_that_windows_every_layer_keeps_the_window() -> None:
    assert known({**MISTRAL, "sliding_window": 4096}).tokens(32_768) == 32 * 4096
    assert known(MISTRAL).tokens(32_768) == 32 * 32_768


def test_only_the_text_part_of_a_vision_model_counts() -> None:
    assert cache_of({"model_type": "llava", "text_config": LLAMA_7B}) == cache_of(LLAMA_7B)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "names no model_type"),
        ({"model_type": "mamba2"}, "'mamba2' is not one that is known here"),
        ({**LLAMA_7B, "model_type": "llama4"}, "not one that is known"),
        ({**LLAMA_7B, "model_type": "qwen3_next"}, "not one that is known"),
        ({**LLAMA_7B, "model_type": "qwen2"}, "num_key_value_heads"),
        ({**LLAMA_7B, "model_type": "qwen3", "num_key_value_heads": 8}, "head_dim"),
        ({**LLAMA_7B, "model_type": "mistral", "num_key_value_heads": 8}, "sliding_window is missing"),
        ({k: v for k, v in GPT_OSS.items() if k != "layer_types"}, "does not list which"),
        ({**GPT_OSS, "layer_types": ["full_attention", "linear_attention"] * 2}, "linear_attention"),
        ({**GPT_OSS, "layer_types": ["full_attention"]}, "1 of 4 layers"),
        ({**LLAMA_7B, "sliding_window": 4096}, "does not list the layers"),
        ({**LLAMA_7B, "num_hidden_layers": 0}, "num_hidden_layers"),
        ({**LLAMA_7B, "num_hidden_layers": True}, "num_hidden_layers"),
        ({**LLAMA_7B, "num_key_value_heads": 5}, "not a multiple"),
        ({**LLAMA_7B, "hidden_size": 4097}, "not a multiple"),
        ({**KIMI_K2, "kv_lora_rank": None}, "kv_lora_rank"),
    ],
)
def test_a_cache_size_that_the_configuration_does_not_determine_is_unknown(config: dict[str, Any], reason: str) -> None:
    assert reason in why(config)


GGUF = {
    "general.architecture": "llama", "llama.block_count": 32, "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8, "llama.embedding_length": 4096,
}  # fmt: skip


def test_a_gguf_header_says_the_same_as_the_configuration() -> None:
    from_header = cache_of_gguf(GGUF)
    assert isinstance(from_header, Cache)
    assert from_header.bytes(4096, 3, 2) == known({**LLAMA_7B, "num_key_value_heads": 8}).bytes(4096, 3, 2)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, "'None' is not one that is known"),
        ({**GGUF, "general.architecture": "deepseek2"}, "'deepseek2' is not one that is known"),
        ({**GGUF, "llama.attention.sliding_window": 4096}, "windowed"),
        ({**GGUF, "llama.embedding_length": 4097}, "not a multiple"),
        ({**GGUF, "llama.block_count": "many"}, "block_count is many"),
    ],
)
def test_a_cache_size_that_a_gguf_header_does_not_determine_is_unknown(facts: dict[str, Any], reason: str) -> None:
    cache = cache_of_gguf(facts)
    assert isinstance(cache, UnknownCache)
    assert reason in cache.why


@given(
    st.dictionaries(
        st.sampled_from([*LLAMA_7B, *GPT_OSS, *KIMI_K2, "text_config", "n_layer", "n_head", "n_embd"]),
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["llama", "gpt2", "deepseek_v3"]),
            st.lists(st.sampled_from(["full_attention", "sliding_attention", 7]), max_size=4),
        ),
    )
)  # fmt: skip
def test_no_configuration_breaks_the_reader_or_gives_a_cache_of_nothing(config: dict[str, Any]) -> None:
    cache = cache_of(config)
    assert isinstance(cache, UnknownCache) or cache.bytes(1, 1, 1) > 0
