"""Shared parts of the commands about offers, grants and pacts.

context    options of these commands, and the lines, signer and node that they select
arguments  parsing of allocations, times, amounts and search queries
requests   a request for a grant or a pact
own_grant  the grantee's commands: one own grant and statements about it
provider   the provider's commands, and files for an engine from a redemption
fits       which offers can run a model
drill      a rehearsal of a cut-off
rendering  rows, facts and JSON documents
"""
