"""One file from links of different rates, far away, beside plain streams over the same links.

    python bench/uneven.py [--rounds 5] [--mb 40 150] [--rates 40 20 10] [--rtt 150] [--loss 0.01]
                           [--congestion cubic] [--mtu 9000]

    plain streams    four curls a link, at all links at once; seconds are those of the file at the sum of their rates
    fetch_file       HTTPS ranges from the same servers, pieces and whole file verified
    with a liar      the same with one more server, behind a link of 20 Mbit/s, that serves other bytes

As root on Linux: each server is an nginx in its own network namespace, and `../shared/tools/relay.py` moves the packets
between them with rate, delay and loss. Everything is in namespaces of this process, nothing outside it changes.
Besides seconds, the bytes that came twice, and wrong ones from the liar, as the transfer counts them (load does not
change these much), and all bytes that the interface of the receiver got.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from comity.rules.pieces import fixed_pieces
from comity.transfer.fetch import FetchOptions, FetchResult, fetch_file
from comity.transfer.pieces import WantedFile
from comity.transfer.range_source import RangeSource
from comity.transfer.sources import SourceKey
from comity.trust.artifact import PIECE_SIZE, PieceRecord
from comity.trust.encoding import Digest, sha256
from comity.wire.blob import BlobLocation
from comity.wire.tls import CertificatePin
from harness import write

RELAY = Path(__file__).parent.parent.parent / "shared" / "tools" / "relay.py"
LIAR_MBIT = 20.0
RECEIVER_MBIT = 1000.0
STREAMS = 4
SETTLE = 0.5
"""Seconds in which what is still under way arrives, before the bytes of the interface are counted."""
CONFIG = """\
user root; worker_processes 1; daemon off; pid {root}/nginx.pid; error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; types {{ }} default_type application/octet-stream;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  server {{ listen {address}:443 ssl; ssl_certificate {keys}/tls.pem; ssl_certificate_key {keys}/tls.key;
    location / {{ root {root}/files; }} }}
}}
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--mb", type=int, nargs="+", default=[40, 150])
    options.add_argument("--rates", type=float, nargs="+", default=[40.0, 20.0, 10.0], help="Mbit/s")
    options.add_argument("--rtt", type=float, default=150.0, help="milliseconds")
    options.add_argument("--loss", type=float, default=0.01, help="of packets, each way")
    options.add_argument("--mtu", type=int, default=9000, help="bytes of a packet; large ones cost this machine less")
    options.add_argument("--congestion", help="congestion control of TCP at all ends; default: that of this machine")
    options.add_argument("--keep", default="", help="the name of the result file; none by default")
    options.add_argument("--receive", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.receive:
        receive(Path(chosen.receive), chosen)
    elif "COMITY_BENCH_NAMESPACE" not in os.environ:
        os.environ["COMITY_BENCH_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--net", sys.executable, *sys.argv])
    else:
        serve(chosen)


def serve(chosen: argparse.Namespace) -> None:
    """Make links and servers, and run the receiver in its namespace."""
    with tempfile.TemporaryDirectory(prefix="comity-bench-", dir="/dev/shm") as scratch:
        root = Path(scratch)
        for size in chosen.mb:
            (root / f"{size}.bin").write_bytes(random.Random(size).randbytes(size * 1_000_000))
        keys(root)
        rates = [*chosen.rates, LIAR_MBIT, RECEIVER_MBIT]
        with links(rates, chosen), contextlib.ExitStack() as servers:
            for number in range(1, len(rates)):
                servers.enter_context(server(root, number, lies=number == len(chosen.rates) + 1))
            time.sleep(SETTLE)
            inside = ["ip", "netns", "exec", f"m{len(rates)}", sys.executable, *sys.argv, "--receive", scratch]
            subprocess.run(inside, check=True)


@contextlib.contextmanager
def links(rates: Sequence[float], chosen: argparse.Namespace) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run/netns"], check=True)
    for number in range(1, len(rates) + 1):
        subprocess.run(["ip", "netns", "add", f"m{number}"], check=True)
    given = [str(len(rates)), ",".join(map(str, rates)), str(chosen.rtt / 2), str(chosen.loss)]
    environ = {**os.environ, "MTU": str(chosen.mtu)}
    relay = subprocess.Popen([sys.executable, str(RELAY), *given], stdout=subprocess.PIPE, text=True, env=environ)
    try:
        assert relay.stdout is not None and relay.stdout.readline().strip() == "up"
        for number in range(1, len(rates) + 1 if chosen.congestion else 1):
            route = ["ip", "route", "replace", "10.77.0.0/24", "dev", "tun0", "src", address(number)]
            inside = ["ip", "netns", "exec", f"m{number}", *route, "congctl", chosen.congestion]
            subprocess.run(inside, check=True)
        yield
    finally:
        relay.terminate()
        relay.wait()


def keys(root: Path) -> None:
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    outputs = ["-subj", "/CN=localhost", "-days", "30", "-keyout", str(root / "tls.key"), "-out", str(root / "tls.pem")]
    subprocess.run([*request, *outputs], check=True, capture_output=True)


@contextlib.contextmanager
def server(root: Path, number: int, *, lies: bool) -> Iterator[None]:
    home = root / f"server-{number}"
    (home / "files").mkdir(parents=True)
    for source in root.glob("*.bin"):
        if lies:
            wrong = bytearray(source.read_bytes())
            for at in range(0, len(wrong), PIECE_SIZE):
                wrong[at] ^= 0xFF
            (home / "files" / source.name).write_bytes(wrong)
        else:
            (home / "files" / source.name).symlink_to(source)
    (home / "nginx.conf").write_text(CONFIG.format(root=home, keys=root, address=address(number)))
    program = ["nginx", "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")]
    process = subprocess.Popen(["ip", "netns", "exec", f"m{number}", *program])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def address(number: int) -> str:
    return f"10.77.0.{number}"


def receive(root: Path, chosen: argparse.Namespace) -> None:
    """Run all peers in turns, once uncounted; print and write what they took."""
    rows: dict[str, list[dict[str, float]]] = {}
    load = os.getloadavg()[0]
    for size in chosen.mb:
        data = (root / f"{size}.bin").read_bytes()
        want = wanted(data)
        for round_number in range(chosen.rounds + 1):
            for name, row in (
                ("plain streams", plain(root, size, chosen.rates)),
                ("fetch_file", fetched(root, size, want, len(chosen.rates))),
                ("with a liar", fetched(root, size, want, len(chosen.rates) + 1)),
            ):
                print(size, name, json.dumps(row), flush=True)
                if round_number:
                    rows.setdefault(f"{size} MB, {name}", []).append(row)
    table = {name: summary(found) for name, found in rows.items()}
    for name, figures in table.items():
        base = table[name.partition(",")[0] + ", plain streams"]["seconds"]["median"]
        figures["ratio"] = round(base / figures["seconds"]["median"], 3)
        print(name, json.dumps(figures))
    if chosen.keep:
        link = {"mbit": chosen.rates, "liar_mbit": LIAR_MBIT, "rtt_ms": chosen.rtt, "loss": chosen.loss}
        link |= {"congestion": chosen.congestion, "mtu": chosen.mtu}
        write(chosen.keep, rounds=chosen.rounds, load_before=load, links=link, peers=table)


def wanted(data: bytes) -> WantedFile:
    hashes = [hashlib.sha256(data[at : at + PIECE_SIZE]).digest() for at in range(0, len(data), PIECE_SIZE)]
    records = [PieceRecord(length, found) for length, found in zip(fixed_pieces(len(data)), hashes, strict=True)]
    return WantedFile(sha256(data), len(data), records)


def plain(root: Path, size: int, rates: Sequence[float]) -> dict[str, float]:
    """The links end at about the same time; each has a rate of its own, which counts until its last stream ends."""
    before, length = interface(), size * 1_000_000

    def stream(number: int, first: int, part: int) -> float:
        url, began = f"https://{address(number)}/{size}.bin", time.monotonic()
        command = ["curl", "-sSk", "--fail", "-r", f"{first}-{first + part - 1}", "-o", os.devnull, url]
        subprocess.run(command, check=True)
        return time.monotonic() - began

    parts = [int(length * rate / sum(rates) / STREAMS) for rate in rates]
    with ThreadPoolExecutor() as threads:
        running = [
            [threads.submit(stream, number, at * part, part) for at in range(STREAMS)]
            for number, part in enumerate(parts, 1)
        ]
        seconds = [max(each.result() for each in streams) for streams in running]
    time.sleep(SETTLE)
    together = sum(STREAMS * part / taken for part, taken in zip(parts, seconds, strict=True))
    return {"seconds": length / together, "received": (interface() - before) / length}


def fetched(root: Path, size: int, want: WantedFile, servers: int) -> dict[str, float]:
    pin = CertificatePin(ssl.PEM_cert_to_DER_cert((root / "tls.pem").read_text()), "localhost")
    before = interface()

    def source(number: int) -> RangeSource:
        async def locate(digest: Digest) -> Sequence[BlobLocation]:
            return [BlobLocation("https-range", f"https://{address(number)}:443/{size}.bin")]

        return RangeSource(SourceKey("node", str(number)), f"n{number}", pin, locate)

    async def run() -> FetchResult:
        sources = [source(number) for number in range(1, servers + 1)]
        try:
            for each in sources:
                await each.find(want.digest)
            return await fetch_file(want, sources, root / "into", options=FetchOptions())
        finally:
            for each in sources:
                each.close()

    began, cpu = time.monotonic(), time.process_time()
    result = asyncio.run(run())
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    (root / "into").unlink()
    time.sleep(SETTLE)
    twice, wrong = (result.refetched - result.wrong) / want.size, result.wrong / want.size
    return {
        "seconds": seconds,
        "cpu": cpu,
        "twice": twice,
        "wrong": wrong,
        "received": (interface() - before) / want.size,
    }


def interface() -> int:
    """Bytes that this namespace has received."""
    [line] = [line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("tun0:")]
    return int(line.split(":")[1].split()[0])


def summary(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for column in rows[0]:
        values = [row[column] for row in rows]
        table[column] = {
            "median": round(statistics.median(values), 4),
            "min": round(min(values), 4),
            "max": round(max(values), 4),
        }
    return table


if __name__ == "__main__":
    main()
