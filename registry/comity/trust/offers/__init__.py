"""Compute offers: what is lent, to whom, and whether a provider kept to what it had.

capacity   slices, windows, allocations: what there is and what is asked for
conditions where the machines stand, who may ask, terms, what runs them
offer      the offer document
records    what the provider's node says in the chain of an offer
parties    what the other side says: request, accept, redeem, give back, cut off, default
accounts   usage, and the balance of two members
profile    how many nodes are taken at each instant
state      where a chain stands: its grants, and what is free
rules      what a record does to it, and whether it may
book       what a chain adds up to, and what may follow
hearing    what one log says of offers, with the faults of its chains
deadlines  whether a grant was accepted in time, by the times of those who saw it
faults     how a chain may break the rules
accusing   a node says so
dossier    the proof against a provider, for anybody

An offer is named by its document's digest. A request, a grant, and everything else that is said is named by the digest
of its log line (`Entry.digest`). Sign what `record_statement`, `said_statement`, `usage_statement` and
`answer_statement` make with `comity.trust.statement.sign_statement`. Times are POSIX seconds, given by the caller.
"""
