"""Compute offers: which machines a provider lends, to whom, and whether it kept its promises.

offer     the offer document: slices, window, location, eligibility, terms, engine
records   records of an offer's chain by the provider's node, and statements by grantees
amounts   usage, balances of two members, granted nodes over time, fault kinds
chain     the rules of a chain: which record may follow, and what it changes
log_reader   the chains in one log, and the statements that their records answer
fault_proof  published faults, and the proof of a fault

An offer is named by the digest of its document. A request, a grant and every other statement is named by the digest of
its log line (`Entry.digest`). Functions `*_statement` make statements to sign with
`comity.trust.statement.sign_statement`. Times are POSIX seconds, given by the caller.
"""
