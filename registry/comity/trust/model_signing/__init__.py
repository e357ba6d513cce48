"""OpenSSF Model Signing: a `model.sig` read, judged and written. Stricter than the reference tool: see
`docs/model-signing.md` for what each of them finds."""
