"""A node with a webhook announces a publication; the receiver fails at first, and the node stops without waiting for
it: its loops first, then what they use.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from comity.node.maintenance.home_files import add_webhook
from comity.node.projection import START, Position
from comity.node.supervisor import Supervisor
from comity.node.webhook_deliveries import EventQueue, Webhooks
from support.federation import found, serving, until
from support.publisher import Publisher, release, send
from support.webhook_receiver import receiving

pytestmark = pytest.mark.slow


def position(folder: Path) -> Position:
    with closing(EventQueue(folder)) as queue:
        return queue.position


async def test_a_publication_reaches_a_receiver_that_failed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []
    stop, close = Supervisor.stop, Webhooks.close

    async def stopped(supervisor: Supervisor) -> None:
        await stop(supervisor)
        ended.append("loops")

    def closed(webhooks: Webhooks) -> None:
        ended.append("webhooks")
        close(webhooks)

    monkeypatch.setattr(Supervisor, "stop", stopped)
    monkeypatch.setattr(Webhooks, "close", closed)
    publisher = Publisher.generate()
    (home,) = found(tmp_path, 1, namespaces={"tests": publisher.id}).homes
    with receiving(503, 204) as receiver:
        add_webhook(home.directory / "node.toml", "ops", receiver.url, ("version",), {})
        home.set("webhooks", file="webhooks.toml")
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{}")
        ready = release(publisher, tmp_path / "model", "tests/model@v1")
        async with serving(home), home.client() as node:
            await until(lambda: position(home.directory / "data") != START, what="the first step")
            await send(node, ready)
            await until(lambda: len(receiver.got) >= 2, what="the event, twice")
    assert ended == ["loops", "webhooks"]
    events = [json.loads(body) for _, body in receiver.got]
    assert {event["subject"] for event in events} == {"tests/model@v1"}
    assert {event["source"] for event in events} == {f"comity://{home.origin}"}
    assert len({event["id"] for event in events}) == 1
