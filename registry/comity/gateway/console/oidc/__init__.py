"""Signing in to the console through an OpenID Connect provider, with the extra `[oidc]`.

provider_documents   what a provider says: metadata, keys, tokens. Strict parsers, without I/O
provider             asks the provider, with bounds; keeps metadata and keys for an hour
provider_sign_in     the pages: to the provider, and back with a code
"""
