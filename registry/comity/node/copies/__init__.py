"""Copies of artifacts at all nodes.

index      what the logs say about copies and audits, in a database of its own beside the ledger
pieces     the pieces of this node's own copies
responder  answers challenges of others
auditor    challenges others, and logs the results
pin_repair keeps pinned artifacts available, and asks others for copies
wanted_answers    answers what others ask for
"""
