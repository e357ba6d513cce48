"""An engine has no network, no secret and no file of the user, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.content.confinement import landlock_version
from comity.rules.kits.description import Kit
from comity.trust.errors import Unavailable
from comity_client.kits import engine
from comity_client.kits.asking import ask
from comity_client.kits.engine import RunningEngine, running_engine
from comity_client.kits.install import InstalledKit
from comity_client.kits.isolation import NO_NAMESPACE, Isolated, namespace
from support.ports import is_listening
from support.small_kit import WORDS, chat, write_small_kit
from support.waiting import eventually

HERE = InstalledKit(Path(sys.prefix), Path(sys.executable), Path(sys.base_prefix), True, "")
"""The running Python, for kits that bring their wheel unpacked."""
UNPACKED = {"engine/small_words.py": WORDS.encode()}
isolated_only = pytest.mark.skipif(namespace("--net") is None, reason="no network namespace is available here")


def small_kit(folder: Path, mode: str = "good", **what: Any) -> Kit:
    return write_small_kit(folder, mode, others=UNPACKED, **what)


async def seen(running: RunningEngine, path: str) -> Any:
    return json.loads((await ask(running.base_url, "GET", path)).body)


@pytest.mark.netns
@isolated_only
async def test_an_engine_serves_outside_and_sees_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    (tmp_path / "key").write_text("secret")
    kit = small_kit(tmp_path / "kit", environment={"OMP_NUM_THREADS": "1", "HOME": "/root"})
    async with running_engine(tmp_path / "kit", kit, HERE) as running:
        answer = await ask(running.base_url, "POST", "/v1/chat/completions", chat("What is the capital of France?"))
        assert "Paris" in answer.body.decode()
        assert (running.isolated, running.confined) == (True, landlock_version() > 0)
        assert running.proof.startswith("an empty network namespace")
        assert await seen(running, "/network") == "Network is unreachable"
        environment = await seen(running, "/environment")
        assert environment["OMP_NUM_THREADS"] == environment["HF_HUB_OFFLINE"] == "1"
        assert "secret" not in environment.values() and environment["HOME"] != "/root"
        if running.confined:
            assert await seen(running, f"/file{tmp_path / 'key'}") == "Permission denied"
        assert "small-chat" in await seen(running, f"/file{tmp_path / 'kit' / 'kit.json'}")
    with pytest.raises(Unavailable):
        await ask(running.base_url, "GET", "/health")


async def test_without_a_namespace_it_runs_and_says_that_it_has_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "offline", lambda command, **_: Isolated(list(command), NO_NAMESPACE, True))
    kit = small_kit(tmp_path / "kit")
    async with running_engine(tmp_path / "kit", kit, HERE) as running:
        assert (running.isolated, running.proof.startswith(NO_NAMESPACE)) == (False, True)
        assert (await ask(running.base_url, "GET", "/health")).status == 200


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("exit", "it ended with status 3. It said: no weights here"),
        ("silent", "/health did not answer 200 within 1 s"),
        pytest.param("outside", "it looked for something outside", marks=isolated_only),
    ],
)
async def test_an_engine_that_does_not_serve_is_named_with_its_last_words(tmp_path: Path, mode: str, why: str) -> None:
    kit = small_kit(tmp_path / "kit", mode, ready_seconds=1 if mode == "silent" else 60)
    with pytest.raises(Unavailable) as refused:
        async with running_engine(tmp_path / "kit", kit, HERE):
            raise AssertionError("it does not serve")
    assert refused.value.code == "KIT-ENGINE"
    assert why in refused.value.why


async def test_an_engine_that_ends_later_is_told(tmp_path: Path) -> None:
    kit = small_kit(tmp_path / "kit", "dies")
    async with running_engine(tmp_path / "kit", kit, HERE) as running:
        with pytest.raises(Unavailable):
            await ask(running.base_url, "POST", "/v1/chat/completions", chat("?"))
        assert "it ended with status 4" in (await running.ended()).why


async def test_a_port_that_is_taken_and_a_kit_without_a_command_are_refused(tmp_path: Path) -> None:
    kit = small_kit(tmp_path / "kit")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable) as refused:
            async with running_engine(tmp_path / "kit", kit, HERE, port=taken.getsockname()[1]):
                raise AssertionError("it does not serve")
    assert refused.value.code == "KIT-PORT"
    image = {part.path: part for part in kit.parts} | {
        "image/index.json": replace(kit.parts[0], path="image/index.json")
    }
    parts = tuple(image[path] for path in sorted(image, key=str.encode))
    without = replace(kit, parts=parts, engine=replace(kit.engine, command=()))
    with pytest.raises(Unavailable, match="no command"):
        async with running_engine(tmp_path / "kit", without, HERE):
            raise AssertionError("it does not serve")


STARTER = """
import asyncio, os, signal, sys
from pathlib import Path
from comity.rules.kits.description import Kit
from comity_client.kits.engine import running_engine
from comity_client.kits.install import InstalledKit

async def main(folder):
    here = InstalledKit(Path(sys.prefix), Path(sys.executable), Path(sys.base_prefix), True, "")
    async with running_engine(folder, Kit.parse((folder / "kit.json").read_bytes()), here) as running:
        print(running.base_url, flush=True)
        await asyncio.Event().wait()

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what it starts in the background
asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_engine_ends_with_the_process_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    small_kit(tmp_path / "kit")
    command = [sys.executable, "-c", STARTER, str(tmp_path / "kit")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as starter:
        assert starter.stdout is not None
        port = int(starter.stdout.readline().rpartition(":")[2])
        assert is_listening(port)
        os.kill(starter.pid, number)
        starter.wait()
    eventually(lambda: not is_listening(port), bool)


async def test_two_engines_run_beside_each_other(tmp_path: Path) -> None:
    kit = small_kit(tmp_path / "kit")
    async with (
        running_engine(tmp_path / "kit", kit, HERE) as first,
        running_engine(tmp_path / "kit", kit, HERE) as second,
    ):
        answers = await asyncio.gather(*[ask(each.base_url, "GET", "/health") for each in (first, second)])
    assert [answer.status for answer in answers] == [200, 200] and first.base_url != second.base_url
