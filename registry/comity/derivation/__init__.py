"""Was this made from that? Weights of two folders, compared tensor by tensor, by making the child's bytes again.

`weights` finds the tensors, `names` says which of the parent's belongs to which of the child's, `check` reads both with
bounded memory and makes of the parent what the child should be: the same bytes (standard library alone), a cast
(`casts`, numpy) or a quantisation (`blocks`, the gguf package). What comes out says how much was proven and where the
first difference is. Nothing is loaded, unpickled or run.
"""
