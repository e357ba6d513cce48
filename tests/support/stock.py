"""Runs an unmodified Hub client of an environment against an endpoint, in a process of its own.

The client's environment has what `comity env` prints, and nothing of the person who runs the tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity_client.hub_environment import hub_environment, offline_environment
from support.waiting import PATIENCE

SCRIPT = Path(__file__).with_name("stock_hub_client.py")


@dataclass(frozen=True)
class Stock:
    """A user of an unmodified client: its endpoint and its files on the disk (below `folder`). `ca` is a certificate
    file that its HTTP client trusts. Without an endpoint it reads its cache only.
    """

    endpoint: str
    folder: Path
    token: str = ""
    python: str = sys.executable
    ca: Path | None = None

    @property
    def hub_cache(self) -> Path:
        return self.folder / "hub"

    async def run(self, steps: Iterable[str], *, patience: float = PATIENCE, **request: Any) -> dict[str, Any]:
        """The result of each step. Fails with the program's output if it did not succeed."""
        given = json.dumps({"steps": list(steps), **request})
        out, err = await self._execute((str(SCRIPT),), given, patience)
        found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return found | {"stderr": err}

    async def execute(self, *arguments: str, patience: float = 300) -> str:
        """The output of another Python program of that environment. Fails as `run` does."""
        out, _ = await self._execute(arguments, "", patience)
        return out

    async def _execute(self, arguments: tuple[str, ...], given: str, patience: float) -> tuple[str, str]:
        process = await asyncio.create_subprocess_exec(
            self.python,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environ(),
        )
        try:
            async with asyncio.timeout(patience):
                out, err = await process.communicate(given.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, err.decode()[-3000:]
        return out.decode(), err.decode()

    def _environ(self) -> dict[str, str]:
        ours = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HTTP", "http"))}
        if not self.endpoint:
            return offline_environment().applied(ours) | {"HF_HOME": str(self.folder)}
        made = hub_environment(self.endpoint, token_file=self._token_file(), ca=self.ca)
        return made.applied(ours) | {"HF_HOME": str(self.folder)}

    def _token_file(self) -> Path | None:
        if not self.token:
            return None
        path = self.folder / "secret-token"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.token)
        path.chmod(0o600)
        return path
