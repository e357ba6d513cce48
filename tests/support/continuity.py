"""A continuity plan as a person writes it."""

from __future__ import annotations

from typing import Final

FALLBACK: Final = f"""\
[[service.fallback]]
kit = {{ name = "org/smollm2-chat@v1", artifact = "{"77" * 32}" }}
evaluation = {{ by = "{"51" * 32}", suite = "letters", metric = "pass_rate", at_least = "0.9", within_days = 180 }}
approval = {{ scope = "ministry-interior", by = ["{"3c" * 32}"], at_least = 1 }}
machines = {{ own = {{ memory_gib = 8, disk_gib = 20, accelerators = 0, platform = "linux/x86_64" }} }}
copies = {{ outside = 2, tested_within_days = 7 }}
checked_within_days = 7
drilled_within_days = 90

[[service.fallback]]
kit = {{ name = "org/other-chat@v2", artifact = "{"78" * 32}" }}
machines = {{ pact = "{"ab" * 32}" }}
copies = {{ outside = 1, tested_within_days = 30 }}
checked_within_days = 30
drilled_within_days = 365

"""
PLAN: Final = f"""\
schema = "comity/continuity-plan/v1"
owner = "{"51" * 32}"
name = "Ministry of the Interior"
until = 2027-06-30

[policy]
file = "policy.toml"
sha256 = "{"9f" * 32}"

[[service]]
name = "chat"
in_use = {{ kind = "external", vendor = "Example AI Inc.", jurisdiction = "US", base_url = "https://api.example/v1" }}
used_by = ["letters to citizens"]
must_survive = ["reach:US", "dns", "package-index"]
longest_outage = 60

{FALLBACK}[[service]]
name = "search"
in_use = {{ kind = "kit", name = "org/embeddings@v1", artifact = "{"79" * 32}" }}
used_by = []
must_survive = ["jurisdiction:US"]
longest_outage = 240

[[service.fallback]]
kit = {{ name = "org/embeddings@v1", artifact = "{"79" * 32}" }}
machines = {{ own = {{ memory_gib = 4, disk_gib = 10, platform = "linux/x86_64" }} }}
copies = {{ outside = 1, tested_within_days = 30 }}
checked_within_days = 30
drilled_within_days = 365
"""
