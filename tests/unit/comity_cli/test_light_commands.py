"""Which modules the most frequent commands load: a look at a name, at copies or at nodes needs no more than these.

Loading code is most of the cost of such a command. Each runs in a process of its own, beside nodes of this process.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.gateway import front_end
from comity_cli.commands.serve import command as serve
from comity_cli.start import _OWN_THRESHOLDS, COLLECT_AFTER
from comity_client.client import Client
from comity_client.home import Home
from comity_client.node_states import ask_node_states
from comity_client.user import User
from support.fakes import FakeFederation, release

FORBIDDEN = (
    "argparse", "comity.addons.derivation.check", "comity.addons.derivation.commands", "comity.drawing",
    "comity.formats", "comity.hashing", "comity.rules.hardware_evidence",
    "comity.transfer.range_source", "comity.rules.offers", "comity.trust.verify", "comity.upstream", "comity.verifier",
    "comity.wire.audit", "comity.wire.news", "comity.wire.node_status", "comity.wire.offer",
    "comity.wire.server", "comity.wire.upstream",
    "comity_client.charter", "comity_client.client",
    "comity_client.founding", "comity.addons.hardware.pins", "comity_client.node_card",
    "comity_client.node_home", "comity_client.offers",
    "comity_client.publish", "comity_client.pull", "comity_client.reports", "comity_client.scan",
    "comity_client.signing", "cryptography.hazmat.primitives.serialization", "cryptography.x509", "filelock",
    "http.client", "huggingface_hub", "license_expression", "pydantic", "rich", "sqlalchemy", "urllib.request",
)  # fmt: skip
WITHOUT_ARTIFACTS = ("comity.trust.claims", "comity.trust.policy")
"""Modules that a command without a question about an artifact does not need in addition."""
WITHOUT_NODES = (
    "asyncio", "comity.transfer", "comity.v1", "comity.wire", "comity_client.events", "comity_client.session", "google",
    "grpc", "http", "ssl",
)  # fmt: skip
"""Modules that a command that reads only the pins does not need in addition."""
NEEDED = {"trust": "comity.rules.hardware_evidence", "whereis": "comity.wire.audit"}
"""Modules that one of them needs: a subcommand of `trust` takes a kind of hardware by name, and `whereis` asks for
audits.
"""
RUN = """
import sys
from comity_cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("\\n".join(sys.modules), file=sys.stderr)
"""


@pytest.fixture(scope="module", name="home")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's home with a pinned federation that answers, whose checkpoints were seen. The artifact was pulled before,
    into the Hub cache beside the home."""
    folder = tmp_path_factory.mktemp("light")
    federation = FakeFederation()
    with federation.running() as running:
        running.publish(release(folder / "source", {"config.json": b"{}"}, by=running.publisher))
        Client(Home(folder / "home")).pin(running.file())
        ask_node_states(User(Home(folder / "home")))
        (folder / "hub/models--swiss-ai--tiny").mkdir(parents=True)
        yield folder / "home"


@pytest.mark.parametrize("words", ["show swiss-ai/tiny", "whereis swiss-ai/tiny", "status", "trust show"])
def test_a_light_command_loads_only_what_it_needs(home: Path, words: str) -> None:
    environ = {**os.environ, "COMITY_HOME": str(home), "HF_HUB_CACHE": str(home.parent / "hub")}
    command = [sys.executable, "-c", RUN, *words.split()]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    loaded = ran.stderr.split()
    refused = [each for each in FORBIDDEN if each != NEEDED.get(words.split()[0])]
    refused += WITHOUT_ARTIFACTS if words in ("status", "trust show") else ()
    refused += WITHOUT_NODES if words == "trust show" else ()
    found = {name for name in loaded for each in refused if name == each or name.startswith(f"{each}.")}
    assert "comity.trust.keys" in loaded
    assert not found


@pytest.mark.slow
def test_a_node_loads_nothing_that_draws_tables_in_a_terminal() -> None:
    script = (
        "import sys\nfrom comity_cli.node_home import node_installed\n"
        "with node_installed():\n    from comity.gateway import front_end\n"
        "print(*sys.modules)\nimport rich.table"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert {"structlog", "comity.node.app"} <= loaded
    assert not {"rich", "pygments", "attr", "boto3", "huggingface_hub"} & loaded


def test_a_command_seldom_collects_garbage_while_it_loads() -> None:
    script = (
        "import atexit, gc\nfrom comity_cli.start import start\n"
        "atexit.register(lambda: print(gc.get_threshold()[0]))\nstart()"
    )
    ran = subprocess.run([sys.executable, "-c", script, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == str(COLLECT_AFTER)


def test_a_node_collects_garbage_as_python_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "node.toml").touch()
    before, frozen, found = gc.get_threshold(), list[str](), list[tuple[int, ...]]()
    monkeypatch.setattr(front_end, "run", lambda *given: found.append(gc.get_threshold()))
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append("all that is loaded"))
    gc.set_threshold(1_000_000)
    try:
        serve.main(["--node", str(tmp_path)], standalone_mode=False)
    finally:
        gc.set_threshold(*before)
    assert found == [_OWN_THRESHOLDS]
    assert frozen


def test_a_command_that_ends_runs_no_garbage_collection() -> None:
    """The memory ends with the process; the garbage collection takes up to 0.1 s."""
    script = (
        "import atexit, gc\nfrom comity_cli.main import main\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 10_000))\nmain(['--version'])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == "True"
