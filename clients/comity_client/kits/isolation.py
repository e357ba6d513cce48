"""Run a command without a network: in an empty network namespace, which has no interface but its own loopback.

Root makes the namespace, or a user by a user namespace. If the system allows neither (not Linux, or user namespaces are
disabled), the command keeps the network, and `Isolated.proof` says so: nobody may call what ran then a proof.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from typing import Final

from comity.trust.frozen import frozen

EMPTY_NETWORK: Final = "an empty network namespace"
NO_NAMESPACE: Final = "the normal network: no network namespace is available here"


@frozen
class Isolated:
    """A command line for `subprocess`, how it is isolated in words, and whether it can reach a network."""

    command: list[str]
    proof: str
    network: bool


def offline(command: Sequence[str], *, processes: bool = False) -> Isolated:
    """`command` without any network, if the system allows it.

    Args:
        processes: give it a process namespace too. The kernel ends all processes of the command with its first one,
            and that one with `unshare`.
    """
    prefix = namespace("--net", *(("--pid", "--fork", "--kill-child") if processes else ()))
    if prefix is None:
        return Isolated(list(command), NO_NAMESPACE, True)
    return Isolated([*prefix, *command], EMPTY_NETWORK, False)


@cache
def namespace(*kinds: str, check: str = "true") -> tuple[str, ...] | None:
    """The words before a command that runs it in new namespaces, as options of `unshare`; None if the system allows
    none. `check` is a command for `sh` that must succeed there. Blocking."""
    unshare = shutil.which("unshare")
    if unshare is None or not sys.platform.startswith("linux"):
        return None
    for user in ((), ("--user", "--map-root-user")):
        prefix = (unshare, *user, *kinds)
        if subprocess.run([*prefix, "sh", "-c", check], capture_output=True, check=False).returncode == 0:
            return prefix
    return None
