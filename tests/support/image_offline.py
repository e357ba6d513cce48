"""A program for an empty network namespace: it serves a kit at a gateway, and stock clients take its image and run it.

    python -m support.image_offline KIT SCRATCH

The kit is pulled too. It prints how the container was run, and fails at the first thing that is not as it should be.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import urlopen

from comity.federation_file import Federation
from comity.trust.policy import DEFAULT_REQUIRED, Policy, SafetyRule
from comity_client.client import Client
from comity_client.home import Home
from comity_client.kits.asking import ask_cases
from comity_client.kits.check import KitFolder
from support.forked import CLONE_NEWNET
from support.gateway import GatewayNode, gateway_node
from support.waiting import PATIENCE

RUNTIMES: Final = ((), ("--runtime", "runc", "--cgroup-manager", "cgroupfs"))
"""As podman is installed; and as it runs where no systemd manages the control groups."""
NO_RUNTIME: Final = 77
"""The exit status where no container can be run."""
PORT: Final = 8080


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def blobs(layout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}


def pull(node: GatewayNode, folder: Path) -> None:
    """Pull the kit by a policy that accepts its programs, as a person who pinned the federation of the node."""
    federation = Federation.parse((node.home.directory / "federation.json").read_bytes())
    client = Client(Home(folder.with_name("person")))
    client.pin(federation)
    required = tuple(row for row in DEFAULT_REQUIRED if row != "cosigners")  # of one member there are none
    programs = SafetyRule(paths=("engine/*", "image/*", "wheels/*"))
    policy = Policy(pins=(federation.body,), safety=programs, require=required)
    client.pull("tests/kit@v1", to=folder, policy=policy)


async def take(kit: Path, scratch: Path, podman: Sequence[str]) -> str:
    """Install the wheels, copy and pull the image from a gateway, and load it from the folder that was pulled and from
    an archive; returns its id."""
    (item,) = json.loads((kit / "image" / "index.json").read_bytes())["manifests"]
    async with gateway_node(scratch / "node") as node:
        await node.publish(kit, "tests/kit@v1")
        await asyncio.to_thread(pull, node, scratch / "kit")
        index = ("--index-url", f"{node.url}/-/wheels/tests/kit/v1/simple/", "--no-cache-dir", "--require-hashes")
        lock = ("-r", str(kit / "requirements.lock"), "--target", str(scratch / "installed"))
        await asyncio.to_thread(run, sys.executable, "-m", "pip", "--isolated", "install", *index, *lock)
        reference = f"{urlsplit(node.url).netloc}/tests/kit/image:v1"
        copy = ("skopeo", "copy", "--preserve-digests", "--src-tls-verify=false", f"docker://{reference}")
        await asyncio.to_thread(run, *copy, f"oci:{scratch / 'copied'}:v1")
        assert blobs(scratch / "copied") == blobs(kit / "image")
        await asyncio.to_thread(run, *copy, f"oci-archive:{scratch / 'image.tar'}:kit")
        await asyncio.to_thread(run, *podman, "pull", "--tls-verify=false", reference)
    (pulled,) = json.loads(run(*podman, "image", "inspect", reference))
    assert pulled["Digest"] == item["digest"]
    run(*podman, "load", "--input", str(scratch / "image.tar"))
    run(*podman, "load", "--input", str(scratch / "kit" / "image"))
    assert {each["Id"] for each in json.loads(run(*podman, "images", "--format", "json"))} == {pulled["Id"]}
    return str(pulled["Id"])


@contextmanager
def container(kit: Path, image: str, podman: Sequence[str]) -> Iterator[int]:
    """The engine in a container that has no network and may write nothing; the id of its process."""
    for runtime in RUNTIMES:
        options = ("--network=none", "--read-only", "--cap-drop=all", "--volume", f"{kit / 'weights'}:/kit/weights:ro")
        command = [*podman, *runtime, "run", "--detach", "--name", "engine", *options, image]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        if done.returncode == 0:
            print(" ".join(command))
            try:
                yield int(json.loads(run(*podman, *runtime, "inspect", "engine"))[0]["State"]["Pid"])
            finally:
                run(*podman, *runtime, "rm", "--force", "--time", "1", "engine")
            return
        print(done.stderr, file=sys.stderr)
        subprocess.run([*podman, *runtime, "rm", "--force", "engine"], capture_output=True, check=False)
    sys.exit(NO_RUNTIME)


def answers(url: str) -> bool:
    try:
        with urlopen(url) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def ask(found: KitFolder) -> None:
    """Ask the self-test, from the network that this thread is in."""
    url, engine = f"http://127.0.0.1:{PORT}", found.kit.engine
    async with asyncio.timeout(engine.ready_seconds):
        while not await asyncio.to_thread(answers, url + engine.ready):
            await asyncio.sleep(0.2)
    results = await ask_cases(url, found.cases("selftest.json").cases)
    assert not results.failed, results.failed
    print(f"{results.passed} answers as expected")


def main(kit: Path, scratch: Path) -> None:
    storage = ("--root", str(scratch / "root"), "--runroot", str(scratch / "run"), "--storage-driver", "vfs")
    podman = ("podman", *storage)
    image = asyncio.run(take(kit, scratch, podman))
    with container(scratch / "kit", image, podman) as process:
        space = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
        assert ctypes.CDLL(None, use_errno=True).setns(space, CLONE_NEWNET) == 0, ctypes.get_errno()
        asyncio.run(ask(KitFolder.read(kit)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
