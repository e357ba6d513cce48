"""Files out of a node's gateway, beside nginx on the same bytes in the same run.

    python bench/gateway.py [--rounds 5] [--mib 1024]

    whole           curl, the file from its first byte to its last; the bytes are discarded
    ranges          one connection, 4 MiB at a time, from the end of the file to its beginning
    four at once    four curls, a quarter of the bytes each
    unproven        whole, after the file's times have changed: the gateway hashes each piece before it leaves

Each over plain HTTP and over TLS 1.3. The node and nginx (two workers, sendfile) run beside the clients on the
same cores; the file is in the page cache.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import ssl
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from comity.federation_file import Federation
from comity.node.metrics import LOCATION_SECONDS
from comity.trust.encoding import Digest
from comity.wire.addresses import Address, RangeUrl
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin
from harness import show, speeds, take_turns, write
from made import REFERENCE, Served, model, served
from static_site import Site, nginx

RANGE = 4 << 20
FILE = "model.safetensors"


@dataclass(frozen=True)
class Place:
    """A place from which the bytes can be fetched."""

    base: str
    target: Callable[[], str]
    size: int

    def curl(self, *ranges: tuple[int, int]) -> None:
        """The whole file, or several ranges of it by as many processes at once."""
        url = self.base + self.target()
        bounds = [["-r", f"{first}-{last}"] for first, last in ranges] or [[]]
        running = [subprocess.Popen(["curl", "-sSk", "--fail", "-o", "/dev/null", *extra, url]) for extra in bounds]
        codes = [process.wait() for process in running]
        if any(codes):
            raise SystemExit(f"curl failed at {self.base}")

    def four(self) -> None:
        quarter = self.size // 4
        self.curl(*((n * quarter, (n + 1) * quarter - 1 if n < 3 else self.size - 1) for n in range(4)))

    def ranges(self) -> None:
        parts, target, buffer = urlsplit(self.base), self.target(), bytearray(RANGE)
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        if parts.scheme == "https":
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(parts.netloc, timeout=60, context=context)
        for offset in range((self.size - 1) // RANGE * RANGE, -1, -RANGE):
            last = min(offset + RANGE, self.size) - 1
            connection.request("GET", target, headers={"Range": f"bytes={offset}-{last}"})
            answer, got = connection.getresponse(), 0
            while count := answer.readinto(memoryview(buffer)[got:]):
                got += count
            if answer.status != 206 or got != last - offset + 1:
                raise SystemExit(f"{answer.status}, {got} bytes for a range of {last - offset + 1}")
        connection.close()


class Signed:
    """Path and query of one blob, as the node signs them; they are valid at both of the gateway's file servers. A new
    one is asked for every few minutes: once or twice in a run.
    """

    def __init__(self, lab: Served, digest: Digest) -> None:
        federation = Federation.parse(lab.lab.federation.read_bytes())
        record = next(node.record for node in federation.nodes if node.record.name == lab.node.name)
        self._node, self._digest = (Address.parse(lab.node.address), CertificatePin.of(record.tls)), digest
        self._target, self._until = "", 0.0

    def __call__(self) -> str:
        if time.monotonic() > self._until:
            self._target, self._until = asyncio.run(self._ask()), time.monotonic() + LOCATION_SECONDS / 2
        return self._target

    async def _ask(self) -> str:
        async with NodeClient.connect(*self._node) as client:
            (location,) = await client.locations(self._digest)
        return RangeUrl.parse(location.url).target


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--mib", type=int, default=1024)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as scratch:
        root = Path(scratch)
        folder = model(root / "model", chosen.mib)
        size = (folder / FILE).stat().st_size
        with served(root) as lab, nginx(root / "nginx", folder) as site:
            lab.comity("publish", str(folder), "--as", REFERENCE, "--licence", "other", "--node", lab.node.name)
            proven, unproven = peers(lab, site, size)
            taken = take_turns(proven, chosen.rounds) | take_turns(unproven, chosen.rounds)
    tables = {}
    for what in ("whole", "ranges", "four at once", "unproven"):
        for how in ("plain", "TLS"):
            suffix = f", {how}, {what}"
            group = {name.removesuffix(suffix): taken[name] for name in taken if name.endswith(suffix)}
            tables[f"{how}, {what}"] = table = speeds(group, size, "nginx")
            print(f"\n{how}, {what}")
            show(table)
    load = os.getloadavg()[2]
    write("gateway", rounds=chosen.rounds, bytes=size, load_15_minutes=round(load, 1), cache="warm", peers=tables)


Peers = dict[str, Callable[[], None]]


def peers(lab: Served, site: Site, size: int) -> tuple[Peers, Peers]:
    """Those that read the same file repeatedly, and those that read it after its times were changed. The latter come
    last: a file that was changed a moment ago is hashed each time.
    """
    blob = _blob(lab, size)
    settings = tomllib.loads((lab.node.home / "node.toml").read_text())["gateway"]
    signed = Signed(lab, Digest(blob.name))

    def touched(place: Place) -> Callable[[], None]:
        def run() -> None:
            os.utime(blob)
            place.curl()

        return run

    hub, tls = urlsplit(f"{site.hub}/bench/model/resolve/main/{FILE}"), urlsplit(site.tls)
    places = {
        "nginx, plain": Place(f"{hub.scheme}://{hub.netloc}", lambda: hub.path, size),
        "gateway, plain": Place(f"http://{settings['files']}", signed, size),
        "nginx, TLS": Place(f"{tls.scheme}://{tls.netloc}", lambda: tls.path, size),
        "gateway, TLS": Place(f"https://{settings['ranges']}", signed, size),
    }
    proven: Peers = {}
    for what, read in (("whole", Place.curl), ("ranges", Place.ranges), ("four at once", Place.four)):
        proven |= {f"{name}, {what}": partial(read, place) for name, place in places.items()}
    return proven, {f"{name}, unproven": touched(place) for name, place in places.items()}


def _blob(lab: Served, size: int) -> Path:
    """The file in the node's store: its name is its digest."""
    (found,) = (
        path for path in (lab.node.home / "data" / "blobs" / "blobs").glob("*/*") if path.stat().st_size == size
    )
    return found


if __name__ == "__main__":
    main()
