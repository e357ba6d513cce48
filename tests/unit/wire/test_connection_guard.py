"""Which sockets a scan reads: it runs five times a second, also on a node with hundreds of idle connections."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from comity.wire import connections
from comity.wire.connections import ConnectionGuard, PortShares


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors that a scan reads."""
    seen: list[int] = []
    duplicate = connections._duplicate

    @contextmanager
    def noted(descriptor: int) -> Iterator[socket.socket]:
        seen.append(descriptor)
        with duplicate(descriptor) as copy:
            yield copy

    monkeypatch.setattr(connections, "_duplicate", noted)
    return seen


def inode(some: socket.socket) -> int:
    return os.fstat(some.fileno()).st_ino


def test_a_socket_that_is_not_watched_is_read_once(looked: list[int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        shares = PortShares(4)
        guard = ConnectionGuard({server.getsockname()[1]: shares})
        guard.scan()
        assert {server.fileno(), other.fileno()} <= set(looked)
        looked.clear()
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
            guard.scan()
            assert set(looked) == {client.fileno(), accepted.fileno()}
            assert shares.knows(inode(accepted)) and not shares.knows(inode(client))
            looked.clear()
            guard.scan()
            assert looked == []
            gone = {inode(client), inode(accepted)}
        guard.scan()
        assert not any(shares.knows(each) or each in guard._others for each in gone)


def test_a_socket_that_cannot_be_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        shares = PortShares(4)
        guard = ConnectionGuard({server.getsockname()[1]: shares})
        with socket.create_connection(server.getsockname()), server.accept()[0] as accepted:
            with monkeypatch.context() as patched:
                patched.setattr(os, "dup", lambda descriptor: (_ for _ in ()).throw(OSError("no free descriptor")))
                guard.scan()
            assert not shares.knows(inode(accepted))
            guard.scan()
            assert shares.knows(inode(accepted))
