"""What the commands about offers and grants share: where lines come from, who speaks, and how chains are shown.

counter    options of those commands, and what they stand for: lines from nodes or parcels, a voice, a node
wants      what people type when they ask for machines
finding    what they look for among offers
asking     a request, for a grant or for a pact
holding    the grantee's side of a grant
lender     the provider's side, its commands
handing    from a redemption to texts for an engine
fits, balances, drilling    one command each: does a model fit, who owes whom, would a cut-off work
listing, rendering          rows and facts for people, documents for programs
"""
