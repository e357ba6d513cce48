"""A command connects before it is loaded, and uses such a connection only where the verified pin is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comity.wire.channels import PinnedTarget
from comity_cli.start import connecting
from comity_client import early
from comity_client.client import Client
from comity_client.early import EarlyStart, begin
from comity_client.home import Home
from comity_client.user import User
from grpc import ChannelConnectivity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.fakes import FakeFederation, release

NODES = 4
MadeChannels = list[tuple[PinnedTarget, Any]]


@pytest.fixture(scope="module", name="home")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The home of a user who pinned a federation of four nodes that answer."""
    folder = tmp_path_factory.mktemp("early")
    with FakeFederation().running() as running:
        running.publish(release(folder / "source", {"config.json": b"{}"}, by=running.publisher))
        Client(Home(folder / "home")).pin(running.file())
        yield Home(folder / "home")


@pytest.fixture(name="made", autouse=True)
def _made(monkeypatch: pytest.MonkeyPatch) -> MadeChannels:
    """What channels were made for, in order, and the channels."""
    found, make = MadeChannels(), PinnedTarget.make_channel

    def counted(target: PinnedTarget, *given: Any) -> Any:
        found.append((target, make(target, *given)))
        return found[-1][1]

    monkeypatch.setattr(PinnedTarget, "make_channel", counted)
    monkeypatch.setattr(early, "_begun", None)
    return found


def begun_in(trust: Path) -> EarlyStart:
    start = begin(trust)
    assert start is not None
    return start


def test_a_session_takes_the_connections_that_were_begun(home: Home, made: MadeChannels) -> None:
    start = begun_in(home.trust)
    assert len(made) == NODES
    user = User(home, early=start)
    assert user.show("swiss-ai/tiny").title == "swiss-ai/tiny@v1"
    assert len(made) == NODES, "no further connection"
    assert user.show("swiss-ai/tiny").title == "swiss-ai/tiny@v1", "a second session has an event loop of its own"
    assert len(made) == 2 * NODES
    start.close()


def test_an_address_that_is_not_of_the_verified_pin_is_not_used(home: Home, tmp_path: Path, made: MadeChannels) -> None:
    """A file that was changed after it was pinned: the command reads the true one here."""
    for file in home.trust.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    pinned = next(tmp_path.glob("*-*.json"))
    document = json.loads(pinned.read_text())
    first, *others = (node["record"] for node in document["nodes"])
    for node, record in zip(document["nodes"], (*others, first), strict=True):
        node["record"] = record  # each address with the certificate of another node
    pinned.write_text(json.dumps(document))
    start = begun_in(tmp_path)
    assert User(home, early=start).show("swiss-ai/tiny").title == "swiss-ai/tiny@v1"
    targets = [target for target, _ in made]
    assert len(targets) == 2 * NODES and not {*targets[:NODES]} & {*targets[NODES:]}
    start.close()


def test_what_no_command_took_is_closed(home: Home, made: MadeChannels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITY_HOME", str(home.root))
    with connecting(["--json", "show", "swiss-ai/tiny"]):
        start = early.begun()
        assert start is not None and len(made) == NODES
    for _, channel in made:
        assert channel.get_state() is ChannelConnectivity.SHUTDOWN


@pytest.mark.parametrize("words", ["show --help", "trust show", "publish folder", "--version", ""])
def test_a_command_that_asks_nobody_begins_no_connection(
    home: Home, words: str, made: MadeChannels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(home.root))
    with connecting(words.split()):
        assert early.begun() is None
    assert not made


def test_without_pins_no_network_library_is_loaded(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom comity_client.early import begin\n"
        f"print(begin(Path({str(tmp_path)!r})), 'grpc' in sys.modules, 'asyncio' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["None", "False", "False"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("nodes", "open", "record")), inner),
    max_leaves=8,
)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=VALUES, name=st.sampled_from(("pinned.json", "../trust.toml", "missing.json", "")))
def test_no_content_of_a_pinned_file_ends_the_start(tmp_path: Path, document: object, name: str) -> None:
    (tmp_path / "trust.toml").write_text(f"[[pin]]\nfile = {json.dumps(name)}\n")
    (tmp_path / "pinned.json").write_text(json.dumps(document))
    assert begin(tmp_path) is None


@pytest.mark.parametrize("content", [b"\xff", b"pin = 1", b"[[pin]]\nfile = 1", b"x" * 100_000])
def test_no_content_of_the_decisions_ends_the_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trust.toml").write_bytes(content)
    assert begin(tmp_path) is None
