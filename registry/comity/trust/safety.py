"""What may be active in a file: kinds that a policy can name. Each is a way in which loading a model runs somebody's
code, or hides from whoever looks whether it does.

An `Inspection` names what it found as `kind`, or as `kind: detail`. Source: protocol, section 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KINDS: Final[Mapping[str, str]] = {
    "pickle": "loading it calls what it names",
    "torchscript": "a program that torch.jit.load prepares to run",
    "python": "source or bytecode that a loader may import",
    "remote-code": "a configuration that asks its reader to import code",
    "keras-lambda": "a Keras layer that holds code",
    "script": "a program for a shell or another interpreter",
    "executable": "native code",
    "chat-template": "a Jinja template that every conversation goes through",
    "template-escape": "a template that reaches for Python's internals",
    "archive": "an archive that was not looked through",
}
FORMATS: Final = frozenset(
    [
        "archive",
        "audio",
        "bytecode",
        "bzip2",
        "empty",
        "executable",
        "ggml",
        "gguf",
        "gzip",
        "hdf5",
        "image",
        "json",
        "keras",
        "npz",
        "numpy",
        "onnx",
        "pdf",
        "pickle",
        "pytorch",
        "safetensors",
        "script",
        "sentencepiece",
        "table",
        "text",
        "tflite",
        "torchscript",
        "unknown",
        "xz",
        "zip",
        "zlib",
    ]
)
"""What an inspection calls a file, by its bytes."""
DEFAULT_ALLOW: Final = ("chat-template",)
"""Nearly every chat model has a template, and runtimes render it in a sandbox: it is shown, and refused on request."""


def kind_of(active: str) -> str:
    """The kind of what an inspection found."""
    return active.partition(":")[0]
