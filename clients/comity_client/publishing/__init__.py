"""Statements of this user's: a publication, a repository mirrored from elsewhere, somebody's word on an artifact."""
