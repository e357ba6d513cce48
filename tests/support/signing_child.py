"""A signer in a process of its own, which a test may kill: it signs votes and records the signatures that it released.

For each body it asks the vote file for an INTENT of that round, signs it, and only then appends `round body` to the
file `signed`.
"""

from __future__ import annotations

import os
from pathlib import Path

from comity.trust.charter.votes import Intent
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.statement import sign_payload
from comity_client.signing.votes import open_key


def main(key_file: str, signed: str, prev: str, round_: str, *bodies: str) -> None:
    key = open_key(Path(key_file))
    for body in bodies:
        reading = Intent(sha256(b"member"), Digest(prev), 1, int(round_), Digest(body))
        try:
            key.votes.permit(reading)
        except ComityError:
            continue
        sign_payload(reading.statement().encode(), key)
        descriptor = os.open(signed, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, f"{round_} {body}\n".encode())
        os.close(descriptor)
