"""Two network namespaces with a router between them that can stop forwarding: packets are dropped without an error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from support.tools import missing, needs


@dataclass(frozen=True)
class Divide:
    """The namespaces are `<name>-0`, `<name>-1`, and the router's `<name>-r`."""

    name: str

    @staticmethod
    def address(side: int) -> str:
        """The address at which all nodes of that side listen."""
        return f"10.77.{side}.2"

    def network(self, side: int) -> str:
        """The network namespace of that side."""
        return f"{self.name}-{side}"

    def open(self) -> None:
        self._forward("1")

    def close(self) -> None:
        self._forward("0")

    def _forward(self, value: str) -> None:
        script = f"echo {value} > /proc/sys/net/ipv4/ip_forward"
        _run("ip", "netns", "exec", f"{self.name}-r", "sh", "-c", script)


@contextmanager
def divide() -> Iterator[Divide]:
    """Make the namespaces, connected; they are removed when the block ends. Skips where that is not permitted."""
    needs("ip", unlock="apt-get install iproute2")
    if os.geteuid() != 0:
        missing("named network namespaces are root's; unlock: run the tests as root")
    made = Divide(f"comity-{os.getpid()}")
    router = f"{made.name}-r"
    try:
        _run("ip", "netns", "add", router)
        for side in (0, 1):
            space, near, far = f"{made.name}-{side}", f"near{side}", f"far{side}"
            _run("ip", "netns", "add", space)
            _run("ip", "link", "add", near, "netns", space, "type", "veth", "peer", "name", far, "netns", router)
            _run("ip", "-n", space, "addr", "add", f"{made.address(side)}/24", "dev", near)
            _run("ip", "-n", router, "addr", "add", f"10.77.{side}.1/24", "dev", far)
            for where, device in ((space, "lo"), (space, near), (router, far)):
                _run("ip", "-n", where, "link", "set", device, "up")
            _run("ip", "-n", space, "route", "add", "default", "via", f"10.77.{side}.1")
        made.open()
        yield made
    finally:
        for suffix in ("0", "1", "r"):
            subprocess.run(["ip", "netns", "delete", f"{made.name}-{suffix}"], capture_output=True, check=False)


def _run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{' '.join(command)}: {ran.stderr}"
