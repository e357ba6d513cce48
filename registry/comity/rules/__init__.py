"""Pure rules that no verdict depends on: what members, nodes and clients go by beside the kernel, `comity.trust`.

Who decides a charter and who broke its rules; what an audit and a pin are; what an offer of compute binds; which
evidence of hardware is accepted; what a node mirrors and keeps; which statements a verdict is asked for; how logs grow
and files are cut into pieces; what copies count for. Like the kernel, they do no I/O and read no clock.
"""
