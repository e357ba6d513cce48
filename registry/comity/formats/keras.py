"""What a Keras configuration would call when it is loaded: layers with code, and classes and functions of modules.

Keras imports the `module` of each object and takes the `class_name` from it. Only modules of Keras that hold layers and
their like are accepted; its other modules have functions that download files or switch the safe mode off. Source:
keras.saving.serialization_lib, and the layers of TensorFlow's Keras 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

KIND: Final = "keras-lambda"
_CODE_CLASSES: Final = frozenset(
    {
        "Lambda",
        "__lambda__",
        "TorchModuleWrapper",
        "TFSMLayer",
        "JaxLayer",
        "FlaxLayer",
        "TFOpLambda",
        "SlicingOpLambda",
    }
)
_ROOTS: Final = frozenset({"keras", "tf_keras", "keras_hub", "keras_nlp", "keras_cv"})
_PARTS: Final = frozenset(
    {
        *("layers", "models", "optimizers", "losses", "metrics", "initializers", "regularizers", "constraints"),
        *("activations", "dtype_policies", "quantizers", "ops", "random", "engine", "applications", "legacy"),
    }
)
_BUILTINS: Final = frozenset({"function", "float", "int", "str", "bool", "list", "dict", "tuple", "slice"})
_TENSORFLOW_FUNCTIONS: Final = ("math.", "nn.", "__operators__.", "linalg.", "image.", "signal.", "keras.")
_PLAIN_FUNCTIONS: Final = frozenset(
    {
        *("reshape", "concat", "cast", "stack", "unstack", "split", "transpose", "expand_dims", "squeeze", "gather"),
        *("gather_nd", "tile", "pad", "shape", "where", "one_hot", "identity", "stop_gradient", "zeros_like"),
        *("ones_like", "clip_by_value", "broadcast_to", "reverse", "range", "fill", "convert_to_tensor", "size"),
    }
)


def active_in_object(members: Sequence[tuple[str, Any]]) -> Iterator[str]:
    """Active content of one object of a JSON document, with all members of each name."""
    classes = [value for name, value in members if name == "class_name" and isinstance(value, str)]
    modules = [value for name, value in members if name == "module" and isinstance(value, str)]
    for name in classes:
        if name in _CODE_CLASSES and not _is_known_function(name, members):
            yield KIND if name == "Lambda" else f"{KIND}: {name[:60]}"
        for module in modules:
            if not _is_accepted(module, name):
                yield f"{KIND}: {module[:60]}.{_called(name, members)[:60]}"


def _is_known_function(name: str, members: Sequence[tuple[str, Any]]) -> bool:
    """Whether a layer of one TensorFlow function names one that only computes."""
    if name not in ("TFOpLambda", "SlicingOpLambda"):
        return False
    configs = [value for key, value in members if key == "config"]
    functions = [config.get("function") for config in configs if isinstance(config, dict)]
    return bool(functions) and all(
        isinstance(function, str) and (function.startswith(_TENSORFLOW_FUNCTIONS) or function in _PLAIN_FUNCTIONS)
        for function in functions
    )


def _is_accepted(module: str, name: str) -> bool:
    if module == "builtins":
        return name in _BUILTINS
    root, *parts = module.split(".")
    if root not in _ROOTS:
        return False
    parts = parts[1:] if parts[:1] == ["src"] else parts
    return parts[0] in _PARTS if parts else name[:1].isupper()


def _called(name: str, members: Sequence[tuple[str, Any]]) -> str:
    functions = [value for key, value in members if key == "config" and isinstance(value, str)]
    return functions[0] if name == "function" and functions else name
