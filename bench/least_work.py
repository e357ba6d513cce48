"""The least that any program does to fetch a file over TLS and know its hashes: two threads, each with one connection.

    python bench/least_work.py HOST PORT PATH SIZE CERTIFICATE INTO

A thread asks for ranges of 4 MiB, receives each MiB into a buffer that it uses again, hashes it once while it is in the
cache of the core, and writes it. Nothing is compared with the hashes, and nothing is synced.
"""

from __future__ import annotations

import hashlib
import os
import queue
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPSConnection
from pathlib import Path

MIB = 1 << 20
RANGE = 4 * MIB
THREADS = 2


def fetch(connection: HTTPSConnection, path: str, starts: queue.SimpleQueue[int], size: int, into: int) -> None:
    view = memoryview(bytearray(MIB))
    while True:
        try:
            start = starts.get_nowait()
        except queue.Empty:
            return
        stop = min(start + RANGE, size)
        connection.request("GET", path, headers={"Range": f"bytes={start}-{stop - 1}"})
        response, hashed, at = connection.getresponse(), hashlib.sha256(), start
        assert response.status == 206
        while at < stop:
            part = view[: min(MIB, stop - at)]
            done = 0
            while done < len(part):
                count = response.readinto(part[done:])
                assert count, "the answer ended early"
                done += count
            hashed.update(part)
            os.pwrite(into, part, at)
            at += len(part)
        assert response.read() == b""


def main(host: str, port: int, path: str, size: int, certificate: Path, target: Path) -> None:
    context = ssl.create_default_context(cafile=certificate)
    starts: queue.SimpleQueue[int] = queue.SimpleQueue()
    for start in range(0, size, RANGE):
        starts.put(start)
    into = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with ThreadPoolExecutor(THREADS) as threads:
        connections = [HTTPSConnection(host, port, context=context) for _ in range(THREADS)]
        work = [threads.submit(fetch, connection, path, starts, size, into) for connection in connections]
        for each in work:
            each.result()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]), Path(sys.argv[6]))
