"""The blob server on a real socket: what it serves and refuses, and the cost of slow and of many clients."""

from __future__ import annotations

import concurrent.futures
import http.client
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from comity.gateway.fileserver import http1 as pipe
from comity.gateway.fileserver import server as connection
from comity.gateway.fileserver.server import BlobServer
from comity.gateway.fileserver.verified import BUFFER
from comity.trust.artifact import PIECE_SIZE
from comity.trust.encoding import sha256
from comity.trust.errors import Unavailable
from comity.trust.keys import PrivateKey
from comity.wire.tls import TlsIdentity, make_certificate, server_context
from support.blob_site import BlobSite, blob_site, exchange, get

SIZE = 2 * PIECE_SIZE + 1000


@pytest.fixture
def site(tmp_path: Path) -> BlobSite:
    return blob_site(tmp_path)


@pytest.fixture
def port(site: BlobSite) -> Iterator[int]:
    with site.serving() as port:
        yield port


@pytest.fixture(scope="module")
def identity() -> TlsIdentity:
    key = PrivateKey.generate("ecdsa-p256")
    return TlsIdentity(make_certificate(key), key)


def test_a_blob_is_served_whole(site: BlobSite, port: int) -> None:
    digest, data = site.add(SIZE)
    status, fields, body = get(port, site.path(digest))
    assert (status, body == data) == (200, True)
    assert fields["content-length"] == str(SIZE)
    assert fields["etag"] == f'"{digest}"'
    assert fields["accept-ranges"] == "bytes"
    assert "content-range" not in fields and "content-encoding" not in fields


def test_head_gives_the_same_fields_and_no_bytes(site: BlobSite, port: int) -> None:
    digest, _ = site.add(SIZE)
    target = site.path(digest)
    status, fields, body = get(port, target, "HEAD")
    assert (status, body) == (200, b"")
    got = get(port, target)[1]
    assert {**fields, "date": ""} == {**got, "date": ""}
    assert get(port, target, "HEAD", Range="bytes=0-1")[0] == 200


@pytest.mark.parametrize(
    ("first", "last"), [(0, 0), (5, PIECE_SIZE + 5), (PIECE_SIZE, 2 * PIECE_SIZE - 1), (SIZE - 1, SIZE - 1)]
)
def test_a_range_is_served_to_the_byte(site: BlobSite, port: int, first: int, last: int) -> None:
    digest, data = site.add(SIZE)
    status, fields, body = get(port, site.path(digest), Range=f"bytes={first}-{last}")
    assert (status, body == data[first : last + 1]) == (206, True)
    assert fields["content-range"] == f"bytes {first}-{last}/{SIZE}"


def test_a_range_beyond_the_end_is_unsatisfiable(site: BlobSite, port: int) -> None:
    digest, _ = site.add(1000)
    status, fields, body = get(port, site.path(digest), Range="bytes=1000-")
    assert (status, fields["content-range"], body) == (416, "bytes */1000", b"")


def test_a_range_of_other_bytes_than_the_client_has_is_the_whole_file(site: BlobSite, port: int) -> None:
    digest, data = site.add(1000)
    assert get(port, site.path(digest), Range="bytes=5-", If_Range='"other"')[::2] == (200, data)
    assert get(port, site.path(digest), Range="bytes=5-", If_Range=f'"{digest}"')[::2] == (206, data[5:])


def test_a_browser_gets_the_file_under_its_name(site: BlobSite, port: int) -> None:
    digest, _ = site.add(10)
    named = site.urls.sign(digest, seconds=60, name="ü\r\nX-Evil: 1.bin")
    fields = get(port, named)[1]
    assert fields["content-disposition"] == "attachment; filename*=UTF-8''%C3%BC%0D%0AX-Evil%3A%201.bin"
    assert "x-evil" not in fields


def test_a_connection_is_used_again(site: BlobSite, port: int) -> None:
    digest, data = site.add(1000)
    target = site.path(digest)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    client.connect()
    first = client.sock
    for _ in range(3):
        client.request("GET", target)
        assert client.getresponse().read() == data
    assert client.sock is first
    client.close()


def test_requests_may_be_sent_ahead(site: BlobSite, port: int) -> None:
    digest, data = site.add(50)
    one = f"GET {site.path(digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    assert exchange(port, one * 3).count(data) == 3


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/", 403, "URL-FORGED"),
        ("/blobs/../../etc/passwd", 403, "URL-FORGED"),
        ("/blobs/" + "0" * 64, 403, "URL-FORGED"),
    ],
)
def test_without_a_signature_nothing_is_served(site: BlobSite, port: int, target: str, status: int, code: str) -> None:
    got, fields, _ = get(port, target)
    assert (got, fields["x-error-code"]) == (status, code)


def test_refusals_have_their_status(site: BlobSite, port: int) -> None:
    digest, _ = site.add(10)
    assert get(port, site.path(sha256(b"nowhere")))[0] == 404
    assert get(port, site.path(digest), "POST")[0] == 405
    assert exchange(port, b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert exchange(port, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000).startswith(b"HTTP/1.1 400 ")


def test_a_damaged_blob_is_a_503_and_no_byte_of_it(site: BlobSite, port: int) -> None:
    digest, _ = site.add(SIZE)
    site.flip(digest, 0)
    status, fields, body = get(port, site.path(digest))
    assert (status, fields["x-error-code"]) == (503, "BLOB-DAMAGED")
    assert len(body) < 1000
    _until(lambda: len(site.deliveries) == 1)
    assert get(port, site.path(digest))[0] == 404
    _until(lambda: len(site.deliveries) == 2)
    assert [delivery.code for delivery in site.deliveries] == ["BLOB-DAMAGED", "NOT-FOUND"]


def test_damage_after_the_first_piece_cuts_the_connection(site: BlobSite, port: int) -> None:
    digest, data = site.add(SIZE)
    site.flip(digest, PIECE_SIZE)
    with pytest.raises(http.client.IncompleteRead) as cut:
        get(port, site.path(digest))
    assert cut.value.partial == data[:PIECE_SIZE]


def test_finished_answers_are_reported(site: BlobSite, port: int) -> None:
    digest, _ = site.add(1000)
    get(port, site.path(digest), Range="bytes=10-19")
    _until(lambda: site.deliveries)
    (delivery,) = site.deliveries
    assert (delivery.blob, delivery.status, delivery.asked, delivery.sent, delivery.code) == (digest, 206, 10, 10, "")


def test_over_tls_the_node_certificate_is_shown(site: BlobSite, identity: TlsIdentity) -> None:
    digest, data = site.add(SIZE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with site.serving(tls=server_context(identity)) as port:
        client = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
        client.request("GET", site.path(digest))
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.getpeercert(binary_form=True) == identity.certificate
        assert client.sock.version() == "TLSv1.3"
        assert client.getresponse().read() == data
        client.close()


def test_many_clients_at_once_get_the_right_bytes(site: BlobSite, port: int) -> None:
    digest, data = site.add(SIZE, cut=False)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        bodies = list(pool.map(lambda _: get(port, site.path(digest))[2], range(64)))
    assert all(body == data for body in bodies)
    assert site.records.asked == [digest]


def test_a_client_that_reads_nothing_delays_no_other(site: BlobSite, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, data = site.add(24 * PIECE_SIZE)
    monkeypatch.setattr(pipe, "STALLED", 1.0)
    monkeypatch.setattr(pipe, "SLOWEST", 1e9)
    request = f"GET {site.path(digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with site.serving() as port:
        stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        for client in stalled:
            client.sendall(request)
        assert get(port, site.path(digest))[2] == data
        _until(lambda: sum(not delivery.code for delivery in site.deliveries) == 1 and len(site.deliveries) == 9)
        for client in stalled:
            client.close()
    assert [delivery.code for delivery in site.deliveries].count("GONE") == 8


@pytest.mark.parametrize("encrypted", [False, True])
def test_stalled_clients_cost_one_buffer_each(site: BlobSite, identity: TlsIdentity, encrypted: bool) -> None:
    clients, size = 64, 24 * PIECE_SIZE
    digest, data = site.add(size)
    request = f"GET {site.path(digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with ExitStack() as stack:
        port = stack.enter_context(site.serving(tls=server_context(identity) if encrypted else None))
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(clients):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            if encrypted:
                client = stack.enter_context(trusting.wrap_socket(client))
            client.sendall(request)
            assert client.recv(1) == b"H"
        assert tracemalloc.get_traced_memory()[1] - before < clients * (BUFFER * encrypted + 64 * 1024)
        if not encrypted:
            assert get(port, site.path(digest))[2] == data


def test_a_silent_client_is_disconnected(site: BlobSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE", 0.2)
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    with site.serving() as port:
        assert exchange(port, b"") == b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
            assert silent.recv(1) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            slow.sendall(b"GET / HT")
            assert slow.recv(1) == b""


def test_a_connection_of_a_block_that_has_all_its_slots_is_closed_immediately(site: BlobSite) -> None:
    digest, data = site.add(100)
    with site.serving(connections=2) as port:
        held = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(2)]
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            get(port, site.path(digest))
        for client in held:
            client.close()
        _until(lambda: not _threads())
        assert get(port, site.path(digest))[2] == data


def test_silent_connections_of_one_block_are_closed_for_a_client_of_another_block(site: BlobSite) -> None:
    digest, data = site.add(100)
    with site.serving(connections=8) as port, ExitStack() as stack:
        for _ in range(8):
            silent = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=("127.66.0.1", 0))
            stack.enter_context(silent)
        assert all(get(port, site.path(digest))[2] == data for _ in range(3))


def test_closing_ends_every_connection_and_thread(site: BlobSite) -> None:
    digest, _ = site.add(24 * PIECE_SIZE)
    with site.serving() as port:
        client = socket.create_connection(("127.0.0.1", port), timeout=10)
        client.sendall(f"GET {site.path(digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.recv(1)
    assert not _threads()
    client.close()


def test_an_address_that_is_in_use_is_a_clear_error(site: BlobSite, port: int) -> None:
    with pytest.raises(Unavailable) as refused, site.serving():
        BlobServer(None, ("127.0.0.1", port))  # type: ignore[arg-type]  # nothing is served
    assert refused.value.code == "LISTEN"


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "blob"]


def _until(condition: object) -> None:
    deadline = time.monotonic() + 20
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
