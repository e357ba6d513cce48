"""An unmodified transformers loads by name: from a node, then without any node. The long form loads real weights."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from comity.trust.errors import Unavailable
from comity_cli.lab.weights import real_weights
from support.client_repository import CHILD, TOKENS, WIDTH, WORDS, ServedRepository
from support.environments import TRANSFORMERS, python_with
from support.gateway import gateway_node
from support.stock import Stock
from support.tools import missing

SCRIPT = Path(__file__).parents[1] / "support" / "stock_transformers.py"
REPOSITORY = "tests/all-MiniLM-L6-v2"

pytestmark = pytest.mark.slow


@pytest.fixture
def weights() -> Path:
    try:
        return real_weights(print)
    except Unavailable as error:
        missing(f"no real weights: {error}; unlock: a package index at hand")


async def loaded(stock: Stock, repository: str, *more: str) -> dict[str, Any]:
    out = await stock.execute(str(SCRIPT), repository, "v1", *more)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


async def test_transformers_loads_configuration_and_tokenizer(tmp_path: Path, node: ServedRepository) -> None:
    python = await asyncio.to_thread(python_with, TRANSFORMERS)
    online = await loaded(Stock(node.url, tmp_path / "hf", python=python), CHILD)
    offline = await loaded(Stock("", tmp_path / "hf", python=python), CHILD)
    assert online == {"config": "BertConfig", "hidden_size": WIDTH, "vocabulary": len(WORDS), "tokens": TOKENS}
    assert offline == online


@pytest.mark.long
async def test_a_forward_pass_on_real_weights_is_the_same_from_a_node_and_from_the_folder(
    tmp_path: Path, weights: Path
) -> None:
    python = await asyncio.to_thread(python_with, TRANSFORMERS, "torch==2.13.0")
    async with gateway_node(tmp_path, files="127.0.0.1:0") as node:
        await node.publish(weights, f"{REPOSITORY}@v1")
        by_name = await loaded(Stock(node.url, tmp_path / "hf", python=python), REPOSITORY, "--forward")
    out = await Stock("", tmp_path / "none", python=python).execute(str(SCRIPT), str(weights), "main", "--forward")
    assert by_name["shape"] == [1, 8, 384]  # [CLS] nobody can take it away . [SEP]
    assert by_name["finite"] is True
    assert by_name == json.loads(out.splitlines()[-1])
