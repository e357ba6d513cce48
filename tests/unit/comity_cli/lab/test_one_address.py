"""One address for a service: a client keeps its base URL when what is behind it changes, or is gone."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from comity_cli.lab.one_address import one_address
from comity_cli.lab.vendor_stub import ANSWER


@contextmanager
def vendor() -> Iterator[int]:
    """The port of a vendor's stand-in, while the block runs."""
    command = [sys.executable, "-m", "comity_cli.lab.vendor_stub"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def ask(url: str) -> str:
    body = json.dumps({"model": "x", "messages": [{"role": "user", "content": "hello"}]}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", body), timeout=30) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


def test_a_client_keeps_its_base_url_when_the_server_behind_it_changes() -> None:
    with one_address() as address:
        with vendor() as port:
            address.to = port
            assert ask(address.base_url) == ANSWER
        with pytest.raises(OSError):
            ask(address.base_url)
        with vendor() as port:
            address.to = port
            assert ask(address.base_url) == ANSWER


def test_the_stand_in_knows_one_route_only() -> None:
    with vendor() as port, pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/v1/models", b"{}"), timeout=30)
