"""One table: the errors of this house as HTTP answers.

A refusal is JSON `{"error", "code", "hint"}` with `X-Error-Code` and `X-Error-Message`, which Hub clients read. They
know a few words of their own; every other code is the one of `comity explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse

from comity.trust.errors import (
    ComityError,
    Conflict,
    Malformed,
    NotFound,
    OutOfSpace,
    PolicyNotMet,
    Refused,
    Unavailable,
    Untrusted,
)
from comity.wire import limits
from comity.wire.errors import clean

STATUS: Final[Mapping[type[ComityError], int]] = {
    ComityError: 500,
    Malformed: 400,
    Untrusted: 403,
    PolicyNotMet: 403,
    Unavailable: 503,
    NotFound: 404,
    Refused: 403,
    OutOfSpace: 507,
    Conflict: 409,
}
_BY_CODE: Final[Mapping[str, int]] = {
    "RATE": 429,
    "TOO-MANY-CALLS": 429,
    "NO-TOKEN": 401,
    "BAD-TOKEN": 401,
    "TOKEN-SCOPE": 403,
    "BODY-TOO-LARGE": 413,
    "METHOD": 405,
    "RANGE": 416,
    # C2SP tlog-witness and tlog-mirror: what is well said and does not hold.
    "CHECKPOINT-EMPTY-ROOT": 422,
    "CONSISTENCY": 422,
    "EQUIVOCATION": 422,
    "NO-PENDING": 422,
    "ROOT-MISMATCH": 422,
    "SUBTREE": 422,
}
HUB_CODES: Final[Mapping[str, str]] = {
    "NO-SUCH-REPOSITORY": "RepoNotFound",
    "NO-SUCH-REVISION": "RevisionNotFound",
    "NO-SUCH-FILE": "EntryNotFound",
    "NO-TOKEN": "RepoNotFound",
    "UPSTREAM-NOT-ALLOWED": "RepoNotFound",
    "TOKEN-SCOPE": "GatedRepo",
    "UPSTREAM-GATED": "GatedRepo",
}
"""The words that Hub clients know; to who shows no token a repository is not found, as at the Hub. Source:
huggingface_hub, `hf_raise_for_status`."""
RETRY_SECONDS: Final = 2


def answer(error: ComityError) -> JSONResponse:
    """The refusal that `error` is to an HTTP client."""
    kind = next(kind for kind in type(error).__mro__ if kind in STATUS)
    status = _BY_CODE.get(error.code, STATUS[kind])
    message = clean(str(error), limits.ERROR_WHAT + limits.ERROR_WHY)
    headers = {
        "Cache-Control": "no-store",
        "X-Error-Code": HUB_CODES.get(error.code, error.code),
        "X-Error-Message": message.encode("ascii", "replace").decode("ascii"),
    }
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_SECONDS)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    document = {"error": message, "code": error.code, "hint": clean(error.hint, limits.ERROR_HINT)}
    return JSONResponse(document, status, headers)


async def on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ComityError)
    return answer(error)
