"""What either unpickler executes is never clean: every opcode, with many arguments, on every kind of stack.

The unpicklers are those of the standard library, in C and in Python, which differ in what they accept. Both import a
recorder here and nothing else, so that nothing runs.
"""

from __future__ import annotations

import copyreg
import io
import itertools
import pickle
import pickletools
import struct
from collections.abc import Iterator
from typing import Final

import pytest
from comity.formats.pickles import is_pickle
from comity.formats.source import BoundedFile, Work


class Recorder:
    """Stands for every class and function that a pickle names."""

    called = False

    def __new__(cls, *arguments: object, **named: object) -> Recorder:
        Recorder.called = True
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        Recorder.called = True


def found_by(module: str, name: str) -> type[Recorder]:
    if any(text.encode("utf-8", "replace").split() != [text.encode("utf-8", "replace")] for text in (module, name)):
        raise pickle.UnpicklingError("nothing can be imported by this name")
    return Recorder


class InC(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[Recorder]:
        return found_by(module, name)

    def persistent_load(self, pid: object) -> None:
        if not isinstance(pid, tuple):
            raise pickle.UnpicklingError("torch takes no other")


class InPython(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> type[Recorder]:
        return found_by(module, name)

    def persistent_load(self, pid: object) -> None:
        if not isinstance(pid, tuple):
            raise pickle.UnpicklingError("torch takes no other")


def executes(data: bytes) -> list[str]:
    """The unpicklers that call something when they load one pickle, or a second one after it."""
    found = []
    for unpickler in (InC, InPython):
        Recorder.called, file = False, io.BytesIO(data)
        try:
            for _ in range(2):
                unpickler(file).load()
        except Exception:  # they fail in many ways
            pass
        if Recorder.called:
            found.append(unpickler.__name__)
    return found


CALLS: Final = {
    "REDUCE": b"cm\nf\n)R.",
    "INST": b"(im\nf\n.",
    "OBJ": b"(cm\nf\no.",
    "NEWOBJ": b"cm\nf\n)\x81.",
    "NEWOBJ_EX": b"cm\nf\n)}\x92.",
    "STACK_GLOBAL": b"\x8c\x01m\x8c\x01f\x93)R.",
    "EXT1": b"\x82\xf0)R.",
    "EXT2": b"\x83\xf0\x00)R.",
    "EXT4": b"\x84\xf0\x00\x00\x00)R.",
    "BUILD": b"cm\nf\n)\x81Nb.",
}
STACKS: Final = {
    "empty": b"",
    "None": b"N",
    "two": b"NN",
    "three": b"NNN",
    "a mark": b"(",
    "items after a mark": b"(NN",
    "a text": b"\x8c\x01a",
    "two texts": b"\x8c\x01m\x8c\x01f",
    "a tuple": b")",
    "a list": b"]",
    "a list and items": b"](N",
    "a dictionary": b"}",
    "a dictionary and items": b"}(NN",
    "a set and items": b"\x8f(N",
    "a memo": b"Nq\x00q\x01",
    "a number": b"K\x01",
    "a class": b"cm\nf\n",
    "a class and arguments": b"cm\nf\n)",
    "a class, arguments and names": b"cm\nf\n)}",
    "a mark and a class": b"(cm\nf\n",
    "an instance and a state": b"cm\nf\n)\x81}",
    "bytes": b"C\x01a",
}
LINES: Final = (
    *(b"", b"0", b"1", b"01", b"00", b"-1", b"+1", b" 1", b"1 ", b"\t1\x0b", b"1L", b"L", b"0L", b"--1", b"1_0", b"_1"),
    *(b"0x10", b"0b1", b"0o7", b"010", b"1.5", b"1e5", b"nan", b"inf", b"-inf", b".", b"1.", b"abc", b"True", b"None"),
    *(
        b"'a'",
        b'"a"',
        b"'a",
        b"a'",
        b"'",
        b"''",
        b"'\\x41'",
        b"'\\'",
        b"''a''",
        b" 'a'",
        b"'a' ",
        b"a b",
        b"a\r",
        b"\r",
    ),
    *(b"\x00", b"1\x00", b"\xff", b"\xd9\xa3", "é".encode(), b"\\u0041", b"\\ud800", b"9" * 30, b"9" * 5000, b"a.b"),
)
"""Arguments of opcodes that read to the end of the line."""
COUNTS: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: ("<B", (0, 1, 2, 200)),
    pickletools.TAKEN_FROM_ARGUMENT4: ("<i", (0, 1, 2, -1, 70_000)),
    pickletools.TAKEN_FROM_ARGUMENT4U: ("<I", (0, 1, 2, 70_000)),
    pickletools.TAKEN_FROM_ARGUMENT8U: ("<Q", (0, 1, 2, 70_000)),
}


def arguments(opcode: pickletools.OpcodeInfo) -> Iterator[bytes]:
    """Sound and malformed arguments of an opcode."""
    argument = opcode.arg
    if argument is None:
        yield b""
    elif argument.n == pickletools.UP_TO_NEWLINE and argument.name == "stringnl_noescape_pair":
        for first, second in itertools.product(LINES[::3], LINES[::4]):
            yield first + b"\n" + second + b"\n"
        yield b"m\nf"
    elif argument.n == pickletools.UP_TO_NEWLINE:
        yield from (line + b"\n" for line in LINES)
        yield b"1"
    elif argument.n in COUNTS:
        form, lengths = COUNTS[argument.n]
        for length in lengths:
            yield struct.pack(form, length) + b"\x01" * max(0, min(length, 3))
    else:
        for number in (0, 1, 2, 4, 5, 0xF0, 2 ** (8 * argument.n - 1) - 1, 2 ** (8 * argument.n) - 1):
            packed = number.to_bytes(max(8, argument.n), "little")[: argument.n]
            if opcode.name not in ("LONG_BINPUT", "PUT") or number < 1_000_000:  # the one in C allocates up to it
                yield packed
        yield b"\x00" * (argument.n - 1)


def streams(opcode: pickletools.OpcodeInfo) -> Iterator[bytes]:
    """Pickles that have the opcode on each kind of stack, with each argument, and before each kind of call."""
    code = opcode.code.encode("latin-1")
    given = list(arguments(opcode))
    few = [each for each in STACKS.values() if each in (b"", b"N", b"(", b"Nq\x00q\x01")]
    for argument in given:
        for stack in few if len(given) > 20 else STACKS.values():
            yield stack + code + argument + CALLS["REDUCE"]
        yield b"\x80\x04" + code + argument + CALLS["REDUCE"]
        yield b"(N0" + code + argument + b"0" + CALLS["REDUCE"]
    for stack, argument in itertools.product(STACKS.values(), (given[0], given[len(given) // 2])):
        yield stack + code + argument + b"."
        yield from (stack + code + argument + call for call in CALLS.values())


@pytest.fixture(autouse=True)
def extension() -> Iterator[None]:
    """A function that is registered under a number, as EXT1, EXT2 and EXT4 name it."""
    copyreg.add_extension("m", "f", 0xF0)
    yield
    copyreg.remove_extension("m", "f", 0xF0)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: str(opcode.name))
def test_what_an_unpickler_executes_is_a_pickle(opcode: pickletools.OpcodeInfo) -> None:
    tried = [(data, executes(data)) for data in streams(opcode) if len(data) < 20_000]
    assert [(data, by) for data, by in tried if by and not is_pickle(BoundedFile.of(data, Work()))] == []
    assert len(tried) >= 250
    assert any(by for _, by in tried) or opcode.name in ("PERSID",)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_both_unpicklers_execute_each_kind_of_call(call: bytes) -> None:
    assert executes(call) == ["InC", "InPython"]


def test_harmless_pickles_execute_nothing() -> None:
    assert [executes(pickle.dumps(each)) for each in (1, "a", [1, {2: (3,)}], {4}, b"5", None, 1.5)] == [[]] * 7
