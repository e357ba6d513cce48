"""What the artifact is, and whether these are its bytes."""

from __future__ import annotations

from dataclasses import replace

from comity.trust.digest import sha256
from comity.trust.errors import ComityError
from comity.trust.evidence import MODEL_SIG, Evidence, FoundFile
from comity.trust.manifest import Manifest
from comity.trust.rows.wording import here
from comity.trust.verdict import Fact, Row


def artifact_row(evidence: Evidence) -> tuple[Manifest | None, Row]:
    if evidence.manifest is None:
        return None, Row("artifact", "unknown", "no manifest", 1, "missing", hint="comity pull REF")
    try:
        manifest = Manifest.parse(evidence.manifest)
    except ComityError as error:
        return None, Row("artifact", "fail", f"the manifest is no manifest: {error}", 1, "false")
    summary = (
        f"sha256:{manifest.digest}, {len(manifest.files)} file{'s' * (len(manifest.files) != 1)}, {manifest.size} bytes"
    )
    return manifest, Row("artifact", "pass", summary, 1, facts=(here(summary, manifest.digest),))


def bytes_row(evidence: Evidence, manifest: Manifest) -> Row:
    if evidence.files is None:
        return Row("bytes", "not-checked", "nobody looked at the files", 2, "missing")
    found = {file.path: file for file in evidence.files}
    differing = (
        (found[entry.path], entry.size)
        for entry in manifest.files
        if entry.path in found and (found[entry.path].sha256, found[entry.path].size) != (entry.sha256, entry.size)
    )
    wrong = [here(f"{file.path}: {_difference(file.kind, file.size, size)}", file.sha256) for file, size in differing]
    beside = _beside(evidence, manifest)
    unlisted = (file for file in evidence.files if file.path not in manifest.by_path and file not in beside)
    wrong += [here(f"{file.path}: not in the manifest", file.sha256) for file in unlisted]
    missing = [entry.path for entry in manifest.files if entry.path not in found]
    facts = (*wrong, *(Fact(f"{path}: missing", "stale or absent") for path in missing))
    facts += tuple(here(f"{file.path}: beside the artifact, not one of its files", file.sha256) for file in beside)
    whole = f"{len(manifest.files) - len(missing)}/{len(manifest.files)} files hashed here"
    if wrong or (missing and not evidence.partial):
        first = wrong[0].text if wrong else f"{missing[0]}: missing"
        return Row("bytes", "fail", f"{first} ({len(wrong)} differ, {len(missing)} missing)", 2, "false", facts)
    if missing:
        return Row("bytes", "unknown", f"{whole}; partial by request, {len(missing)} missing", 2, "partial", facts)
    return Row("bytes", "pass", f"{whole}, {manifest.size} bytes", 2, facts=(here(whole, manifest.digest), *facts))


def _beside(evidence: Evidence, manifest: Manifest) -> tuple[FoundFile, ...]:
    """A `model.sig` that its signer put there afterwards: no byte of the artifact, and exactly what was read of it."""
    if evidence.model_sig is None or MODEL_SIG in manifest.by_path:
        return ()
    signature = FoundFile(MODEL_SIG, len(evidence.model_sig), sha256(evidence.model_sig))
    return tuple(file for file in evidence.files or () if replace(file, inspection=None) == signature)


def _difference(kind: str, size: int, expected: int) -> str:
    if kind != "file":
        return "a link out of the folder" if kind == "link" else "not a regular file"
    return f"{size} bytes instead of {expected}" if size != expected else "its bytes are not the published ones"
