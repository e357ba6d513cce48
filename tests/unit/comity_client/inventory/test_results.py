"""Differences are posted, signed and bounded; a receiver that refuses or hangs costs a bounded number of attempts."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from comity.trust.errors import Malformed, Refused, Unavailable
from comity.webhook_requests import signature
from comity_client import webhook_events
from comity_client.inventory.inventory import MAX_LISTED, InventoryDifference
from comity_client.inventory.results import event_of, metrics_text
from comity_client.webhook_events import PAUSES, WebhookReceiver, deliver
from support.inventories import TINY, an_inventory
from support.webhook_receiver import receiving

KEY = bytes(range(32))
TOLD = (InventoryDifference("warned", "/srv/m", "swiss-ai/tiny@v1: yanked", TINY),)
EVENT = event_of(an_inventory(), TOLD)


def sent(url: str) -> list[float]:
    """The pauses before the attempts."""
    pauses = list[float]()
    deliver(WebhookReceiver(url, KEY), EVENT, sleep=pauses.append)
    return pauses


def test_an_event_is_signed_and_says_what_is_different() -> None:
    with receiving() as receiver:
        assert sent(receiver.url) == [0.0]
    ((headers, body),) = receiver.got
    assert headers["webhook-signature"] == signature(
        KEY, headers["webhook-id"], int(headers["webhook-timestamp"]), body
    )
    document = json.loads(body)
    assert (document["specversion"], document["source"]) == ("1.0", "urn:comity:inventory:ward-3")
    assert document["data"]["differences"] == [each.to_json() for each in TOLD]
    assert document["data"]["counts"] == {"warned": 1}


def test_a_receiver_that_fails_first_gets_the_same_event_again() -> None:
    with receiving(500, 204) as receiver:
        assert sent(receiver.url) == list(PAUSES[:2])
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_receiver_that_refuses_is_asked_a_bounded_number_of_times_and_nowhere_else(status: int) -> None:
    with receiving(status) as receiver, pytest.raises(Unavailable, match=f"status {status}"):
        sent(receiver.url)
    assert len(receiver.got) == len(PAUSES)


@pytest.fixture(name="hanging")
def _hanging() -> Iterator[str]:
    """The URL of a receiver that accepts connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_a_receiver_that_answers_nothing_is_left(hanging: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_events, "SECONDS", 0.05)
    with pytest.raises(Unavailable) as failed:
        sent(hanging)
    assert failed.value.code == "WEBHOOK"


def test_an_event_has_a_bounded_size_and_the_most_urgent_differences() -> None:
    many = (*TOLD, *(InventoryDifference("new", f"/srv/{number}", "") for number in range(2 * MAX_LISTED)))
    data = json.loads(event_of(an_inventory(), many))["data"]
    assert len(data["differences"]) == MAX_LISTED and data["differences"][0]["kind"] == "warned"
    assert data["counts"] == {"warned": 1, "new": 2 * MAX_LISTED}


def test_a_secret_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    file.chmod(0o644)
    with pytest.raises(Refused):
        WebhookReceiver.of("https://a.example/", file)
    file.chmod(0o600)
    assert WebhookReceiver.of("https://a.example/", file).key == KEY
    for url, text in (("http://a.example/", file.read_text()), ("https://a.example/", "hunter2")):
        file.write_text(text)
        with pytest.raises(Malformed):
            WebhookReceiver.of(url, file)


def test_metrics_have_no_label_of_an_artifact_and_count_everything() -> None:
    made = an_inventory()
    text = metrics_text(replace(made, undelivered=TOLD), TOLD)
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['comity_inventory_files{known="artifact"}'] == "2"
    assert values['comity_inventory_artifacts{verdict="refused"}'] == values["comity_inventory_warned_artifacts"] == "1"
    assert values['comity_inventory_differences{kind="warned"}'] == "1"
    assert values['comity_inventory_folders{state="changed"}'] == "1"
    assert values["comity_inventory_undelivered_differences"] == values["comity_inventory_unread_paths"] == "1"
    assert values["comity_inventory_taken_timestamp_seconds"] == str(made.taken)
    assert "tiny" not in text and text.endswith("\n")
