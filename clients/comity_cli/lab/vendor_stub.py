"""A stand-in for a vendor's service: chat completions in the form of OpenAI's API, with one answer to all.

    python -m comity_cli.lab.vendor_stub      prints its port, and serves until its standard input ends

It runs no model. The demo cuts it off, as a vendor may.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

MODEL: Final = "vendor-large"
ANSWER: Final = "Paris, says the vendor."
MAX_REQUEST: Final = 1024 * 1024
ROUTE: Final = "/v1/chat/completions"


class VendorHandler(BaseHTTPRequestHandler):
    """Answers one route."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if self.path != ROUTE or not 0 < size <= MAX_REQUEST:
            return self._answer(404, {"error": {"message": "not found", "type": "invalid_request_error"}})
        asked = json.loads(self.rfile.read(size))
        message = {"role": "assistant", "content": ANSWER}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6}
        completion = {"id": "vendor-1", "object": "chat.completion", "created": int(time.time()), "usage": usage}
        return self._answer(200, {**completion, "model": asked.get("model", MODEL), "choices": [choice]})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def main() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), VendorHandler) as server:
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while os.read(sys.stdin.fileno(), 1024):
            pass
        server.shutdown()


if __name__ == "__main__":
    main()
