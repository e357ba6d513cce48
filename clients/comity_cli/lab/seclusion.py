"""Run a command that cannot see some folders, or cannot reach any network.

Folders are hidden in a separate mount namespace, with an empty file system over each; the network is removed by an
empty network namespace. If the system allows neither (not Linux, or user namespaces disabled), an audit hook in the
command's interpreter refuses the folders, and the network stays reachable. `Secluded.proof` names the method.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from comity.trust.frozen import frozen

_HOOK: Final = """
import os, sys
hidden = sys.argv.pop(1).split(os.pathsep)
def refuse(event, args):
    if event in ("open", "os.listdir", "os.scandir") and args and isinstance(args[0], (str, bytes, os.PathLike)):
        path = os.path.realpath(os.fsdecode(args[0]))
        if any(path == folder or path.startswith(folder + os.sep) for folder in hidden):
            raise PermissionError(f"hidden: {path}")
sys.addaudithook(refuse)
from comity_cli.main import main
main()
"""


@frozen
class Secluded:
    """A command line for `subprocess`, a description of the isolation, and whether the command has a network."""

    command: list[str]
    proof: str
    network: bool


def hiding(folders: Sequence[Path], arguments: Sequence[str]) -> Secluded:
    """`comity ARGUMENTS` in a process that cannot see `folders`."""
    prefix = _namespace("--mount")
    paths = [str(folder) for folder in folders]
    if prefix is None:
        command = [sys.executable, "-c", _HOOK, os.pathsep.join(os.path.realpath(path) for path in paths), *arguments]
        return Secluded(command, "an audit hook that refuses every node folder", True)
    script = 'while [ "$1" != -- ]; do mount -t tmpfs -o size=4k none "$1" || exit 1; shift; done; shift; exec "$@"'
    command = [*prefix, "sh", "-c", script, "sh", *paths, "--", sys.executable, "-m", "comity_cli.main", *arguments]
    return Secluded(command, "a separate mount namespace with every node folder hidden", True)


def offline(command: Sequence[str]) -> Secluded:
    """`command` without any network, if the system allows it."""
    prefix = _namespace("--net")
    if prefix is None:
        return Secluded(list(command), "the normal network: no network namespace is available here", True)
    return Secluded([*prefix, *command], "an empty network namespace", False)


def _namespace(kind: str) -> list[str] | None:
    unshare = shutil.which("unshare")
    if unshare is None or not sys.platform.startswith("linux"):
        return None
    for user in ([], ["--user", "--map-root-user"]):
        prefix = [unshare, *user, kind]
        check = "mount -t tmpfs none /mnt" if kind == "--mount" else "true"
        if subprocess.run([*prefix, "sh", "-c", check], capture_output=True, check=False).returncode == 0:
            return prefix
    return None
