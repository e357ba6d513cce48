"""Runs the unmodified Hub client of some environment against an endpoint, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("stock_hub_client.py")


@dataclass(frozen=True)
class Stock:
    """A user of a stock client: where its endpoint is and what it has on its disk (below `folder`).

    `ca` is a certificate file that its HTTP client shall trust, `log` is what the client printed.
    """

    endpoint: str
    folder: Path
    token: str = ""
    python: str = sys.executable
    ca: Path | None = None

    @property
    def hub_cache(self) -> Path:
        return self.folder / "hub"

    async def run(self, steps: Iterable[str], *, patience: float = 120, **request: Any) -> dict[str, Any]:
        """What each step gave. Fails with what the program printed where it did not end well."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HTTP", "http"))}
        environ |= {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.folder),
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        if self.token:
            path = self.folder / "secret-token"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.token)
            environ["HF_TOKEN_PATH"] = str(path)
        if self.ca is not None:
            environ |= {"SSL_CERT_FILE": str(self.ca), "REQUESTS_CA_BUNDLE": str(self.ca)}
        process = await asyncio.create_subprocess_exec(
            self.python,
            str(SCRIPT),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
        )
        given = json.dumps({"steps": list(steps), **request}).encode()
        try:
            async with asyncio.timeout(patience):
                out, err = await process.communicate(given)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, err.decode()[-3000:]
        found: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
        return found | {"stderr": err.decode()}
