"""The halves of this room that need the extra `[gguf]`, imported when they are first used; without it an error says how
to get it. The standard library suffices to compare tensors that were copied, into one file or over several."""

from __future__ import annotations

from importlib import import_module, metadata
from importlib.util import find_spec
from types import ModuleType

from comity.trust.errors import Unavailable


def casts() -> ModuleType:
    """Raises Unavailable (NO-GGUF)."""
    return _extra("casts")


def ggml() -> ModuleType:
    """Raises Unavailable (NO-GGUF)."""
    return _extra("ggml")


def installed() -> bool:
    """Whether the extra is there; nothing of it is imported."""
    try:
        return find_spec("gguf") is not None and find_spec("numpy") is not None
    except ImportError:  # from a finder that refuses
        return False


def versions() -> dict[str, str]:
    """What computed it: the versions of Comity and of the packages of the extra, where they are installed."""
    used = ("comity", "gguf", "numpy") if installed() else ("comity",)
    return {name: metadata.version(name) for name in used}


def _extra(module: str) -> ModuleType:
    try:
        return import_module(f"comity.derivation.{module}")
    except ImportError as error:
        raise Unavailable(
            "casts and GGUF files cannot be re-derived here",
            why=f"the packages for it are not installed ({error})",
            hint="pip install 'comity[gguf]'",
            code="NO-GGUF",
        ) from error
