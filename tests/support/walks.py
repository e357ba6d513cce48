"""A user at a shell, with `comity` and the other programs that a page needs on the PATH, in a folder beside a running
lab.

Forked processes do the work of `comity` (`support.command_server`), unless the installed program is asked for. Programs
that cannot run here (servers of models, container engines) are replaced by one that exits with 0. `comity serve` is
started in the background, `comity import hf:…` asks the Hub of the tests, and every question is answered with yes. All
other commands are the real programs.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from comity_cli.lab.lab import Lab
from comity_client.client import Client
from comity_client.home import Home
from support.command_server import command_server, lab_nodes_are_forked
from support.hub_like import HubLike
from support.officers import wait_for
from support.tools import missing, needs
from support.waiting import PATIENCE, eventually
from support.weights import safetensors

STOOD_IN_FOR = ("docker", "llama-server", "ollama", "vllm")
COMITY = Path(sys.executable).with_name("comity")
ENDED: Final = "the command ended with status"
_WRAPPER = """#!/bin/bash
case "$1 $2" in
  "serve --dir" | "serve --node")
    log=$(mktemp); {comity} "$@" >"$log" 2>&1 </dev/null &
    while kill -0 $! 2>/dev/null; do grep -q listening "$log" && exit 0; sleep 0.1; done; cat "$log"; exit 1 ;;
  "import hf:"*) exec {comity} "$@" {hub} ;;
  *) exec {comity} "$@" < <(yes) ;;
esac
"""


@dataclass(frozen=True)
class Ran:
    """The exit status of a command, and its whole output."""

    command: str
    status: int
    said: str


@dataclass
class Person:
    """`folder` is the current folder, `state` the folder of the user's programs.

    Attributes:
        instead: what they type for a word of a page that stands for something, such as an id.
        installed: whether `comity` is the installed program, started again each time.
    """

    folder: Path
    state: Path
    hub: HubLike | None = None
    instead: dict[str, str] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)
    within: tuple[str, ...] = ()
    installed: bool = False

    def __post_init__(self) -> None:
        comity = COMITY if self.installed else command_server().comity
        programs = self.state / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        asked = f"--endpoint {self.hub.url} --allow-host {self.hub.cdn.removeprefix('http://')}" if self.hub else ""
        _program(programs / "comity", _WRAPPER.format(comity=comity, hub=asked))
        for name in STOOD_IN_FOR:
            self.has_program(name, 'echo "stood in for: $0 $*"')

    def has_program(self, name: str, script: str) -> None:
        """Put a program that runs lines of a shell before all others on the PATH."""
        _program(self.state / "bin" / name, f"#!/bin/sh\n{script}\n")

    @property
    def environ(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HTTP", "http"))}
        return kept | {
            "PATH": f"{self.state / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COMITY_HOME": str(self.state / "comity"),
            "HF_HOME": str(self.state / "hf"),
            "COLUMNS": "80",
            "NO_COLOR": "1",
            **self.more,
        }

    def types(self, script: str) -> Ran:
        """Run lines in one shell that ends at the first failure."""
        script = self.meant(script)
        process = self._shell("-c", f"set -eo pipefail\n{script}", stdin=subprocess.DEVNULL)
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            said = f"(did not end within {PATIENCE:.0f} s)"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the nodes that it started, too
        return Ran(script, process.returncode, said)

    def meant(self, script: str) -> str:
        """Lines of a page with what this person types instead of some words."""
        for word, other in self.instead.items():
            script = script.replace(word, other)
        return script

    def _shell(self, *arguments: str, stdin: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.within, "bash", *arguments],
            cwd=self.folder,
            env=self.environ,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @contextlib.contextmanager
    def terminal(self) -> Iterator[Terminal]:
        """A shell that stays, with the nodes that were started in it, until the block ends and all are killed."""
        shell = self._shell(stdin=subprocess.PIPE)
        try:
            yield Terminal(self, shell)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.communicate()

    def does(self, script: str) -> str:
        """As `types`; fails if a line fails."""
        return _done(self.types(script))

    def does_at_last(self, script: str) -> str:
        """As `does`, for a line that fails until a node has received what another node was told."""
        ran = [self.types(script)]

        def done() -> bool:
            if ran[-1].status:
                ran.append(self.types(script))
            return ran[-1].status == 0

        wait_for(done, f"{ran[0].command} to succeed; at first it said {ran[0].said}")
        return ran[-1].said


@dataclass(frozen=True)
class Terminal:
    """One shell of a person, to which they type line after line."""

    person: Person
    shell: subprocess.Popen[str]

    def types(self, line: str) -> Ran:
        assert self.shell.stdin is not None and self.shell.stdout is not None
        line = self.person.meant(line)
        self.shell.stdin.write(f'{{ {line}\n}} </dev/null; printf "\\n{ENDED} %s\\n" $?\n')
        self.shell.stdin.flush()
        said = list[str]()
        for shown in self.shell.stdout:
            if shown.startswith(ENDED):
                return Ran(line, int(shown.split()[-1]), "".join(said))
            said.append(shown)
        raise AssertionError(f"the shell ended: {line}\n{''.join(said)}")

    def does(self, line: str) -> str:
        """As `types`; fails if the line fails."""
        return _done(self.types(line))


def _done(ran: Ran) -> str:
    assert ran.status == 0, f"{ran.command}\nexit {ran.status}\n{ran.said}"
    assert "Traceback" not in ran.said, ran.said
    return ran.said


def cut_off(prepare: str = "true") -> tuple[str, ...]:
    """The prefix of a command that runs it in an empty network: it reaches its own loopback, and there is no route.

    Args:
        prepare: a command of a shell that runs there before, as root of new namespaces. Skips where there are none.
    """
    unshare, ip = needs("unshare", unlock="apt-get install util-linux"), needs("ip", unlock="apt-get install iproute2")
    spaces = ("--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child")
    prefix = (unshare, *spaces, "sh", "-c", f'{ip} link set lo up && {prepare} && exec "$@"', "sh")
    ran = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if ran.returncode:
        missing(f"no network namespace can be made here ({ran.stderr.strip()}); unlock: user namespaces, or root")
    return prefix


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@contextlib.contextmanager
def lab(folder: Path, namespace: str = "demo") -> Iterator[tuple[Lab, Client]]:
    """A running lab in which the charter binds the namespace, and the client of its publisher."""
    client = Client(Home(folder / "publisher"))
    maker = client.new_publisher("Demo lab", "CH", "node-ch/log")
    made = Lab.create(folder / "lab", {namespace: maker.inception.id})
    with lab_nodes_are_forked(command_server()):
        made.up(end_with_parent=True)
    try:
        client.pin(made.federation)
        yield made, client
    finally:
        made.down()


def spread(client: Client, folder: Path, *names: str, count: int = 4) -> None:
    """Return once each of these can be pulled with the default policy, and `count` nodes of the lab hold it."""
    for name in names:
        eventually(lambda named=name: client.pull(named, to=folder / named), bool)  # type: ignore[misc]  # mypy infers no default
        eventually(
            lambda named=name: [found.node for found in client.whereis(named) if found.complete],  # type: ignore[misc]  # as above
            lambda holders: len(holders) == count,
        )


def small_model(folder: Path, text: str = "tiny", size: int = 2000) -> Path:
    """A folder shaped like a model."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(safetensors({"embedding": (text.encode() * size)[:size], "head": b"1"}))
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}\n')
    (folder / "README.md").write_text(f"# {text}\n")
    return folder


def found_ids(said: str) -> list[str]:
    """Ids of eight or more hex digits in what a command printed, in order."""
    return re.findall(r"\b[0-9a-f]{8,64}\b", said)
