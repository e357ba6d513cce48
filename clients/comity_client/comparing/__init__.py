"""What differs between two artifacts: files, tensors, configuration, tokenizer, licence, and who stands behind each.

`sides` gathers what is known of each, from a folder or from the nodes; the others compare, each one thing. What was
looked at in the bytes and what is only said by manifests or signed by somebody is kept apart.
"""
