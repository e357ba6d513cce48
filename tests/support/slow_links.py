"""A TCP relay that can be slowed down or cut, so that a test can act during a transfer."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class SlowRelay:
    """Forwards bytes between each client at `address` and `target`; back at `rate` bytes a second, if set. The first
    connection that has received `cut_after` bytes, if set, is cut; `cuts` counts the cuts.
    """

    def __init__(self, target: str) -> None:
        self.rate: float | None = None
        self.cut_after: int | None = None
        self.cuts = 0
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

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
        with suppress(OSError):
            while data := source.recv(65_536):
                if narrow and self.rate:
                    time.sleep(len(data) / self.rate)
                sink.sendall(data)
                passed += len(data)
                if narrow and self.cut_after is not None and passed > self.cut_after:
                    self.cut_after = None
                    self.cuts += 1
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
