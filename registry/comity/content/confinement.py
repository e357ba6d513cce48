"""Takes rights from this process before it reads files of strangers, as far as the kernel can: Landlock and seccomp.

Landlock (Linux 5.13) leaves reading below some folders and nothing else: no write, no execution of files, and from
version 4 on no TCP. Seccomp refuses the calls that start programs, open sockets, or look into other processes. Both
hold for the rest of the process's life and for its children. A program of strangers that has to run gets less: the
files below some folders, and no capability. Sources: landlock(7), seccomp(2), capset(2), linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_ONLY: Final = 1
_READ: Final = 1 << 2 | 1 << 3
"""Reading files and folders."""
_RUN: Final = 1 << 0
"""Executing a file."""
_OF_FILES: Final = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
"""Rights that a rule for something else than a folder may have."""
_FILE_RIGHTS: Final[Mapping[int, int]] = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights on files that a version of Landlock handles; others as the version before."""
_TCP: Final = 3
_TCP_SINCE: Final = 4
"""The version of Landlock that knows TCP."""
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_GET_SECCOMP = 22, 38, 21
_CAPABILITIES: Final = 0x20080522
"""The version of the structures of capset(2)."""
_FILTER: Final = 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM: Final = 1
_X32: Final = 0x40000000
_ARCHITECTURES: Final[Mapping[str, tuple[int, tuple[int, ...]]]] = {
    # execve, execveat, socket, socketpair, connect, bind, ptrace, process_vm_readv, process_vm_writev, kill, tkill
    "x86_64": (0xC000003E, (59, 322, 41, 53, 42, 49, 101, 310, 311, 62, 200)),
    "aarch64": (0xC00000B7, (221, 281, 198, 199, 203, 200, 117, 270, 271, 129, 130)),
}


def landlock_version() -> int:
    """The version of Landlock in this kernel; 0 if it has none, or it is switched off."""
    if platform.system() != "Linux" or platform.machine() not in _ARCHITECTURES:
        return 0
    return max(0, _syscall(_CREATE_RULESET, None, 0, _VERSION_ONLY))


def has_seccomp() -> bool:
    """Whether the kernel takes a filter of calls from this program."""
    return platform.machine() in _ARCHITECTURES and Path("/proc/sys/kernel/seccomp/actions_avail").exists()


def confinement() -> tuple[str, ...]:
    """What `confine` uses here, in words; empty if the kernel has neither."""
    version = landlock_version()
    return (*((f"Landlock {version}",) if version else ()), *(("seccomp",) if has_seccomp() else ()))


def confine(readable: Iterable[Path]) -> tuple[str, ...]:
    """Leave this process only reading below these folders; returns what holds from now on. What the kernel lacks is
    left out."""
    libc = ctypes.CDLL(None, use_errno=True)
    if platform.system() != "Linux" or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return ()
    version = landlock_version()
    held = []
    if version and _restrict_files(version, dict.fromkeys(readable, _READ), tcp=version >= _TCP_SINCE):
        held.append(f"Landlock {version}")
    if has_seccomp() and _filter_calls(libc):
        held.append("seccomp")
    return tuple(held)


def confine_files(readable: Iterable[Path], writable: Iterable[Path]) -> str:
    """Leave this process only reading and executing what is below the folders `readable`, and everything below those
    `writable`; a place may be a file. Returns what holds from now on: empty if the kernel has no Landlock."""
    version = landlock_version()
    if not version or ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return ""
    places = dict.fromkeys(readable, _READ | _RUN) | dict.fromkeys(writable, _rights(version))
    return f"Landlock {version}" if _restrict_files(version, places, tcp=False) else ""


def drop_capabilities() -> None:
    """Give up all capabilities of this process, and those that a program may have that it starts. No effect where there
    are none."""
    if platform.system() != "Linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.capset(struct.pack("<Ii", _CAPABILITIES, 0), struct.pack("<6I", *[0] * 6))


def _rights(version: int) -> int:
    """All rights on files that this version of Landlock knows."""
    return _FILE_RIGHTS[max(known for known in _FILE_RIGHTS if known <= version)]


def _restrict_files(version: int, places: Mapping[Path, int], *, tcp: bool) -> bool:
    """Leave these rights on each place; with `tcp` no connection by TCP. Returns whether it holds."""
    handled = _rights(version)
    attributes = (
        struct.pack("<QQ", handled, _TCP if tcp else 0) if version >= _TCP_SINCE else struct.pack("<Q", handled)
    )
    ruleset = _syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for place, rights in places.items():
            _allow(ruleset, place, rights)
        return _syscall(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, place: Path, rights: int) -> None:
    try:
        descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = rights if place.is_dir() else rights & _OF_FILES
        _syscall(_ADD_RULE, ruleset, 1, struct.pack("<Qi", allowed, descriptor), 0)
    finally:
        os.close(descriptor)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter_calls(libc: ctypes.CDLL) -> bool:
    architecture, refused = _ARCHITECTURES[platform.machine()]
    refuse = len(refused) + 3  # steps from the second one to the last one
    steps = [
        (0x20, 0, 0, 4),  # load the architecture
        (0x15, 0, refuse, architecture),  # another one is refused
        (0x20, 0, 0, 0),  # load the number of the call
        (0x35, refuse - 2, 0, _X32),
        *((0x15, len(refused) - place, 0, number) for place, number in enumerate(refused)),
        (0x06, 0, 0, _ALLOW),
        (0x06, 0, 0, _ERRNO | _EPERM),
    ]
    code = b"".join(struct.pack("<HBBI", *step) for step in steps)
    program = _Program(len(steps), code)
    return bool(libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    values = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    return int(libc.syscall(ctypes.c_long(number), *values))
