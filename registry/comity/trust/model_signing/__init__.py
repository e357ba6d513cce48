"""OpenSSF Model Signing: a `model.sig` read, judged and written. Stricter than the reference tool: see
`docs/model-signing.md` for what each of them finds."""

from comity.trust.model_signing.bundle import Bundle, ChainMaterial, KeylessMaterial, KeyMaterial
from comity.trust.model_signing.chains import Moment, parse_roots
from comity.trust.model_signing.coverage import Coverage, cover
from comity.trust.model_signing.ec_keys import ModelKey
from comity.trust.model_signing.judging import Judgement, judge
from comity.trust.model_signing.rule import Identity, KeylessVerifier, ModelSigningRule
from comity.trust.model_signing.statement import ModelStatement, Resource
from comity.trust.model_signing.writing import left_out, list_files, sign_model, signed_by

__all__ = [
    "Bundle",
    "ChainMaterial",
    "Coverage",
    "Identity",
    "Judgement",
    "KeyMaterial",
    "KeylessMaterial",
    "KeylessVerifier",
    "ModelKey",
    "ModelSigningRule",
    "ModelStatement",
    "Moment",
    "Resource",
    "cover",
    "judge",
    "left_out",
    "list_files",
    "parse_roots",
    "sign_model",
    "signed_by",
]
