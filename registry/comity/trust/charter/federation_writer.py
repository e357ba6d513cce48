"""Writes federation files, in pieces of which each holds one epoch at most."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from comity.trust.charter.document import Body
from comity.trust.charter.federation_reader import SCHEMA
from comity.trust.charter.node_records import FederationNode
from comity.trust.encoding import Json


def encode_federation(
    chain: Sequence[Body], certificates: Sequence[Iterable[bytes]], nodes: Iterable[FederationNode]
) -> Iterator[bytes]:
    """The file in pieces: a JSON document with an indent of one space.

    Args:
        chain: the bodies from the genesis on.
        certificates: for each body, the lines of its certificate.
        nodes: the nodes in the file.

    Raises ValueError if there are not as many certificates as bodies, and what an iteration of a certificate raises.
    """
    yield f'{{\n "schema": {json.dumps(SCHEMA)},\n "federation": {json.dumps(chain[0].digest)},\n "epochs": ['.encode()
    for at, (body, lines) in enumerate(zip(chain, certificates, strict=True)):
        epoch = {"body": body.data.decode(), "certificate": [line.decode() for line in lines]}
        yield ("," if at else "").encode() + _indented(epoch, 2)
    listed = [{"record": node.line.decode(), "mutual": list(node.mutual), "open": list(node.open)} for node in nodes]
    yield b'\n ],\n "nodes": ' + _indented(listed, 1).lstrip() + b"\n}\n"


def _indented(value: Json, depth: int) -> bytes:
    """`value` as it is inside of a document with an indent of one space, on a line of its own."""
    margin = "\n" + " " * depth
    return (margin + json.dumps(value, indent=1, ensure_ascii=False).replace("\n", margin)).encode()
