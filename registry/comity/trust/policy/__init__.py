"""The policy of whoever verifies: what they pin, and what they demand. TOML, under the owner's change control.

schema = "comity/policy/v1"
[[pin]]                          # charter bodies that decide who counts
file = "federation.json"         # a federation file, relative to the policy
body = "9f2c…"                   # this one of its bodies; the newest where none is named
[publishers]
accept = ["51aa…"]               # only these identities; empty or absent: any, shown by name
[publishers.rotations]           # keys retired up to this rotation of an identity count only below its cut
"51aa…" = "77c0…"
[cosigners]
at_least = 2                     # distinct members other than the log's own
jurisdictions = 2                # in at least so many jurisdictions
outside = ["publisher"]          # not counting these: codes, or "publisher" for its own and its log's
post_quantum = false
[licences]
accept = ["apache-2.0"]
[advisories]
refuse_from = ["51aa…"]          # identities or nodes whose advisories refuse
[time]
as_of = 2026-11-24T00:00:00Z     # judge freshness as of then; no clock is ever read
max_age_days = 30
[lineage]
parents_by_digest = true         # refuse a parent that is named without a digest
refuse_licence_conflicts = true  # refuse licences that conflict along the lineage, by a table of well-known ones
[upstream]
corroborated = 2                 # of what nobody named published: how many members must have mirrored the same bytes
[model_signing]                  # whose OpenSSF model.sig counts as a signature
keys = ["lab.pub"]               # public keys, PEM files relative to the policy
certificates = ["roots.pem"]     # authorities for certificates, judged at as_of or when cosigners had seen it
sigstore_root = "trusted_root.json"
unsigned = [".gitattributes"]    # files and folders that need not be signed
require = false                  # true: nothing else will do for the row
[[model_signing.identity]]       # keyless signers, by the extra [sigstore]
identity = "release@lab.example"
issuer = "https://accounts.example"
[safety]
allow = ["chat-template"]        # kinds of active content, paths, or sha256:… of files; these by default
formats = ["safetensors"]        # no files but of these formats; absent: any
[documents]
require = ["card"]               # what the publisher has to put beside it: card, training-summary, evaluation
[rows]
require = ["artifact", "bytes", "signatures", "transparency", "cosigners"]
"""

from comity.trust.policy.cosigners import PUBLISHER, CosignerRule
from comity.trust.policy.freshness import DEFAULT_MAX_AGE_DAYS, Freshness
from comity.trust.policy.lineage import LineageRule
from comity.trust.policy.names import DEFAULT_REQUIRED, ROWS
from comity.trust.policy.reading import MAX_BYTES, SCHEMA, parse_policy
from comity.trust.policy.safety import SafetyRule
from comity.trust.policy.upstream import UpstreamRule
from comity.trust.policy.values import Policy

__all__ = [
    "DEFAULT_MAX_AGE_DAYS",
    "DEFAULT_REQUIRED",
    "MAX_BYTES",
    "PUBLISHER",
    "ROWS",
    "SCHEMA",
    "CosignerRule",
    "Freshness",
    "LineageRule",
    "Policy",
    "SafetyRule",
    "UpstreamRule",
    "parse_policy",
]
