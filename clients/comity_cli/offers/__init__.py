"""Shared parts of the commands about offers, grants and pacts.

context    options of these commands, and the lines, signer and node that they select
wants      parsing of allocations, times and amounts
finding    search queries
asking     a request for a grant or a pact
holding    the grantee's commands: one own grant and statements about it
lender     the provider's commands
handing    files for an engine from a redemption
fits, balances, drilling    one command each: model fit, balances, cut-off drill
listing, rendering          rows, facts and JSON documents
"""
