"""A running node inspects what it holds, and tells its operator where a newer scanner finds more."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from comity.content.inspections import INSPECTIONS_FILE, KeptInspections
from comity.formats.inspect import SCANNER_VERSION
from comity.node.maintenance.home_files import add_webhook
from comity.trust.encoding import sha256
from comity.trust.evidence import Inspection
from support.federation import found, serving, until
from support.publisher import Publisher, model, release, send
from support.webhook_receiver import receiving

pytestmark = pytest.mark.slow

PICKLE = pickle.dumps(print)


async def test_what_a_node_holds_is_inspected_and_a_changed_answer_is_an_alert(tmp_path: Path) -> None:
    publisher = Publisher.generate()
    (home,) = found(tmp_path, 1, namespaces={"tests": publisher.id}).homes
    folder = model(tmp_path / "model", weights=100_000)
    (folder / "state.bin").write_bytes(PICKLE)
    ready = release(publisher, folder, "tests/model@v1")
    data = home.directory / "data"
    data.mkdir(exist_ok=True)
    older = KeptInspections(data / INSPECTIONS_FILE, scanner=SCANNER_VERSION - 1)
    older.keep(sha256(PICKLE), "state.bin", Inspection("raw"))
    older.close()
    with receiving(*[204] * 8) as receiver:
        add_webhook(home.directory / "node.toml", "ops", receiver.url, ("alert",), {})
        home.set("webhooks", file="webhooks.toml")
        async with serving(home), home.client() as node:
            await send(node, ready)
            await until(lambda: receiver.got, what="the alert")
            kept = KeptInspections(data / INSPECTIONS_FILE)
            files = {path.name: sha256(path.read_bytes()) for path in folder.iterdir() if path.is_file()}
            await until(lambda: all(kept.kept(digest, name) for name, digest in files.items()), what="every answer")
            answers = {name: kept.kept(digest, name) for name, digest in files.items()}
    (event,) = [json.loads(body) for _, body in receiver.got]
    assert event["type"] == "dev.comity.alert.v1"
    assert event["data"]["alert"] == "file-safety"
    assert "state.bin" in event["data"]["text"] and "pickle" in event["data"]["text"]
    assert answers["state.bin"] == Inspection("pickle", ("pickle",))
    assert answers["weights.bin"] == Inspection("safetensors")
