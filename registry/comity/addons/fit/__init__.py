"""Whether a model fits the machines of an offer.

kv_cache       the KV-cache that a model needs, by the attention that its configuration describes
model_memory   what a model needs in memory, from a folder or from nodes
fit            the arithmetic of what fits where
command        `comity offer fit`
"""
