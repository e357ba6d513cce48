"""`comity run-with`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

import click
from comity.trust.errors import NotFound, Unavailable

from comity_cli.command import Command, examples, output
from comity_cli.gateways import check_answers, endpoint, gateway_options, warn_of_proxy

_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)


@examples(
    "comity run-with --node ./node-ch -- hf download swiss-ai/apertus-8b",
    "comity run-with --node https://models.example.org --token-file ./token -- vllm serve swiss-ai/apertus-8b",
    "comity run-with --node node-es.example.org -- hf download swiss-ai/apertus-8b",
    "comity run-with --offline -- python train.py",
)
@click.command(
    cls=Command,
    name="run-with",
    short_help="Run one program with a node as its Hugging Face Hub.",
    context_settings={"allow_interspersed_args": False},
)
@gateway_options
@click.option("--offline", is_flag=True, help="Use only the cache on this machine; no node is asked.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def command(
    directory: Path | None,
    node: str | None,
    url: str,
    token_file: Path | None,
    ca: Path | None,
    offline: bool,
    program: tuple[str, ...],
) -> None:
    """Replace this process by CMD, with the environment that `comity env` prints: an unmodified Hugging Face client in
    CMD reads from the node. The exit status is that of CMD."""
    from comity_client.hub_environment import OFFLINE, hub_environment, offline_environment

    if offline:
        variables = offline_environment()
    else:
        variables = hub_environment(endpoint(directory, node, url).url, token_file=token_file, ca=ca)
        if os.environ.get(OFFLINE, "").upper() in ("1", "ON", "YES", "TRUE"):
            output().warn(f"{OFFLINE} is set: the program will read its cache and ask no node")
        else:
            warn_of_proxy(variables.set["HF_ENDPOINT"])
            check_answers(variables.set["HF_ENDPOINT"])
    _replace_process(program, variables.applied(os.environ))


def _replace_process(program: tuple[str, ...], environ: dict[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in _IGNORED_BY_PYTHON}
    try:
        os.execvpe(program[0], program, environ)  # signals that are ignored here would stay ignored in it
    except OSError as error:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        raise _start_failed(program[0], error) from error


def _start_failed(program: str, error: OSError) -> Unavailable:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"no program {program!r}", hint="comity run-with [OPTIONS] -- CMD...")
    return Unavailable(f"{program!r} cannot be run", why=error.strerror or "")
