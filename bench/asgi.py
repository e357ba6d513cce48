#!/usr/bin/env python3
"""ASGI servers for the gateway, in a loop of ours: what a request and a byte cost each of them, plain and over TLS.

On two shared cores the number of requests a second says little. The server's own CPU time says what a request costs,
with any other load on the machine. Answers are the gateway's: a small JSON document, and a long body in parts of
256 KiB. Needs
`pip install uvicorn hypercorn granian httptools`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from harness import show, write
from static_site import _free_port

SERVERS: Final = ("uvicorn h11", "uvicorn httptools", "hypercorn", "granian")
ROUNDS: Final = 2
REQUESTS: Final = 2_000
CONNECTIONS: Final = 8
LENGTH: Final = 1 << 28
PART: Final = bytes(256 * 1024)
SMALL: Final = b'{"id":"tests/model","sha":"' + b"0" * 40 + b'","private":false}'


async def app(scope: dict[str, Any], receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    if scope["type"] != "http":
        return
    large = scope["path"] == "/large"
    length = LENGTH if large else len(SMALL)
    headers = [(b"content-length", b"%d" % length), (b"etag", b'"x"')]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(LENGTH // len(PART) if large else 0):
        await send({"type": "http.response.body", "body": PART, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if large else SMALL})


async def serve(name: str, port: int, certificate: str) -> None:
    """Run one server in this loop until standard input closes; then print how long it took to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(stop.set)), daemon=True).start()
    pem = Path(certificate) if certificate else None
    await {"uvicorn": _uvicorn, "hypercorn": _hypercorn, "granian": _granian}[name.split()[0]](name, port, pem, stop)


async def _uvicorn(name: str, port: int, pem: Path | None, stop: asyncio.Event) -> None:
    import uvicorn

    class Embedded(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    tls: dict[str, Any] = {"ssl_certfile": pem, "ssl_keyfile": pem} if pem else {}
    http = name.split()[1]
    config = uvicorn.Config(
        app, port=port, http=http, ws="none", lifespan="off", log_config=None, access_log=False, **tls
    )
    server = Embedded(config)
    task = asyncio.create_task(server.serve())
    await stop.wait()
    server.should_exit = True
    await task


async def _hypercorn(name: str, port: int, pem: Path | None, stop: asyncio.Event) -> None:
    from hypercorn.asyncio import serve as run
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    if pem:
        config.certfile = config.keyfile = str(pem)
    await run(app, config, shutdown_trigger=stop.wait)


async def _granian(name: str, port: int, pem: Path | None, stop: asyncio.Event) -> None:
    from granian.constants import Interfaces
    from granian.server.embed import Server

    tls = {"ssl_cert": pem, "ssl_key": pem} if pem else {}
    quiet = {"websockets": False, "log_enabled": False, "log_access": False}
    server = Server(app, port=port, interface=Interfaces.ASGINL, **quiet, **tls)
    task = asyncio.create_task(server.serve())
    await stop.wait()
    server.stop()
    await task


@contextlib.contextmanager
def running(name: str, certificate: Path | None) -> Iterator[tuple[int, int]]:
    port = _free_port()
    command = [sys.executable, __file__, name, str(port), str(certificate or "")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{name} did not start")
            time.sleep(0.05)
        yield port, process.pid
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            print(f"{name} did not end by itself")
            process.kill()
            process.wait()


def measure(name: str, certificate: Path | None) -> dict[str, float]:
    with running(name, certificate) as (port, pid):
        _requests(port, certificate, 200)
        before, began = _cpu(pid), time.perf_counter()
        _requests(port, certificate, REQUESTS)
        small, seconds = _cpu(pid) - before, time.perf_counter() - began
        before, began = _cpu(pid), time.perf_counter()
        _download(port, certificate)
        large, streaming = _cpu(pid) - before, time.perf_counter() - began
        return {
            "cpu_us_a_request": 1e6 * small / REQUESTS,
            "requests_a_second": REQUESTS / seconds,
            "cpu_s_a_gib": large * (1 << 30) / LENGTH,
            "mb_per_s": LENGTH / 1e6 / streaming,
            "peak_mib": _peak(pid),
        }


def _requests(port: int, certificate: Path | None, count: int) -> None:
    def client() -> None:
        with _connect(port, certificate) as connection:
            for _ in range(count // CONNECTIONS):
                connection.sendall(b"GET /api/models/tests/model HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n")
                answer = b""
                while not answer.endswith(SMALL):
                    part = connection.recv(65_536)
                    assert part, answer
                    answer += part

    threads = [threading.Thread(target=client) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _download(port: int, certificate: Path | None) -> None:
    buffer = bytearray(1 << 20)
    with _connect(port, certificate) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = 0
        while received < LENGTH:
            received += connection.recv_into(buffer)


def _connect(port: int, certificate: Path | None) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    if certificate is None:
        return connection
    return ssl.create_default_context(cafile=certificate).wrap_socket(connection, server_hostname="127.0.0.1")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    results: dict[str, dict[str, list[dict[str, float]]]] = {"plain": {}, "tls": {}}
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder) / "both.pem"
        request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "30"]
        subprocess.run([*request, *names, "-keyout", pem, "-out", f"{pem}.crt"], check=True, capture_output=True)
        pem.write_bytes(pem.read_bytes() + Path(f"{pem}.crt").read_bytes())
        for _ in range(ROUNDS):
            for way, certificate in (("plain", None), ("tls", pem)):
                for name in SERVERS:
                    results[way].setdefault(name, []).append(found := measure(name, certificate))
                    print(way, name, {key: round(value, 1) for key, value in found.items()}, flush=True)
    tables = {way: {name: _medians(found) for name, found in peers.items()} for way, peers in results.items()}
    for way, table in tables.items():
        print(way)
        show(table)
    versions = {name: importlib.metadata.version(name) for name in ("uvicorn", "hypercorn", "granian", "httptools")}
    write("asgi", versions=versions, rounds=ROUNDS, medians=tables)


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(each[key] for each in found), 2) for key in found[0]}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
    else:
        main()
