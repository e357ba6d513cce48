"""`comity kit run NAME@VERSION`: pulled from nodes, verified by a policy, and served until it is stopped."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest
from comity.trust.errors import ComityError, NotFound, PolicyNotMet
from comity_cli.commands import kit_run
from comity_cli.commands.kit import command
from comity_client.client import Client
from comity_client.home import Home
from comity_client.kits.check import KitFolder
from comity_client.kits.engine import RunningEngine
from comity_client.kits.install import InstalledKit
from support.fakes import FakeFederation
from support.run_command import refused, run, said
from support.small_kit import WORDS, chat, write_small_kit

NAME = "lab/small-chat@v1"
HERE = InstalledKit(Path(sys.prefix), Path(sys.executable), Path(sys.base_prefix), True, "no network at all")


@pytest.fixture
def policy(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy for a published kit whose wheel is unpacked, so that nothing is installed."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("comity_client.kits.install.install_kit", lambda *_: HERE)
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    owner = client.new_publisher("Lab", "CH", "node-ch.example/log")
    write_small_kit(tmp_path / "kit", others={"engine/small_words.py": WORDS.encode()})
    client.publish(tmp_path / "kit", NAME, publisher=owner, licence="Apache-2.0")
    (tmp_path / "federation.json").write_bytes(client.pins()[0].federation.encode())
    file = tmp_path / "policy.toml"
    file.write_text(
        'schema = "comity/policy/v1"\n[[pin]]\nfile = "federation.json"\n'
        f'[publishers]\naccept = ["{owner.id}"]\n[safety]\nallow = ["wheels/*", "engine/*"]\n'
        '[rows]\nrequire = ["artifact", "bytes", "signatures"]\n'
    )
    return file


def test_a_kit_is_pulled_by_its_name_verified_and_served_until_it_is_stopped(
    tmp_path: Path, federation: FakeFederation, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Path] = []
    show = kit_run._show_served

    def ask_and_stop(out: object, found: KitFolder, running: RunningEngine, cases: object) -> None:
        show(out, found, running, cases)  # type: ignore[arg-type]
        request = urllib.request.Request(f"{running.base_url}/v1/chat/completions", chat("What is two and two?"))
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["choices"][0]["message"]["content"] == "Four."
        served.append(found.folder)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(kit_run, "_show_served", ask_and_stop)
    text = said(command, "run", NAME, "--policy", policy)
    assert f"{NAME}: verified" in text and "self-test: 1 answer as expected" in text and text.endswith("stopped")
    (folder,) = served
    assert folder.is_relative_to(tmp_path / "cache") and (folder / "kit.json").is_file()
    (folder / "engine" / "serve.py").chmod(0o600)
    (folder / "engine" / "serve.py").write_text("import os\n")
    assert f"{NAME}: verified" in said(command, "run", NAME, "--policy", policy), "what was changed is pulled again"
    for node in federation.nodes:
        federation.kill(node.node.record.name)
    assert isinstance(refused(command, "run", "lab/other@v1", "--policy", policy), ComityError)


def test_a_kit_that_nobody_knows_or_the_policy_refuses_is_not_started(
    policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        raise AssertionError("it was started")

    monkeypatch.setattr(kit_run, "_serve", never)
    assert isinstance(refused(command, "run", "lab/other@v1", "--policy", policy), NotFound)
    strict = policy.read_text().replace('allow = ["wheels/*", "engine/*"]', "allow = []")
    policy.write_text(strict.replace('"signatures"]', '"signatures", "file safety"]'))
    assert isinstance(refused(command, "run", NAME, "--policy", policy), PolicyNotMet)
    assert run(command, "run", "lab/small-chat").exit_code == 2
