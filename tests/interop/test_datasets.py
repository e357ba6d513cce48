"""A dataset outlives its publisher's node: mirrored, pulled, loaded by an unmodified `datasets`, its lineage shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from comity.rules.git_ids import commit_id
from comity.trust.statements import Parent
from comity_cli.main import command
from comity_client.client import Client
from comity_client.home import Home
from support.environments import python_with
from support.federation import WITH_GATEWAY, NodeProcess, found, until
from support.other_clients import READERS
from support.ports import free_port
from support.publisher import Publisher, release, send
from support.stock import Stock

pytestmark = pytest.mark.slow

BASE, ROWS = "tests/questions", "tests/selected"
RECORDS = [{"question": "2 + 2", "answer": 4}, {"question": "3 + 3", "answer": 6}]
MAKE = """
import json, sys
import pyarrow as pa
import pyarrow.parquet as parquet
parquet.write_table(pa.Table.from_pylist(json.loads(sys.argv[1])), sys.argv[2])
"""
LOAD = f"""
import json
from datasets import load_dataset
from huggingface_hub import HfApi, snapshot_download
rows = {{
    "jsonl": load_dataset("{ROWS}", "default", split="train", revision="v1").to_list(),
    "csv": load_dataset("{ROWS}", data_files="table.csv", split="train").to_list(),
    "parquet": load_dataset("{ROWS}", data_files="table.parquet", split="train").to_list(),
    "by address": load_dataset("parquet", data_files="hf://datasets/{ROWS}@v1/table.parquet", split="train").to_list(),
}}
api = HfApi()
print(json.dumps({{
    "rows": rows,
    "listed": [each.id for each in api.list_datasets()],
    "models": [each.id for each in api.list_models()],
    "sha": api.dataset_info("{ROWS}").sha,
    "snapshot": snapshot_download("{ROWS}", repo_type="dataset"),
}}))
"""
CARD = "---\nconfigs:\n- config_name: default\n  data_files: data/*.jsonl\n---\n# Selected questions\n"


def written(folder: Path, python: str) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in RECORDS))
    (folder / "table.csv").write_text("question,answer\n2 + 2,4\n3 + 3,6\n")
    subprocess.run([python, "-c", MAKE, json.dumps(RECORDS), str(folder / "table.parquet")], check=True, timeout=120)
    return folder


def run(*words: object) -> dict[str, Any]:
    result = CliRunner().invoke(command, ["--json", *(str(word) for word in words)])
    assert result.exit_code == 0, (result.output, result.exception)
    document: dict[str, Any] = json.loads(result.stdout)
    return document


async def mirrored(name: str) -> bool:
    """Whether each of the three nodes claims and has a complete copy."""
    copies = (await asyncio.to_thread(run, "whereis", name))["replicas"]
    return [each["complete"] and each["claimed"] for each in copies] == [True] * 3


async def test_a_dataset_is_loaded_from_a_mirror_when_its_publishers_node_is_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = await asyncio.to_thread(python_with, *READERS)
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "user"))
    publisher, http = Publisher.generate(), f"127.0.0.1:{free_port()}"
    founded = found(tmp_path / "nodes", 3, namespaces={"tests": publisher.id}, policy=(2, 2))
    first, gateway, third = founded.homes
    gateway.set("gateway", http=http)
    base = release(publisher, await asyncio.to_thread(written, tmp_path / "base", python), f"{BASE}@v1", kind="dataset")
    (tmp_path / "base" / "selection.txt").write_text("each record that a person checked\n")
    made_from = (Parent("finetune", f"{BASE}@v1", base.artifact),)
    rows = release(publisher, tmp_path / "base", f"{ROWS}@v1", kind="dataset", lineage=made_from)
    with contextlib.ExitStack() as stack:
        processes = NodeProcess(first), NodeProcess(gateway, main=WITH_GATEWAY), NodeProcess(third)
        for node in processes:
            stack.enter_context(contextlib.closing(node))
            await node.ready()
        async with first.client() as client:
            for each in (base, rows):
                await send(client, each)
        Client(Home.default()).pin(founded.federation)
        for name in (BASE, ROWS):
            await until(partial(mirrored, f"{name}@v1"), what="the mirrors to have it")
        processes[0].kill()
        await asyncio.to_thread(shutil.rmtree, first.directory)

        pulled = await asyncio.to_thread(run, "pull", f"{ROWS}@v1", "--out", tmp_path / "pulled")
        assert pulled["artifact"] == rows.artifact
        shown = await asyncio.to_thread(run, "show", f"{ROWS}@v1")
        assert (shown["kind"], shown["statements"][0]["lineage"]) == ("dataset", [made_from[0].to_json()])
        lineage = await asyncio.to_thread(run, "lineage", f"{ROWS}@v1")
        assert base.artifact in json.dumps(lineage)
        found_here = json.loads(
            (await Stock(f"http://{http}", tmp_path / "hf", python=python).execute("-c", LOAD)).splitlines()[-1]
        )
    assert found_here["rows"] == dict.fromkeys(("jsonl", "csv", "parquet", "by address"), RECORDS)
    assert (found_here["listed"], found_here["models"]) == ([BASE, ROWS], [])
    assert found_here["sha"] == commit_id(rows.ingested.manifest)
    for path, source in rows.ingested.files.items():
        assert (Path(found_here["snapshot"]) / path).read_bytes() == source.read_bytes()
        assert (tmp_path / "pulled" / path).read_bytes() == source.read_bytes()
