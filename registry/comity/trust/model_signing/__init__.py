"""OpenSSF Model Signing: reads, judges and writes `model.sig`. Stricter than the reference tool; the differences are in
`docs/model-signing.md`."""
