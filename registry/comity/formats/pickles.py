"""Whether an unpickler that reads some bytes would call anything. Nothing is unpickled.

Opcodes are stepped over as `pickletools` describes them, with the stack depth tracked, because text that begins with
the letter `c` looks like an import at first. An unpickler would stop at the bytes at which this one says no. Pickles of
protocol 2 and later begin with a magic byte. A stream that goes on beyond the limit counts as a pickle. After a pickle
another one may begin, as in the files of older versions of PyTorch.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from typing import Final

from comity.formats.source import BoundedFile, BudgetExceeded, Cursor, NotInspected
from comity.trust.errors import Malformed

MAX_OPCODES: Final = 20_000
PICKLE_BUDGET: Final = 12 * 1024 * 1024
"""Bytes read to recognise a pickle."""
PICKLE_WINDOW: Final = 512
MAX_LINE: Final = 1024 * 1024
PROTOCOLS: Final = range(6)
_CALLS: Final = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"})
_IMPORTS: Final = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
_OPCODES: Final[Mapping[int, pickletools.OpcodeInfo]] = {ord(op.code): op for op in pickletools.opcodes}
_COUNTED: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_LINES: Final = {"stringnl_noescape_pair": 2}
_DIGITS: Final = frozenset(b"0123456789")
_NUMBERS: Final = frozenset({"decimalnl_short", "decimalnl_long"})


def is_pickle(source: BoundedFile, start: int = 0) -> bool:
    """Whether an unpickler that starts at `start` would call something, or read a pickle that has the magic byte.
    Raises NotInspected, and OSError if the file does."""
    source = source.slice_from(start, PICKLE_BUDGET)
    try:
        has_magic = source.read_at(0, 1) == b"\x80"
        return _executes(Cursor(source, 0, source.size, PICKLE_WINDOW), has_magic)
    except _NotPickleError:
        return False  # an unpickler would stop here too
    except BudgetExceeded:
        return True
    except NotInspected:
        raise
    except Malformed:
        return source.truncated


class _NotPickleError(Exception):
    """An unpickler would fail here."""


def _executes(cursor: Cursor, has_magic: bool) -> bool:
    """Whether the opcodes call something. Raises Malformed if the bytes end before any call, _NotPickleError if they
    are not valid."""
    stack: list[object] = []
    imported = False
    for _ in range(MAX_OPCODES):
        cursor.step()
        opcode = _OPCODES.get(cursor.take(1)[0])
        if opcode is None:
            raise _NotPickleError("unknown opcode")
        if opcode.name == "PERSID":
            raise _NotPickleError("no loader takes an object that is named by a text")
        if not _step_over(cursor, opcode):
            return True
        _apply(stack, opcode)
        imported = imported or opcode.name in _IMPORTS
        if imported and opcode.name in _CALLS:
            return True
        if opcode.name == "STOP":
            if has_magic:
                return True
            stack = []  # a loader may read another pickle from here
    return True


def _step_over(cursor: Cursor, opcode: pickletools.OpcodeInfo) -> bool:
    """Step over the opcode's argument; False if a line exceeds MAX_LINE, or the call follows at once."""
    argument = opcode.arg
    if argument is None:
        return True
    if argument.n == pickletools.UP_TO_NEWLINE:
        for place in range(_LINES.get(argument.name, 1)):
            try:
                line = cursor.line(MAX_LINE)
            except Malformed:
                if opcode.name == "INST" and place == 1 and _is_name(cursor.rest(MAX_LINE)):
                    return False  # the unpickler in Python, which joblib uses, needs no line feed, and calls at once
                raise
            if line is None:
                return False
            if opcode.name in _IMPORTS and not _is_name(line):
                raise _NotPickleError("not a name")
            if argument.name == "stringnl" and line[:1] not in (b"'", b'"'):
                raise _NotPickleError("no quote")
            if argument.name in _NUMBERS and _DIGITS.isdisjoint(line) and b"\0" not in line:  # to C it is the end
                raise _NotPickleError("not a number")
    elif argument.n == 1 and opcode.name == "PROTO":
        if cursor.uint(1) not in PROTOCOLS:
            raise _NotPickleError("unknown protocol")
    elif argument.n in _COUNTED:
        cursor.skip(cursor.uint(_COUNTED[argument.n]))
    else:
        cursor.skip(argument.n)
    return True


def _is_name(line: bytes) -> bool:
    return line.split() == [line]


def _apply(stack: list[object], opcode: pickletools.OpcodeInfo) -> None:
    """Apply the opcode's effect to the stack, as `pickletools.dis` does."""
    before = opcode.stack_before
    takes = len(before)
    on_mark = opcode.name == "POP" and bool(stack) and stack[-1] is pickletools.markobject
    if pickletools.markobject in before or on_mark:
        while stack and stack[-1] is not pickletools.markobject:
            stack.pop()
        if not stack:
            raise _NotPickleError("no mark on the stack")
        stack.pop()
        takes = 0 if on_mark else before.index(pickletools.markobject)
    if len(stack) < takes:
        raise _NotPickleError("stack underflow")
    del stack[len(stack) - takes :]
    stack.extend(opcode.stack_after)
