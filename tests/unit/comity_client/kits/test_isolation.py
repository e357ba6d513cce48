"""A command in an empty network namespace reaches nothing; where there is none, nobody is told that it does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from comity_client.kits import isolation
from comity_client.kits.isolation import EMPTY_NETWORK, NO_NAMESPACE, namespace, offline

INTERFACES = [sys.executable, "-c", "import socket; print(*[name for _, name in socket.if_nameindex()])"]


@pytest.fixture(autouse=True)
def _asked_again() -> Iterator[None]:
    namespace.cache_clear()
    yield
    namespace.cache_clear()


@pytest.mark.netns
@pytest.mark.parametrize("processes", [False, True])
def test_a_command_without_a_network_has_its_own_loopback_alone(processes: bool) -> None:
    isolated = offline(INTERFACES, processes=processes)
    if isolated.network:
        pytest.skip("no network namespace is available here")
    assert isolated.proof == EMPTY_NETWORK
    assert subprocess.run(isolated.command, capture_output=True, text=True, check=True).stdout.split() == ["lo"]


@pytest.mark.parametrize("missing", ["unshare", "linux", "rights"])
def test_a_system_without_namespaces_is_said_to_keep_the_network(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "unshare":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    elif missing == "linux":
        monkeypatch.setattr(isolation.sys, "platform", "darwin")  # type: ignore[attr-defined]
    else:
        monkeypatch.setattr(shutil, "which", lambda name: "/bin/false")
    isolated = offline(INTERFACES)
    assert (isolated.command, isolated.proof, isolated.network) == (INTERFACES, NO_NAMESPACE, True)
