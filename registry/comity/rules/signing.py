"""Signs what a statement says. A verifier does not load this."""

from __future__ import annotations

from comity.trust.content import Content
from comity.trust.keys import Signer
from comity.trust.statement import Author, Entry, sign_statement


def sign_content(content: Content, *signers: Signer, by: Author | None = None) -> Entry:
    """The log entry of what `content` says. Raises Malformed if its statement is not valid.

    Args:
        by: the author, where no field of the content is.
    """
    statement = content.statement(by)
    type(content).parse(statement)
    return sign_statement(statement, *signers)
