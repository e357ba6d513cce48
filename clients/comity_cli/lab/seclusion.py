"""Run a `comity` command that cannot see some folders.

They are hidden in a separate mount namespace, with an empty file system over each. If the system does not allow that
(not Linux, or user namespaces disabled), an audit hook in the command's interpreter refuses them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from comity_client.kits.isolation import Isolated, namespace

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


def hiding(folders: Sequence[Path], arguments: Sequence[str]) -> Isolated:
    """`comity ARGUMENTS` in a process that cannot see `folders`."""
    prefix = namespace("--mount", check="mount -t tmpfs none /mnt")
    paths = [str(folder) for folder in folders]
    if prefix is None:
        command = [sys.executable, "-c", _HOOK, os.pathsep.join(os.path.realpath(path) for path in paths), *arguments]
        return Isolated(command, "an audit hook that refuses every node folder", True)
    script = 'while [ "$1" != -- ]; do mount -t tmpfs -o size=4k none "$1" || exit 1; shift; done; shift; exec "$@"'
    command = [*prefix, "sh", "-c", script, "sh", *paths, "--", sys.executable, "-m", "comity_cli.main", *arguments]
    return Isolated(command, "a separate mount namespace with every node folder hidden", True)
