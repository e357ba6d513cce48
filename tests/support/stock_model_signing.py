"""Runs the reference tool, `model_signing`, for many command lines in one process of its own environment.

Standard input: a JSON list of jobs. A job is the words of a command line; or, for what only the Python API can do,
`["api", "sign" | "verify", "files" | "shards" | "as signed", HASH, FOLDER, SIGNATURE, KEY]`. Standard output: a JSON
list of [whether it succeeded, what it said].
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import click.testing
from model_signing import hashing, signing, verifying
from model_signing._cli import main


def run(job: list[str]) -> tuple[bool, str]:
    if job[0] != "api":
        result = click.testing.CliRunner().invoke(main, job)
        said = f"{result.output.strip()}\n{result.exception!r}" if result.exception else result.output.strip()
        return result.exit_code == 0, said
    _, verb, method, algorithm, *paths = job
    try:
        by_api(verb, method, algorithm, *map(pathlib.Path, paths))
    except Exception as error:
        return False, repr(error)
    return True, ""


def by_api(
    verb: str, method: str, algorithm: Any, folder: pathlib.Path, signature: pathlib.Path, key: pathlib.Path
) -> None:
    if verb == "sign":
        signer = signing.Config().use_elliptic_key_signer(private_key=key)
        signer.set_hashing_config(listing(method, algorithm, folder, signature)).sign(folder, signature)
        return
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    if method != "as signed":
        verifier.set_hashing_config(listing(method, algorithm, folder, signature))
    verifier.verify(folder, signature)


def listing(method: str, algorithm: Any, folder: pathlib.Path, signature: pathlib.Path) -> hashing.Config:
    config = hashing.Config()
    listed = config.use_shard_serialization if method == "shards" else config.use_file_serialization
    return listed(hashing_algorithm=algorithm).set_ignored_paths(paths=[signature.relative_to(folder)])


sys.stdout.write(json.dumps([run(job) for job in json.load(sys.stdin)]))
