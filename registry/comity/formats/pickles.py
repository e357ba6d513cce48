"""Is it a pickle: would an unpickler, starting at its first byte, import or call something? Nothing is unpickled.

Opcodes are stepped over as `pickletools` describes them, with the depth of the stack kept in mind, because a text that
begins with the letter `c` looks like an import at first. Pickles of protocol 2 and later begin with a mark and are
known by it. What goes on beyond the bound counts as a pickle: nothing has shown that it is none.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from typing import Final

from comity.formats.source import Cursor, Exhausted, Source
from comity.trust.errors import Malformed

MAX_OPCODES: Final = 20_000
BUDGET: Final = 12 * 1024 * 1024
"""Bytes that are read to find out."""
WINDOW: Final = 512
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


def is_pickle(source: Source, start: int = 0) -> bool:
    """Whether an unpickler that begins at `start` would call something, or go through a pickle that is marked as one.
    Raises OSError where the file does."""
    source = source.rest(start, BUDGET)
    try:
        marked = source.at(0, 1) == b"\x80"
        return _goes_on(Cursor(source, 0, source.size, WINDOW), marked)
    except _NoPickleError:
        return False  # an unpickler would stop there as well
    except Exhausted:
        return True
    except Malformed:
        return source.cut


class _NoPickleError(Exception):
    """No unpickler would go on here."""


def _goes_on(cursor: Cursor, marked: bool) -> bool:
    """Raises Malformed where the bytes end before anything is called, _NoPickleError where they stop making sense."""
    stack: list[object] = []
    imported = False
    for _ in range(MAX_OPCODES):
        opcode = _OPCODES.get(cursor.take(1)[0])
        if opcode is None:
            raise _NoPickleError("no such opcode")
        if not _step_over(cursor, opcode):
            return True
        _apply(stack, opcode)
        imported = imported or opcode.name in _IMPORTS
        if imported and opcode.name in _CALLS:
            return True
        if opcode.name == "STOP":
            if marked:
                return True
            stack = []  # a loader may read the next one from here
    return True


def _step_over(cursor: Cursor, opcode: pickletools.OpcodeInfo) -> bool:
    """Go behind the opcode's argument; False where that is beyond the bound."""
    argument = opcode.arg
    if argument is None:
        return True
    if argument.n == pickletools.UP_TO_NEWLINE:
        for _ in range(_LINES.get(argument.name, 1)):
            line = cursor.line(MAX_LINE)
            if line is None:
                return False
            if opcode.name in _IMPORTS and (not line or line.split() != [line]):
                raise _NoPickleError("prose, where a name would be")
    elif argument.n == 1 and opcode.name == "PROTO":
        if cursor.uint(1) not in PROTOCOLS:
            raise _NoPickleError("no such protocol")
    elif argument.n in _COUNTED:
        cursor.skip(cursor.uint(_COUNTED[argument.n]))
    else:
        cursor.skip(argument.n)
    return True


def _apply(stack: list[object], opcode: pickletools.OpcodeInfo) -> None:
    """What the opcode takes from the stack and puts there, as `pickletools.dis` has it."""
    before = opcode.stack_before
    takes = len(before)
    on_mark = opcode.name == "POP" and bool(stack) and stack[-1] is pickletools.markobject
    if pickletools.markobject in before or on_mark:
        while stack and stack[-1] is not pickletools.markobject:
            stack.pop()
        if not stack:
            raise _NoPickleError("no mark on the stack")
        stack.pop()
        takes = 0 if on_mark else before.index(pickletools.markobject)
    if len(stack) < takes:
        raise _NoPickleError("nothing on the stack")
    del stack[len(stack) - takes :]
    stack.extend(opcode.stack_after)
