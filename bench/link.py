"""A slow link: two network namespaces, joined by two TUN devices and a process that passes each packet on later.

Root is needed. TCP sees the link as it sees a real one: handshakes take a round trip, lost packets are lost, and the
first window is small. `python bench/link.py` is the process that is the link; `linked` starts it, and ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ADDRESSES = ("10.77.0.1", "10.77.0.2", "10.77.0.3")
"""Of the near side, the far side, and of nobody."""
TUN_SETTINGS, TUN_WITHOUT_HEADER, SET_TUN = 0x0001, 0x1000, 0x400454CA
PACKET = 65_536
QUEUE = 20_000
"""Packets that wait for the process which is the link: it loses those that it means to lose, and no others."""
TCP, SYN, SYN_AND_ACK = 6, 0x02, 0x12


@dataclass(frozen=True)
class Passed:
    """What went through a link to its far side: bytes with all headers; the same from it; TCP connections that the far
    side began, and packets that were lost, in both directions."""

    received: int
    sent: int
    connections: int
    lost: int

    def since(self, before: Passed) -> Passed:
        return Passed(
            self.received - before.received,
            self.sent - before.sent,
            self.connections - before.connections,
            self.lost - before.lost,
        )


@dataclass(frozen=True)
class Link:
    """A link that runs. `near` and `far` are the names of its namespaces."""

    near: str
    far: str
    process: subprocess.Popen[str]

    def passed(self) -> Passed:
        return Passed(**json.loads(self._told("passed")))

    def delay(self, seconds: float) -> None:
        """Pass packets on after so many seconds from now on, in both directions: a round trip takes twice as long."""
        self._told(f"delay {seconds}")

    def _told(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()


@contextlib.contextmanager
def linked(delay: float, loss: float, *settings: str, mtu: int = 1500) -> Iterator[Link]:
    """A link between two new namespaces.

    Args:
        delay: seconds of each packet.
        loss: chance of each packet.
        settings: of the routes at both ends, in the words of `ip route`.
        mtu: bytes of the largest packet. Large ones cost this machine less; `initcwnd` keeps the first window small.
    """
    names = (f"comity-{os.getpid()}-a", f"comity-{os.getpid()}-b")
    process: subprocess.Popen[str] | None = None
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        command = [sys.executable, __file__, *names, str(delay), str(loss), str(mtu)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for name in names:
            route = ["ip", "route", "replace", "10.77.0.0/24", "dev", "slow0", *settings]
            subprocess.run([*within(name), *route], check=True)
        yield Link(*names, process)
    finally:
        if process is not None:
            process.kill()
            process.wait()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def within(namespace: str) -> list[str]:
    """The words before a command that runs in a namespace."""
    return ["ip", "netns", "exec", namespace]


def _enter(namespace: str) -> None:
    """Move this process into a network namespace."""
    with Path("/var/run/netns", namespace).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


def _tun_device(namespace: str, address: str, mtu: str) -> int:
    """A new device in the namespace, in which this process is afterwards, and its file descriptor."""
    _enter(namespace)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, SET_TUN, struct.pack("16sH", b"slow0", TUN_SETTINGS | TUN_WITHOUT_HEADER))
    up = f"ip link set slow0 up mtu {mtu} txqueuelen {QUEUE}"
    for command in (f"ip addr add {address}/24 dev slow0", up, "ip link set lo up"):
        subprocess.run(command.split(), check=True)
    return device


class _Relay:
    """Passes packets between two devices, and follows orders of standard input until that ends."""

    def __init__(self, devices: Sequence[int], delay: float, loss: float) -> None:
        self._devices = tuple(devices)
        self._delay, self._loss = delay, loss
        self._chance = random.Random(1)
        self._bytes = dict.fromkeys(devices, 0)
        self._connections = self._lost = self._number = 0
        self._waiting: list[tuple[float, int, int, bytes]] = []

    def run(self) -> None:
        while True:
            wait = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            readable, _, _ = select.select([*self._devices, sys.stdin], [], [], wait)
            if sys.stdin in readable:
                line = sys.stdin.readline()
                if not line:
                    return
                print(self._answer(*line.split()), flush=True)
            for device in self._devices:
                if device in readable:
                    self._take(device)
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(self._waiting)
                with contextlib.suppress(BlockingIOError):
                    os.write(device, packet)

    def _take(self, device: int) -> None:
        other = self._devices[1 - self._devices.index(device)]
        with contextlib.suppress(BlockingIOError):
            while packet := os.read(device, PACKET):
                if self._loss and self._chance.random() < self._loss:
                    self._lost += 1
                    continue
                self._number += 1
                self._bytes[other] += len(packet)
                self._connections += device == self._devices[1] and _begins_connection(packet)
                heapq.heappush(self._waiting, (time.monotonic() + self._delay, self._number, other, packet))

    def _answer(self, order: str, seconds: str = "") -> str:
        if order == "delay":
            self._delay = float(seconds)
        near, far = self._devices
        found = {"received": self._bytes[far], "sent": self._bytes[near]}
        return json.dumps({**found, "connections": self._connections, "lost": self._lost})


def _begins_connection(packet: bytes) -> bool:
    """Whether a packet is the first one of a TCP connection over IPv4."""
    header = 4 * (packet[0] & 15)
    return packet[0] >> 4 == 4 and packet[9] == TCP and packet[header + 13] & SYN_AND_ACK == SYN


if __name__ == "__main__":
    *between, each_delay, each_loss, largest = sys.argv[1:]
    opened = [_tun_device(name, address, largest) for name, address in zip(between, ADDRESSES, strict=False)]
    print("ready", flush=True)
    _Relay(opened, float(each_delay), float(each_loss)).run()
