"""What to send to somebody who helps: findings, settings, status, versions, names of files, a log if given; no secret.

Three guards, one after the other. Files with secrets are not copied. Texts of unknown origin, such as a log, lose what
looks like a secret: private keys, tokens, passwords, headers that authorise, and the queries of URLs. Last, every value
in the secret files of the home is looked for in the finished texts, in the forms in which it may be printed, and cut
out: so a secret is found even where its form says nothing.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import platform
import re
import sqlite3
import ssl
import stat
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from comity.content import durable
from comity.content.durable import disk_errors
from comity.content.gateway_tokens import TOKENS_FILE
from comity.content.secrets import MAX_SECRET
from comity.node.config import MAX_FILE, NodeConfig
from comity.node.home_files import SOFTWARE
from comity.node.maintenance.backup import PUBLIC_FILES, RESTORING, SETTINGS
from comity.node.maintenance.doctor import diagnose, running_status
from comity.node.maintenance.settings_shown import REDACTED, embedded_secrets, redacted, shown_settings
from comity.node.threads import Clock
from comity.trust.errors import ComityError, Conflict
from comity.trust.frozen import frozen

MAX_LOG: Final = 8 * 1024 * 1024
"""Bytes from the end of the log that are included."""
MAX_LISTED: Final = 2000
"""Names of files that are included."""
LEAST_SECRET: Final = 6
"""Characters of a value in a secret file that is looked for; a shorter one would match everywhere."""
_NO_SECRETS: Final = frozenset({SETTINGS, RESTORING, "federation.json", *PUBLIC_FILES})
"""Files of a home without secrets, though a careful operator may have made them private."""
_PATTERNS: Final = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    re.compile(r"(?i)(?<=authorization)(\"?\s*[:=]\s*\"?)[^\"\n]+"),
    re.compile(r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"),
    re.compile(r"(?<=\?)[^\s\"'<>]*(?:signature|sig|token|expires|credential)=[^\s\"'<>]*", re.IGNORECASE),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
)
_ASSIGNED: Final = re.compile(r"""["']?[\w.-]+["']?\s*[=:]\s*["']?([^"'\n]+)["']?""")


@frozen
class SupportBundle:
    """A written bundle: the texts in it, by name, and how many places were cut out of them."""

    path: Path
    texts: Mapping[str, str]
    redactions: int


def write_bundle(
    home: Path, out: Path, *, clock: Clock, log: Path | None = None, environ: Mapping[str, str] = os.environ
) -> SupportBundle:
    """Write a bundle about the node of `home` as the new file `out`, a gzipped tar archive of mode 0600. Blocking.

    Args:
        log: a file with the events of the node; its end is included.

    Raises Conflict (BUNDLE-EXISTS), NotFound, OutOfSpace, Unavailable.
    """
    if out.exists():
        raise Conflict(f"{out} exists", why="nothing is overwritten", hint="name a new file", code="BUNDLE-EXISTS")
    texts = dict(_texts(home, log, environ))
    secrets = _secret_values(home, environ)
    clean = {name: _without(text, secrets) for name, text in texts.items()}
    count = sum(text.count(REDACTED) for text in clean.values())
    clean["README.txt"] = _readme(clean, count)
    with disk_errors(f"{out} was not written"):
        durable.write_file(out, _archive(clean, int(clock())), mode=0o600, point="bundle")
    return SupportBundle(out, clean, count)


def _texts(home: Path, log: Path | None, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    file = home / "node.toml"
    yield "doctor.json", _json([asdict(finding) for finding in diagnose(home)])
    yield "versions.json", _json(_versions())
    yield "files.txt", "".join(f"{line}\n" for line in _files(home))
    try:
        settings = shown_settings(file, environ)
        yield "settings.json", _json({each.name: {"value": each.value, "from": str(each.origin)} for each in settings})
        status = running_status(NodeConfig.load(file, environ).listen.operator)
    except ComityError as error:
        yield "settings.json", _json({"error": f"{error} [{error.code}]"})
        status = None
    if status is not None:
        # Who read what is about people; it helps nobody to find a fault.
        yield "status.json", _json(asdict(replace(status, served=())))
    if log is not None:
        yield "log.txt", _end_of(log)


def _versions() -> dict[str, str]:
    return {
        "software": SOFTWARE,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "openssl": ssl.OPENSSL_VERSION,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _files(home: Path) -> Iterator[str]:
    """Mode, size, age and name of the files in a home, but those of the blob store. No content is read."""
    now, count = time.time(), 0
    for parent, folders, names in os.walk(home):
        folders[:] = sorted(name for name in folders if name != "blobs")
        for name in sorted(names):
            path = Path(parent) / name
            try:
                found = path.lstat()
            except OSError:
                continue
            count += 1
            if count > MAX_LISTED:
                yield "… more files are not listed"
                return
            age = int(now - found.st_mtime)
            yield f"{stat.filemode(found.st_mode)} {found.st_size:>12} {age:>9}s {path.relative_to(home)}"


def _end_of(log: Path) -> str:
    with disk_errors(f"{log} was not read"), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MAX_LOG))
        data = file.read(MAX_LOG)
    text = data.decode("utf-8", "replace")
    return text if size <= MAX_LOG else text.partition("\n")[2]


def _secret_values(home: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Every value in the secret files of a home, in the forms in which a text may show it; the longest first."""
    found = set[str]()
    for path in _secret_files(home, environ):
        try:
            with path.open("rb") as file:
                text = file.read(MAX_SECRET).decode("utf-8", "replace")
        except OSError:
            continue
        for line in text.splitlines():
            found |= {line, *_fields(path, line)}
    with suppress(OSError):
        found |= set(embedded_secrets((home / "node.toml").read_bytes()[:MAX_FILE].decode("utf-8", "replace")))
    values = {value.strip() for value in found if not value.startswith(("-----", "#"))}
    long = {value for value in values if len(value) >= LEAST_SECRET}
    shown = {form for value in long for form in (value, quote(value, safe=""), json.dumps(value)[1:-1])}
    return tuple(sorted(shown, key=lambda value: (-len(value), value)))


def _fields(path: Path, line: str) -> Iterator[str]:
    """The values in a line of a secret file: of an assignment, or the password of libpq's format."""
    if (assigned := _ASSIGNED.fullmatch(line.strip())) is not None and path.suffix != ".pem":
        yield assigned[1]
    fields = line.replace("\\:", "\0").split(":")
    if len(fields) == 5:  # host, port, database, user, password
        yield fields[4].replace("\0", ":")


def _secret_files(home: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    yield from (home / "keys").glob("*")
    yield from (home / "offline").glob("*")
    yield home / TOKENS_FILE
    yield from (path for path in home.glob("*") if path.name not in _NO_SECRETS and _is_private(path))
    try:
        config = NodeConfig.load(home / "node.toml", environ)
    except ComityError:
        return
    storage, s3 = config.storage, config.storage.s3
    yield from config.keys.glob("*")
    named = (
        storage.password_file,
        config.gateway.key,
        config.tlog.witness_key,
        config.oidc.secret_file,
        s3.credentials_file if s3 else None,
    )
    yield from (path for path in named if path is not None)


def _is_private(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077


def _without(text: str, secrets: tuple[str, ...]) -> str:
    for pattern in _PATTERNS:
        text = pattern.sub(REDACTED, text)
    text = redacted(text)
    for value in secrets:
        text = text.replace(value, REDACTED)
    return text


def _readme(texts: Mapping[str, str], count: int) -> str:
    listed = "".join(f"  {name:<14} {len(text.encode())} bytes\n" for name, text in sorted(texts.items()))
    return (
        f"A support bundle of {SOFTWARE}, made by `comity support-bundle`.\n\n{listed}\n"
        f"Secrets were cut out in {count} places, marked {REDACTED}. It names addresses, members and files of the\n"
        "node: read it before you send it.\n"
    )


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"


def _archive(texts: Mapping[str, str], now: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=now) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, text in sorted(texts.items()):
            data = text.encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"comity-support/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, now
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
