"""Files of a bounded size, read whole or in pieces. Nothing else is loaded for this, so that a light command starts
soon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from comity.trust.errors import Malformed, NotFound, Unavailable

CHUNK: Final = 1024 * 1024


def read_bounded(path: Path, limit: int, *, hint: str = "") -> bytes:
    """Read a file. Raises NotFound with `hint`, Unavailable, and Malformed if it has more than `limit` bytes."""
    data = read_at_most(path, limit + 1, hint=hint)
    if len(data) > limit:
        raise Malformed(f"{path.name} is too large", why=f"more than {limit} bytes")
    return data


def read_at_most(path: Path, limit: int, *, hint: str = "") -> bytes:
    """Read the first `limit` bytes of a file. Raises NotFound with `hint` if there is none, and Unavailable."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}", hint=hint) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read", why=error.strerror or str(error)) from error


def read_chunks(path: Path, limit: int) -> Iterator[bytes]:
    """A file in pieces of at most 1 MiB. Raises NotFound, Unavailable, and Malformed if it has more than `limit`
    bytes."""
    size = 0
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                size += len(chunk)
                if size > limit:
                    raise Malformed(f"{path.name} is too large", why=f"more than {limit} bytes")
                yield chunk
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read", why=error.strerror or str(error)) from error
