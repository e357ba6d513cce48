"""The drill of a lab: take away each single party in turn, really, and pull and verify every artifact without it.

A node is killed (SIGKILL) and started again afterwards; its folder stays. DNS and the CA store are taken away by an
empty file system over `/etc`, where both are configured, for the process that pulls. Every pull starts with an empty
cache, by commands of a user in processes of their own. A lab has no hub, no foreign cloud and no publisher's machine to
stop, and no command takes away a clock: for these there is `comity drill` by reasoning.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from comity.trust.errors import Unavailable
from comity.trust.frozen import frozen

from comity_cli.lab import seclusion
from comity_cli.lab.lab import Lab
from comity_cli.output import Output

CONFIGURATION: Final = Path("/etc")
PULL_SECONDS: Final = 600.0


@frozen
class Attempt:
    """One artifact without one party: whether it was pulled, and then verified offline; the reason if not."""

    party: str
    artifact: str
    pulled: bool
    verified: bool
    why: str = ""


@frozen
class LabDrill:
    """A drill of a running lab. `home` is an empty folder for a new user."""

    output: Output
    lab: Lab
    home: Path

    def run(self, references: Sequence[str] = ()) -> list[Attempt]:
        """Try every artifact that the lab holds, or `references`, without each party. All nodes run again at the end.
        Raises Unavailable if the lab does not answer."""
        self._comity("trust", "pin", str(self.lab.federation), "--yes")
        listed = self._document("copies")["artifacts"]
        names = list(references) or [item["name"] or f"sha256:{item['artifact']}" for item in listed]
        attempts: list[Attempt] = []
        try:
            for node in self.lab.nodes:
                self.lab.kill(node)
                attempts += self._attempts(f"{node.name} ({node.jurisdiction})", names, [])
                self.lab.up()
            attempts += self._attempts("DNS and the CA store", names, [CONFIGURATION])
        finally:
            self.lab.up()
        return attempts

    def _attempts(self, party: str, names: Sequence[str], hidden: Sequence[Path]) -> Iterator[Attempt]:
        for name in names:
            with tempfile.TemporaryDirectory(prefix="comity-drill-") as scratch:
                attempt = self._attempt(party, name, Path(scratch) / "model", hidden)
            mark = self.output.mark("✓", "green") if attempt.verified else self.output.mark("✗", "red")
            self.output.say(f"without {party}: {name}{': ' + attempt.why if attempt.why else ''}", sign=f"{mark} ")
            yield attempt

    def _attempt(self, party: str, name: str, folder: Path, hidden: Sequence[Path]) -> Attempt:
        pull = ["pull", name, "--to", str(folder)]
        command = seclusion.hiding(hidden, pull).command if hidden else _command(*pull)
        if why := self._failure(command):
            return Attempt(party, name, False, False, why)
        why = self._failure(_command("verify", str(folder)))
        return Attempt(party, name, True, not why, why)

    def _failure(self, command: Sequence[str]) -> str:
        """Why a command failed; empty if it did not."""
        try:
            ran = self._execute(command)
        except subprocess.TimeoutExpired:
            return f"no end within {PULL_SECONDS:.0f} s"
        said = (ran.stderr or ran.stdout).decode(errors="replace").strip().splitlines()
        return "" if ran.returncode == 0 else f"exit {ran.returncode}: {(said or [''])[0][:200]}"

    def _document(self, *arguments: str) -> Any:
        return json.loads(self._comity(*arguments, "--json"))

    def _comity(self, *arguments: str) -> bytes:
        ran = self._execute(_command(*arguments))
        if ran.returncode:
            why = ran.stderr.decode(errors="replace").strip()[-300:]
            raise Unavailable(f"comity {arguments[0]} failed in the lab", why=why, hint="comity lab status DIR")
        return ran.stdout

    def _execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "COMITY_HOME": str(self.home), "HF_HOME": str(self.home / "hf")}
        environment.pop("HF_HUB_CACHE", None)
        return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=PULL_SECONDS)


def drill_lab(output: Output, directory: Path, references: Sequence[str]) -> list[Attempt]:
    """Run the drill of the lab in `directory`, which is started if it does not run. Raises NotFound, Unavailable."""
    lab = Lab.open(directory)
    lab.up()
    with tempfile.TemporaryDirectory(prefix="comity-drill-") as home:
        return LabDrill(output, lab, Path(home)).run(references)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "comity_cli.main", *arguments]
