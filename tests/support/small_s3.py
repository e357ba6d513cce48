"""A small S3 server in memory, honest or with chosen lies. It checks no signature; it has what the store uses."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

Lie: TypeAlias = Literal[
    "overwrites", "other parts", "other bytes", "old lists", "deleted in lists", "old reads", "no ranges"
]


@dataclass
class SmallS3:
    """What the server has; the keys contain the bucket's name."""

    lies: frozenset[Lie]
    objects: dict[str, bytes] = field(default_factory=dict)
    deleted: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    hours_ago: dict[str, int] = field(default_factory=dict)
    """When an object was written, if not now."""
    endpoint: str = ""

    def listed(self) -> dict[str, bytes]:
        if "old lists" in self.lies:
            return {}
        return {**self.objects, **(self.deleted if "deleted in lists" in self.lies else {})}

    def found(self, key: str) -> bytes | None:
        return self.objects.get(key, self.deleted.get(key) if "old reads" in self.lies else None)

    def stored(self, data: bytes, lie: Lie) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if lie in self.lies else data


@contextmanager
def small_s3(*lies: Lie) -> Iterator[SmallS3]:
    state = SmallS3(frozenset(lies))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        @property
        def key(self) -> str:
            return unquote(urlsplit(self.path).path).strip("/")

        @property
        def query(self) -> dict[str, str]:
            return dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))

        def do_PUT(self) -> None:
            data, query = self.rfile.read(int(self.headers.get("Content-Length") or 0)), self.query
            if "uploadId" in query:
                state.uploads[query["uploadId"]][int(query["partNumber"])] = data
            elif "If-None-Match" in self.headers and self.key in state.objects and "overwrites" not in state.lies:
                return self.error(412, "PreconditionFailed")
            else:
                state.objects[self.key] = state.stored(data, "other bytes")
            return self.reply(200, ETag=f'"{hashlib.md5(data).hexdigest()}"')

        def do_POST(self) -> None:
            body, query = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(), self.query
            if "uploads" in query:
                name = f"upload{len(state.uploads)}"
                state.uploads[name] = {}
                tag = "InitiateMultipartUploadResult"
                return self.reply(200, f"<{tag}><UploadId>{name}</UploadId></{tag}>")
            parts = state.uploads.pop(query["uploadId"])
            numbers = map(int, re.findall(r"<PartNumber>(\d+)</PartNumber>", body))
            state.objects[self.key] = state.stored(b"".join(parts[number] for number in numbers), "other parts")
            return self.reply(200, "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")

        def do_GET(self) -> None:
            if "list-type" in self.query:
                prefix = f"{self.key}/{self.query.get('prefix', '')}"
                found = {key: data for key, data in sorted(state.listed().items()) if key.startswith(prefix)}
                items = "".join(self.item(key, data) for key, data in found.items())
                return self.reply(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>")
            if "uploads" in self.query:
                tag = "ListMultipartUploadsResult"
                return self.reply(200, f"<{tag}><IsTruncated>false</IsTruncated></{tag}>")
            if (data := state.found(self.key)) is None:
                return self.error(404, "NoSuchKey")
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked is None or "no ranges" in state.lies:
                return self.reply(200, data)
            first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
            return self.reply(206, data[first : last + 1], **{"Content-Range": f"bytes {first}-{last}/{len(data)}"})

        do_HEAD = do_GET

        def do_DELETE(self) -> None:
            if (data := state.objects.pop(self.key, None)) is not None:
                state.deleted[self.key] = data
            self.reply(204)

        def item(self, key: str, data: bytes) -> str:
            at = datetime.now(UTC) - timedelta(hours=state.hours_ago.get(key, 0))
            name, size = f"<Key>{key.partition('/')[2]}</Key>", f"<Size>{len(data)}</Size>"
            return f"<Contents>{name}{size}<LastModified>{at:%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"

        def error(self, status: int, code: str) -> None:
            self.reply(status, f"<Error><Code>{code}</Code></Error>")

        def reply(self, status: int, body: bytes | str = b"", **headers: str) -> None:
            data = body.encode() if isinstance(body, str) else body
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
