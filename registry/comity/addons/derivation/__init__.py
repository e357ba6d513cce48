"""What an artifact was made from and differs from: lineage, derivation, differences, and bills of materials.

`derive` compares the weights of two folders tensor by tensor, by making the child's bytes again from the parent's.
`check` finds and pairs the tensors and reads both sides with bounded memory. `steps` and `casts` make from the parent's
bytes those of the child: the same bytes (standard library only), a cast (numpy) or a quantisation (the gguf package).
The result states how much was proven and where the first difference is. Nothing is loaded, unpickled or executed.

Each of `lineage`, `derive`, `diff` and `bom` has a function of a `comity_client.client.Client`, and its command is in
`commands`. Rows of a verdict about lineage are the kernel's (`comity.trust.lineage`).
"""
