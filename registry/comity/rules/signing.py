"""Signs what a statement says. A verifier does not load this."""

from __future__ import annotations

from comity.trust.content import Content
from comity.trust.keys import Signer
from comity.trust.statement import Author, Entry, Statement, sign_statement


def sign_content(content: Content, *signers: Signer) -> Entry:
    """The log entry of what `content` says. Raises Malformed if its statement is not valid."""
    return sign_statement(statement_of(content), *signers)


def statement_of(content: Content, by: Author | None = None) -> Statement:
    """The statement to sign; `by` is its author, where no field of the content is. Raises Malformed if it is not
    valid."""
    statement = content.statement(by)
    type(content).parse(statement)
    return statement
