"""A short, named benchmark of a machine, and its figures in an offer: memory bandwidth and matrix rate.

`comity-measure/1` is defined here and never changes; another benchmark gets another number:

    memory      copy a block to another one, both in the memory of one device; bytes read and written, per second
    matrix      multiply two square matrices, 2 n^3 operations, in BF16 where the library and the device have it
    capacity    the memory that the library reports for one accelerator
    each        2 runs that do not count, then 10 that do: the median, the least and the most

                        block       n       of
    an accelerator    1,024 MiB   8,192     the first device
    a processor         256 MiB   1,024     all threads that the library uses

The backend is torch, cupy or numpy, whichever is installed, in this order; the conditions name it with its version, the
device and the date. A figure depends on all of them: compare figures of one backend and one number type only.

In an offer the figures are attributes of a slice, `measured/…`, so that every reader keeps them, older ones too. They
are signed with the offer, and are the lender's claim: nobody else ran the benchmark.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any, Final, Protocol

from comity.rules.offers.offer import Slice
from comity.trust.encoding import Fields, canonical, parse_json
from comity.trust.errors import Malformed, Unavailable
from comity.trust.frozen import frozen

NAME: Final = "comity-measure/1"
SCHEMA: Final = "comity/measured/v1"
PREFIX: Final = "measured/"
WARM_UPS: Final = 2
REPEATS: Final = 10
MIB: Final = 1 << 20
MAX_FILE: Final = 65_536
BACKENDS: Final = ("torch", "cupy", "numpy")

_FIGURE: Final = re.compile(r"(\d{1,13}) (MB/s|GFLOP/s (?:bf16|fp16|fp32)), (\d{1,13}) to (\d{1,13})\Z")
_CAPACITY: Final = re.compile(r"(\d{1,9}) MiB\Z")


@frozen
class MeasuredRate:
    """The median of the runs, the least and the most, in whole units."""

    median: int
    least: int
    most: int
    unit: str

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.median <= self.most:
            raise Malformed("figure is malformed", why="expected 0 < least <= median <= most")

    @classmethod
    def of(cls, rates: Iterable[float], unit: str) -> MeasuredRate:
        found = sorted(max(1, round(rate)) for rate in rates)
        return cls(round(median(found)), found[0], found[-1], unit)

    @classmethod
    def parse(cls, text: str) -> MeasuredRate:
        """Inverse of `str`. Raises Malformed."""
        match = _FIGURE.match(text)
        if match is None:
            raise Malformed("figure is malformed", why=f"{text[:60]!r}")
        return cls(int(match[1]), int(match[3]), int(match[4]), match[2])

    def __str__(self) -> str:
        return f"{self.median} {self.unit}, {self.least} to {self.most}"


@frozen
class MeasuredFigures:
    """Figures of one machine by one benchmark. `capacity_mib` is that of one accelerator, 0 without one."""

    benchmark: str
    memory: MeasuredRate
    matrix: MeasuredRate
    capacity_mib: int
    conditions: str

    def attributes(self) -> dict[str, str]:
        """The attributes of a slice."""
        made = {
            f"{PREFIX}benchmark": self.benchmark,
            f"{PREFIX}conditions": self.conditions,
            f"{PREFIX}matrix": str(self.matrix),
            f"{PREFIX}memory": str(self.memory),
        }
        return made | ({f"{PREFIX}capacity": f"{self.capacity_mib} MiB"} if self.capacity_mib else {})

    @classmethod
    def of_attributes(cls, attributes: Mapping[str, str]) -> MeasuredFigures | None:
        """The figures in the attributes of a slice; None if there are none of a benchmark that is known here."""
        given = {name.removeprefix(PREFIX): text for name, text in attributes.items() if name.startswith(PREFIX)}
        if given.get("benchmark") != NAME:
            return None
        capacity = _CAPACITY.match(given.get("capacity", "0 MiB"))
        try:
            if capacity is None:
                return None
            memory, matrix = MeasuredRate.parse(given["memory"]), MeasuredRate.parse(given["matrix"])
            return cls(NAME, memory, matrix, int(capacity[1]), given["conditions"])
        except (KeyError, Malformed):
            return None

    def encode(self) -> bytes:
        """The file of `comity offer measure`."""
        return canonical({"schema": SCHEMA, "attributes": self.attributes()}) + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> MeasuredFigures:
        """Inverse of `encode`. Raises Malformed (MEASURED)."""
        try:
            fields = Fields(parse_json(data, limit=MAX_FILE, what="figures"), "figures")
            fields.constant("schema", SCHEMA)
            given = fields.object("attributes")
            fields.done()
            names = [f"{PREFIX}{name}" for name in ("benchmark", "conditions", "matrix", "memory", "capacity")]
            found = cls.of_attributes({name: given.text(name, most=200) for name in names if given.has(name)})
            given.done()
        except Malformed as error:
            raise _not_figures(str(error)) from error
        if found is None:
            raise _not_figures(f"they are not of {NAME}")
        return found

    def describe(self) -> tuple[tuple[str, str], ...]:
        capacity = (("capacity", f"{self.capacity_mib} MiB an accelerator"),) if self.capacity_mib else ()
        return (
            ("memory", str(self.memory)),
            ("matrix", str(self.matrix)),
            *capacity,
            ("conditions", f"{self.benchmark}: {self.conditions}"),
        )


def _not_figures(why: str) -> Malformed:
    hint = "comity offer measure --out measured.json"
    return Malformed("not figures of a machine", why=why, hint=hint, code="MEASURED")


def with_figures(part: Slice, figures: MeasuredFigures) -> Slice:
    """The slice with these figures instead of its own. Raises Malformed if it then has too many attributes."""
    own = {name: text for name, text in part.attributes if not name.startswith(PREFIX)}
    return replace(part, attributes=tuple(sorted((own | figures.attributes()).items())))


class MeasureBackend(Protocol):
    """A library on one device. Functions that it gives return when the device has done the work."""

    @property
    def label(self) -> str:
        """Library, version and device."""
        ...

    @property
    def capacity(self) -> int:
        """Bytes of memory of the accelerator; 0 for a processor."""
        ...

    def copier(self, size: int) -> Callable[[], None]:
        """Copies `size` bytes."""
        ...

    def multiplier(self, n: int) -> tuple[str, Callable[[], None]]:
        """The number type, and a function that multiplies two n x n matrices."""
        ...


def measure(backend: MeasureBackend, clock: Callable[[], float], day: str) -> MeasuredFigures:
    """Run the benchmark, which takes some seconds.

    Args:
        clock: seconds, steadily increasing.
        day: the date, for the conditions.
    """
    block, n = (1024 * MIB, 8192) if backend.capacity else (256 * MIB, 1024)
    copy = backend.copier(block)
    memory = MeasuredRate.of((2 * block / seconds / 1e6 for seconds in _timed(copy, clock)), "MB/s")
    kind, multiply = backend.multiplier(n)
    matrix = MeasuredRate.of((2 * n**3 / seconds / 1e9 for seconds in _timed(multiply, clock)), f"GFLOP/s {kind}")
    conditions = f"{backend.label}; copy {block // MIB} MiB, matrix {n}, {REPEATS} runs; {day}"
    return MeasuredFigures(NAME, memory, matrix, backend.capacity // MIB, conditions[:200])


def _timed(work: Callable[[], None], clock: Callable[[], float]) -> list[float]:
    for _ in range(WARM_UPS):
        work()
    seconds = []
    for _ in range(REPEATS):
        begun = clock()
        work()
        seconds.append(max(clock() - begun, 1e-9))
    return seconds


def find_backend(name: str = "") -> MeasureBackend:
    """The backend `name`, or the first that is installed. Raises Unavailable (NO-BACKEND)."""
    makers: Mapping[str, Callable[[], MeasureBackend]] = {"torch": _Torch, "cupy": _Cupy, "numpy": _Numpy}
    for each in (name,) if name else BACKENDS:
        if importlib.util.find_spec(each) is not None:
            return makers[each]()
    why = f"{name or 'none of torch, cupy and numpy'} is {'not ' if name else ''}installed"
    hint = "pip install 'comity[measure]'"
    raise Unavailable("the machine cannot be measured", why=why, hint=hint, code="NO-BACKEND")


class _Torch:
    """PyTorch on its first CUDA (or ROCm) device, else on the processor; BF16 in both cases."""

    def __init__(self) -> None:
        self._torch: Any = importlib.import_module("torch")
        self._cuda = bool(self._torch.cuda.is_available())
        self._device = "cuda:0" if self._cuda else "cpu"

    @property
    def label(self) -> str:
        where = self._torch.cuda.get_device_name(0) if self._cuda else f"{self._torch.get_num_threads()} threads"
        return f"torch {self._torch.__version__}, {where}"

    @property
    def capacity(self) -> int:
        return int(self._torch.cuda.get_device_properties(0).total_memory) if self._cuda else 0

    def copier(self, size: int) -> Callable[[], None]:
        source = self._torch.ones(size // 4, dtype=self._torch.float32, device=self._device)
        target = self._torch.empty_like(source)
        return self._finished(lambda: target.copy_(source))

    def multiplier(self, n: int) -> tuple[str, Callable[[], None]]:
        left, right = (self._torch.ones((n, n), dtype=self._torch.bfloat16, device=self._device) for _ in range(2))
        return "bf16", self._finished(lambda: self._torch.mm(left, right))

    def _finished(self, work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            work()
            if self._cuda:
                self._torch.cuda.synchronize()

        return run


class _Cupy:
    """CuPy on its first device. It has no BF16, so the number type is FP16."""

    def __init__(self) -> None:
        self._cupy: Any = importlib.import_module("cupy")

    @property
    def label(self) -> str:
        name = self._cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        return f"cupy {self._cupy.__version__}, {name}"

    @property
    def capacity(self) -> int:
        return int(self._cupy.cuda.Device(0).mem_info[1])

    def copier(self, size: int) -> Callable[[], None]:
        source = self._cupy.ones(size // 4, dtype=self._cupy.float32)
        target = self._cupy.empty_like(source)
        return self._finished(lambda: self._cupy.copyto(target, source))

    def multiplier(self, n: int) -> tuple[str, Callable[[], None]]:
        left, right = (self._cupy.ones((n, n), dtype=self._cupy.float16) for _ in range(2))
        return "fp16", self._finished(lambda: self._cupy.matmul(left, right))

    def _finished(self, work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            work()
            self._cupy.cuda.get_current_stream().synchronize()

        return run


class _Numpy:
    """NumPy on the processor. It has no BF16, so the number type is FP32. A copy is of one thread."""

    def __init__(self) -> None:
        self._numpy: Any = importlib.import_module("numpy")

    @property
    def label(self) -> str:
        return f"numpy {self._numpy.__version__}, {platform.machine()}, {os.cpu_count()} CPUs"

    @property
    def capacity(self) -> int:
        return 0

    def copier(self, size: int) -> Callable[[], None]:
        source = self._numpy.ones(size // 4, dtype=self._numpy.float32)
        target = self._numpy.empty_like(source)
        return lambda: self._numpy.copyto(target, source)

    def multiplier(self, n: int) -> tuple[str, Callable[[], None]]:
        left, right = (self._numpy.ones((n, n), dtype=self._numpy.float32) for _ in range(2))
        target = self._numpy.empty_like(left)
        return "fp32", lambda: self._numpy.matmul(left, right, out=target)
