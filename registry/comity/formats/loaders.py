"""Which loader people use for which name, and which readings it tries: the one table of both.

A reading is the way in which a loader begins to read a file: at its first byte, or from its end. Names decide nothing
about readings of bytes, because each of them is asked of every file; a text is interpreted by its name.
`docs/file-safety.md` has this table, written by `docs/generate.py`.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from comity.formats.datasets import is_zarr_chunk
from comity.trust.frozen import frozen


@frozen
class Loader:
    """A loader, the names of the files that people give it, and the readings that it tries, in its order."""

    name: str
    files: tuple[str, ...]
    readings: tuple[str, ...]


_STREAMS: Final = ("gzip", "bzip2", "xz", "lzma", "zlib")

LOADERS: Final = (
    Loader("pickle, cloudpickle, dill", (".pkl", ".pickle", ".p", ".dill", ".sav"), ("pickle",)),
    Loader("joblib", (".joblib", ".pkl", ".gz", ".z"), (*_STREAMS, "pickle")),
    Loader("pandas.read_pickle", (".pkl", ".gz", ".bz2", ".xz", ".zip", ".tar"), (*_STREAMS, "zip", "tar", "pickle")),
    Loader("numpy.load", (".npy", ".npz"), ("zip", "numpy", "pickle")),
    Loader("torch.load", (".bin", ".pt", ".pth", ".ckpt"), ("zip", "tar", "pickle")),
    Loader("torch.jit.load", (".jit", ".pt", ".ts", ".ptl"), ("zip",)),
    Loader("safetensors", (".safetensors",), ("safetensors",)),
    Loader("llama.cpp and its like", (".gguf",), ("gguf",)),
    Loader("Keras", (".keras", ".h5", ".hdf5"), ("zip", "hdf5")),
    Loader("h5py, PyTables, pandas.read_hdf", (".h5", ".hdf5", ".hdf"), ("hdf5",)),
    Loader("whisper.cpp", ("ggml-*.bin",), ("ggml",)),
    Loader("fastText", (".bin", ".ftz"), ("fasttext",)),
    Loader("Core ML", (".mlmodel", ".mlpackage"), ("coreml",)),
    Loader("matplotlib, Pillow, a browser", (".ttf", ".otf", ".woff", ".woff2"), ("font",)),
    Loader("ONNX Runtime", (".onnx", ".ort"), ("onnx",)),
    Loader("TensorFlow", (".pb",), ("tensorflow",)),
    Loader("TensorFlow Lite", (".tflite",), ("tflite",)),
    Loader("flax", (".msgpack",), ("msgpack",)),
    Loader("SentencePiece", (".model", ".spm"), ("sentencepiece",)),
    Loader("transformers, diffusers, sentence-transformers, PEFT", (".json",), ("json",)),
    Loader("PyYAML, Hydra, MLflow", (".yaml", ".yml", "MLmodel"), ("text",)),
    Loader("Jinja", (".jinja", ".jinja2", ".j2"), ("text",)),
    Loader(
        "Python: a program, an import",
        (".py", ".pyw", ".pyc", ".pyo", ".pyi", ".pyx", ".pyz", ".pth", ".whl", ".egg"),
        ("zip", "bytecode", "text"),
    ),
    Loader("Jupyter", (".ipynb",), ("json",)),
    Loader("a shell, another interpreter", (".sh", ".bash", ".bat", ".cmd", ".ps1", ".js", ".lua", ".rb"), ("script",)),
    Loader("the system", (".so", ".dll", ".dylib", ".exe", ".node"), ("executable",)),
    Loader("readRDS, load", (".rds", ".rda", ".rdata"), (*_STREAMS, "serialized")),
    Loader("Java, .NET, MATLAB", (".ser", ".mat"), ("serialized",)),
    Loader("NeMo, tarfile", (".nemo", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"), (*_STREAMS, "tar")),
    Loader("zipfile, zipimport", (".zip", ".mar", ".jar", ".task"), ("zip",)),
    Loader("pyarrow, pandas.read_parquet, datasets", (".parquet", ".arrow", ".feather"), ("table",)),
    Loader("datasets, pandas.read_csv, pandas.read_json", (".jsonl", ".ndjson", ".csv", ".tsv"), (*_STREAMS, "text")),
    Loader("zarr, xarray", (".zarray", ".zmetadata", "zarr.json"), ("json",)),
    Loader("zarr, which reads the metadata first", ("*.zarr/**/0.0", "*.zarr/**/c/0/0"), ("gzip", "raw")),
    Loader("webdataset", (".tar", ".tar.gz"), ("gzip", "tar", "pickle", "numpy", "image", "audio", "json")),
    Loader("soundfile, torchaudio", (".wav", ".flac", ".ogg", ".mp3"), ("audio",)),
    Loader("Pillow, torchvision", (".png", ".jpg", ".jpeg", ".webp", ".gif"), ("image",)),
    Loader("a graph that names it", (".onnx_data", ".onnx.data", "openvino*.bin", ".npy"), ("raw",)),
)

CODE_SUFFIXES: Final = frozenset({".py", ".pyw", ".pyc", ".pyo", ".pyi", ".pyx", ".pyz", ".pyzw", ".ipynb"})
SCRIPT_SUFFIXES: Final = frozenset(
    {
        *(".sh", ".bash", ".zsh", ".csh", ".fish", ".bat", ".cmd", ".ps1", ".psm1", ".js", ".mjs", ".cjs", ".lua"),
        *(".rb", ".pl", ".r", ".jl", ".vbs", ".wsf", ".hta", ".command"),
    }
)
PROGRAM_SUFFIXES: Final = frozenset({".exe", ".com", ".scr", ".msi", ".dll", ".so", ".dylib", ".node", ".class"})
TEMPLATE_SUFFIXES: Final = frozenset({".jinja", ".jinja2", ".j2"})


def active_by_name(path: str) -> tuple[str, ...]:
    """Active content according to the name only."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in CODE_SUFFIXES:
        return ("python",)
    if suffix in SCRIPT_SUFFIXES:
        return ("script",)
    if suffix in PROGRAM_SUFFIXES:
        return ("executable",)
    return ("chat-template",) if suffix in TEMPLATE_SUFFIXES else ()


def is_raw_by_name(path: str) -> bool:
    """Whether a graph in another file takes numbers from this one: no loader reads it alone."""
    name = PurePosixPath(path).name.lower()
    if is_zarr_chunk(PurePosixPath(path).parts):
        return True
    if name.endswith((".onnx_data", ".onnx.data")) or ".onnx_data" in name or ".onnx.data" in name:
        return True
    return name.startswith("openvino") and name.endswith(".bin")


def is_packed_chunk(path: str, head: bytes) -> bool:
    """Whether a file is a chunk of Zarr in zstd, which nothing unpacks but the codec that the metadata names."""
    return head.startswith(b"\x28\xb5\x2f\xfd") and is_zarr_chunk(PurePosixPath(path).parts)


@frozen
class FormatRule:
    """What is read of a format, what a clean answer means (empty: it is never clean), and where this ends."""

    read: str
    clean: str
    ends: str = ""


FORMATS: Final[dict[str, FormatRule]] = {
    "safetensors": FormatRule(
        "the header, at most 8 MiB of it; no byte of the tensors",
        "every tensor has the bytes that its type and shape need, and the tensors tile the rest of the file",
    ),
    "gguf": FormatRule(
        "the header, at most 32 MiB of it",
        "keys, types and tensors are sound; chat templates are named",
        "the templates are judged by names and spellings, as in the next table",
    ),
    "json": FormatRule(
        "all of it, at most 64 MiB; configurations at most 4 MiB and 200,000 values",
        "no key, however it is escaped, makes transformers, diffusers, sentence-transformers, PEFT, Hydra, Keras or "
        "Jupyter import or call anything",
        "of a document that is larger, or is not JSON, the strings are read and not the structure; other programs may "
        "call what another key names; of Zarr, no codec is one of another package",
    ),
    "text": FormatRule(
        "all of it, at most 32 MiB; of a larger text the first MiB and the last 64 KiB; UTF-16 only with a mark and a "
        "name as `.txt`, `.md` or `.csv`",
        "it is text, and its name is not that of a program; in YAML no tag makes an object; in templates nothing "
        "accesses internals of Python",
        "a program that executes any text, whatever its name, is not stopped",
    ),
    "numpy": FormatRule("the header of each array", "no type in it, in any field, is a Python object"),
    "npz": FormatRule("the header of each array", "as for numpy", "the numbers of compressed arrays are not unpacked"),
    "onnx": FormatRule(
        "every node, graph, function and tensor description; not the numbers",
        "only operators of ONNX and ONNX Runtime, none of which runs Python, and external data inside the folder",
        "errors of the runtime's kernels are not found",
    ),
    "ggml": FormatRule(
        "whisper.cpp: the parameters, every word and the head of every tensor; not the numbers",
        "the tensors fill the file to its end",
        "ggml files of old versions of llama.cpp, and of other programs, are *not inspected*",
    ),
    "fasttext": FormatRule(
        "every word, and the sizes of the matrices; not the numbers", "the matrices fill the file to its end"
    ),
    "coreml": FormatRule(
        "every model, layer, operation and reference to a file; of `weight.bin` the descriptions of the blobs",
        "no layer is a class of the app, no file outside the package is named, the blobs fill the file",
        "a linked or a serialised model is *not inspected*",
    ),
    "font": FormatRule(
        "the list of tables; of WOFF the length",
        "the tables fill the file to its end",
        "errors of renderers are not found",
    ),
    "tflite": FormatRule("the list of operators", "only operators of TensorFlow Lite and MediaPipe"),
    "sentencepiece": FormatRule(
        "the list of pieces and the fields after it",
        "it is fields of that message to its end",
        "its normalisation maps (`nfkc*.bin`) are *unknown*",
    ),
    "msgpack": FormatRule("every item; not the numbers", "it is one map to its end; asked only of names in .msgpack"),
    "hdf5": FormatRule(
        "every object and its attributes",
        "no attribute is a pickle, a Keras layer with code or a class of another package; no link to other files",
        "groups and attributes in fractal heaps are not read: such a file is *not inspected*",
    ),
    "keras": FormatRule(
        "all members",
        "every object of the configuration is a class or function of Keras' modules for layers and their like",
    ),
    "zip": FormatRule(
        "the directory, and every member with all readings, unpacked to 64 MiB in all",
        "every member is clean, none shares bytes or leaves the folder, and all readers find the same directory",
    ),
    "tar": FormatRule(
        "the head of every member, and every member with all readings",
        "every member is clean and a regular file inside the folder",
    ),
    "gzip": FormatRule("all members of the stream, unpacked to 64 MiB", "what it unpacks to is clean"),
    "bzip2": FormatRule("as gzip", "as gzip"),
    "xz": FormatRule("as gzip", "as gzip"),
    "lzma": FormatRule("as gzip", "as gzip"),
    "zlib": FormatRule("as gzip", "as gzip"),
    "table": FormatRule(
        "of Parquet the whole footer; of Arrow's files the footer, of its streams every message; the schemas of "
        "Arrow, Spark and Avro in them; of TensorFlow's records (`tfevents`) every length and its checksum",
        "no type in it is a pickle, or made from a name by Spark or Avro; every extension type is a known one; "
        "columns, batches and records are in the file, and columns in other files inside the folder",
        "the pages of columns are not unpacked; SQLite and encrypted tables are *not inspected*; ORC, Avro and the "
        "first version of Feather are unknown here",
    ),
    "image": FormatRule(
        "the magic bytes; of PNG, WebP and JPEG the lengths of the parts, of JPEG up to the first scan",
        "a decoder reads it; PNG and WebP end where they say",
        "errors of decoders are not found",
    ),
    "audio": FormatRule(
        "the magic bytes; of WAV and Ogg the lengths of all parts, of FLAC those of its metadata",
        "a decoder reads it; WAV and Ogg end where they say",
        "errors of decoders are not found",
    ),
    "pdf": FormatRule(
        "the magic bytes", "no loader of models reads it", "the scripts that a PDF viewer may run are not judged"
    ),
    "raw": FormatRule(
        "the first bytes and the end, with all readings",
        "no reading begins, and the name says that another file takes numbers from it",
        "chunks of Zarr in blosc and zstd are not unpacked; in a zip they are *unknown*",
    ),
    "empty": FormatRule("its size", "there is nothing to read"),
    "pytorch": FormatRule("the directory, every pickle and every other member; not the storages", ""),
    "torchscript": FormatRule("as pytorch", ""),
    "tensorflow": FormatRule("the fields of the message", "", "operators read and write files: a graph is a program"),
    "pickle": FormatRule("at most 20,000 opcodes and 12 MiB", "", "which functions it calls is not judged"),
    "serialized": FormatRule("the magic bytes", ""),
    "bytecode": FormatRule("the magic bytes", ""),
    "script": FormatRule("the first line", ""),
    "executable": FormatRule("the magic bytes", ""),
    "archive": FormatRule("the magic bytes: zstd, lz4, 7z, rar and others", ""),
    "unknown": FormatRule("the first bytes and the end, with all readings", ""),
}
