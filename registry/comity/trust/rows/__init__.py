"""The rows of a verdict, one function each: a question, its state, and what the answer rests on.

The numbers are the steps of `verify`, which calls these in order and knows nothing about wording.
"""

from comity.trust.rows.artifact import artifact_row, bytes_row
from comity.trust.rows.conclusion import notes_row, policy_row
from comity.trust.rows.corroboration import corroboration_facts
from comity.trust.rows.documents import documents_row
from comity.trust.rows.findings import Findings
from comity.trust.rows.health import crypto_health_row, time_row
from comity.trust.rows.keys import keys_in_other_hands, time_of_loss, warning_of_loss
from comity.trust.rows.licence import licence_row
from comity.trust.rows.lineage import lineage_row
from comity.trust.rows.logs import cosigners_row, transparency_row
from comity.trust.rows.model_signing import artifact_of_files, bytes_as_signed, judge_model_sig, signed_row, sole
from comity.trust.rows.replicas import replicas_row
from comity.trust.rows.rivals import with_rivals
from comity.trust.rows.safety import safety_row
from comity.trust.rows.signatures import key_policy_row, signatures_row
from comity.trust.rows.upstream import artifact_as_mirrored
from comity.trust.rows.warnings import advisories_row

__all__ = [
    "Findings",
    "advisories_row",
    "artifact_as_mirrored",
    "artifact_of_files",
    "artifact_row",
    "bytes_as_signed",
    "bytes_row",
    "corroboration_facts",
    "cosigners_row",
    "crypto_health_row",
    "documents_row",
    "judge_model_sig",
    "key_policy_row",
    "keys_in_other_hands",
    "licence_row",
    "lineage_row",
    "notes_row",
    "policy_row",
    "replicas_row",
    "safety_row",
    "signatures_row",
    "signed_row",
    "sole",
    "time_of_loss",
    "time_row",
    "transparency_row",
    "warning_of_loss",
    "with_rivals",
]
