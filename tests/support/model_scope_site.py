"""A web server that answers in the format of the API of ModelScope, for one repository."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.file_site import FileServer, file_server

REPOSITORY = "/api/v1/models/org/tiny/repo"


def item(path: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"Path": path, "Type": "blob", "Size": len(data), "Sha256": hashlib.sha256(data).hexdigest(), **more}


def answer(*items: Any) -> bytes:
    return json.dumps({"Code": 200, "Success": True, "Data": {"Files": items}}).encode()


@contextmanager
def model_scope_site(folder: Path, files: Mapping[str, bytes]) -> Iterator[FileServer]:
    """`org/tiny` with these files below `folder`; `files` in it is the answer that lists them."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    above = {"Path": "sub", "Type": "tree", "Size": 0}
    (folder / "files").write_bytes(answer(above, *(item(path, data) for path, data in files.items())))

    def route(target: str) -> str:
        head, _, path = target.partition("?Revision=master&FilePath=")
        listing = target == f"{REPOSITORY}/files?Revision=master&Recursive=True"
        return path if head == REPOSITORY else "files" if listing else "-"

    with file_server(folder) as server:
        server.route = route
        yield server
