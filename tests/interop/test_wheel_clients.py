"""Real installers with a node: pip and uv install the wheels of a kit from its gateway, by hash, from nowhere else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from comity.content.gateway_tokens import TOKENS_FILE, TokenFile
from support.gateway import GatewayNode, gateway_node
from support.publisher import model
from support.seeded import seeded_bytes
from support.tools import needs
from support.waiting import PATIENCE
from support.wheels import lock_line, write_wheel

pytestmark = pytest.mark.slow

DATA = seeded_bytes(600_000, "wheel")
Installer = Callable[[Path, "Kit", str], list[str]]


@dataclass(frozen=True)
class Kit:
    """A kit at a gateway: its index and its lock file."""

    index: str
    lock: Path


def pip(target: Path, kit: Kit, url: str) -> list[str]:
    place = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check"]
    return [*place, "--index-url", url, "--require-hashes", "-r", str(kit.lock), "--target", str(target)]


def uv(target: Path, kit: Kit, url: str) -> list[str]:
    place = [needs("uv", unlock="pip install uv"), "pip", "install", "--no-cache", "--python", sys.executable]
    return [*place, "--index-url", url, "--require-hashes", "-r", str(kit.lock), "--target", str(target)]


async def published(node: GatewayNode, folder: Path) -> Kit:
    """One wheel is small, and one so large that the file server has it."""
    wheels = model(folder / "kit", weights=1_000) / "wheels"
    found = [
        write_wheel(wheels, "engine_one", needs=("helper>=2",), data=DATA),
        write_wheel(wheels, "helper", "2.0"),
    ]
    await node.publish(folder / "kit", "tests/kit@v1")
    lock = folder / "requirements.lock"
    lock.write_text("".join(map(lock_line, found)))
    return Kit(f"{node.url}/-/wheels/tests/kit/v1/simple/", lock)


async def run(command: list[str], home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Without settings, caches and indexes of the user who runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_", "COMITY_"))}
    kept = {key: value for key, value in kept.items() if not key.lower().endswith("_proxy")}
    environ: Mapping[str, str] = {**kept, "HOME": str(home), "PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", **more}
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=environ, cwd=home
    )


@pytest.mark.parametrize("installer", [pip, uv])
async def test_an_installer_takes_the_wheels_of_a_kit_by_their_hashes(tmp_path: Path, installer: Installer) -> None:
    async with gateway_node(tmp_path / "node", files="127.0.0.1:0") as node:
        kit = await published(node, tmp_path)
        done = await run(installer(tmp_path / "into", kit, kit.index), tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "into" / "engine_one.bin").read_bytes() == DATA
        assert "helper 2.0" in (tmp_path / "into" / "helper.py").read_text()
        right = kit.lock.read_text()
        kit.lock.write_text(f"{right[:-65]}{'0' * 64}\n")
        wrong = await run(installer(tmp_path / "wrong", kit, kit.index), tmp_path)
        assert wrong.returncode != 0 and not (tmp_path / "wrong" / "helper.py").exists()


@pytest.mark.parametrize("installer", [pip, uv])
async def test_an_installer_gives_its_token_from_netrc_to_a_private_node(tmp_path: Path, installer: Installer) -> None:
    async with gateway_node(tmp_path / "node", public=False, files="127.0.0.1:0") as node:
        kit = await published(node, tmp_path)
        without = await run(installer(tmp_path / "into", kit, kit.index), tmp_path)
        assert without.returncode != 0 and not (tmp_path / "into" / "engine_one.py").exists()
        token, _ = TokenFile(node.home.directory / TOKENS_FILE).add("reader", ("tests/kit",), 0)
        netrc = tmp_path / ".netrc"
        netrc.touch(mode=0o600)
        netrc.write_text(f"machine {urlsplit(node.url).hostname} login me password {token}\n")
        done = await run(installer(tmp_path / "into", kit, kit.index), tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "into" / "engine_one.py").exists()
        assert token not in done.stdout + done.stderr
