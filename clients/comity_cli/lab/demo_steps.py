"""What demos have in common: steps that are timed and said, commands of users as separate processes, and waiting.

Every step runs the commands of a user and then checks their results. A step whose check fails raises; every printed
success was checked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Unavailable

from comity_cli.lab.lab import SEATS, LabNode
from comity_cli.output import Output

SPREAD_SECONDS: Final = 120.0
SHOWN_STATUSES: Final = (0, 5, 8)
"""Exit statuses with which `comity status` has shown the nodes; while they copy, some lack or are short of copies."""


@dataclass
class DemoSteps:
    """The steps of one run, in `directory`: a publisher and users, each with its own home."""

    output: Output
    directory: Path
    steps: list[dict[str, Any]] = field(default_factory=list, kw_only=True)

    @property
    def publisher_home(self) -> Path:
        return self.directory / "publisher"

    @property
    def user_home(self) -> Path:
        return self.directory / "user"

    def _new_publisher(self) -> Digest:
        arguments = ("publisher", "new", "demo-lab", "--jurisdiction", "CH", "--home", f"{SEATS[0][0]}/log")
        return Digest(self._comity(self.publisher_home, *arguments)["id"])

    def _copied(self, reference: str, nodes: Sequence[LabNode]) -> bool:
        """Return whether each of `nodes` signed a full-copy claim and also answers with a full copy."""
        replicas = self._comity(self.publisher_home, "whereis", reference)["replicas"]
        full = {replica["node"] for replica in replicas if replica["claimed"] and replica["complete"]}
        return {node.name for node in nodes} <= full

    def _cosigned(self, origin: LabNode, nodes: Sequence[LabNode], size_: int) -> bool:
        """Return whether each of `nodes` cosigned a checkpoint of `origin`'s log with at least `size_` entries. A
        cosigner has every entry before it signs."""
        states = self._comity(self.publisher_home, "status", expected=SHOWN_STATUSES)["nodes"]
        state = next(state for state in states if state["name"] == origin.name)
        cosigners = {name.partition("/")[0] for name in state["cosigners"]}
        return (state["size"] or 0) >= size_ and {node.name for node in nodes} <= cosigners

    def _wait_until(self, condition: Callable[[], bool], failure: str) -> None:
        deadline = time.monotonic() + SPREAD_SECONDS
        while time.monotonic() < deadline:
            if condition():
                return
            time.sleep(0.3)
        raise Unavailable(failure, why=f"within {SPREAD_SECONDS:.0f} s", hint="see node.log in each node's folder")

    def _comity(self, home: Path, *arguments: str, expected: Collection[int] = (0,)) -> Any:
        """Run a `comity` command with `--json` and return its document. Raises the error of the command, if it ends
        with another status than one of `expected`."""
        command = [sys.executable, "-m", "comity_cli.main", *arguments, "--json"]
        return json.loads(self._execute(command, home, expected=expected))

    def _execute(
        self, command: Sequence[str], home: Path, *, show: bool = False, expected: Collection[int] = (0,)
    ) -> bytes:
        visible = show and not (self.output.as_json or self.output.quiet)
        pipe = None if visible else subprocess.PIPE
        ran = subprocess.run(command, env=self._environment(home), stdout=pipe, stderr=pipe, check=False)
        if ran.returncode not in expected:
            raise _command_error(command, ran)
        return ran.stdout or b""

    def _environment(self, home: Path) -> Mapping[str, str]:
        return {**os.environ, "COMITY_HOME": str(home)}

    @contextmanager
    def _step(self, title: str, proves: str) -> Iterator[Callable[[str], None]]:
        number = len(self.steps) + 1
        record: dict[str, Any] = {"step": number, "title": title, "proves": proves, "said": []}
        self.steps.append(record)
        self.output.say(f"\n{number}. {title}\n   proves: {proves}")
        started = time.monotonic()

        def say(text: str) -> None:
            record["said"].append(text)
            self.output.say(f"   {text}")

        yield say
        record["seconds"] = round(time.monotonic() - started, 2)
        self.output.say(f"{record['seconds']} s", sign=f"   {self.output.mark('✓', 'green')} ")


def _command_error(command: Sequence[str], ran: subprocess.CompletedProcess[bytes]) -> ComityError:
    what = f"comity {' '.join(command[command.index('comity_cli.main') + 1 :] if 'comity_cli.main' in command else [])}"
    error = ComityError(f"{what[:200]} failed", why=f"exit {ran.returncode}")
    try:
        body = json.loads(ran.stdout)["error"]
        error = ComityError(body["what"], why=body["why"], hint=body["try"], code=body["code"])
    except (TypeError, ValueError, KeyError):
        error.why += f": {(ran.stderr or b'').decode(errors='replace').strip()[-400:]}"
    error.exit_status = ran.returncode
    return error
