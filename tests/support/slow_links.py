"""A TCP relay that can be slowed down or cut, so that a test can act during a transfer."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class SlowRelay:
    """Forwards bytes between each client at `address` and `target`; back at `rate` bytes a second, if set. The first
    connection that has received `cut_after` bytes, if set, is cut; `cuts` counts the cuts, `passed` the bytes back.

    Args:
        address: where to listen; by default at a free port.
    """

    def __init__(self, target: str, address: str = "127.0.0.1:0") -> None:
        self.rate: float | None = None
        self.cut_after: int | None = None
        self.cuts = 0
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.passed = 0
        self._open = set[socket.socket]()
        own_host, _, own_port = address.rpartition(":")
        self._listener = socket.create_server((own_host, int(own_port)))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def kill(self) -> None:
        """End as a process that is killed: nobody listens any more, and all connections are closed."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in tuple(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                threading.Thread(target=self._pass_on, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(far, near, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, narrow: bool) -> None:
        passed = 0
        self._open.add(source)
        with suppress(OSError):
            while data := source.recv(65_536):
                if narrow and self.rate:
                    time.sleep(len(data) / self.rate)
                sink.sendall(data)
                passed += len(data)
                self.passed += len(data) if narrow else 0
                if narrow and self.cut_after is not None and passed > self.cut_after:
                    self.cut_after = None
                    self.cuts += 1
                    break
        self._open.discard(source)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
