"""One sentence for `git clone` and `git push`: a node is no Git server.

Git asks for `…/info/refs?service=git-upload-pack`, and prints the error of an answer in its own format. Source: Git's
documentation, gitprotocol-http and gitprotocol-pack (`ERR`).
"""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from comity.trust.errors import NotFound

SERVICES: Final = ("git-upload-pack", "git-receive-pack")
_NAME: Final = re.compile(
    r"/(?:(?:models|datasets|spaces)/)?([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}?)(?:\.git)?\Z", re.A
)


def git_routes() -> list[Route]:
    return [Route("/{repository:path}/info/refs", info_refs)]


async def info_refs(request: Request) -> Response:
    """Return the error that Git prints. Raises NotFound for what is no request of Git."""
    service = request.query_params.get("service", "")
    if service not in SERVICES:
        raise NotFound("no such address", code="NO-SUCH-ROUTE")
    name = _NAME.match(f"/{request.path_params['repository']}")
    sentence = f"this is a Comity node and no Git server: use comity pull {name[1] if name else 'NAMESPACE/NAME'}"
    if service == "git-receive-pack":
        sentence = "this is a Comity node and no Git server: publish a folder with comity publish"
    body = _packet(f"# service={service}\n") + b"0000" + _packet(f"ERR {sentence}\n")
    return Response(body, media_type=f"application/x-{service}-advertisement", headers={"Cache-Control": "no-store"})


def _packet(line: str) -> bytes:
    data = line.encode()
    return b"%04x" % (len(data) + 4) + data
