"""What an operator may decide about a node: `node.toml`, the environment, the command line, in rising precedence.

    flag  >  COMITY_<SECTION>_<KEY> in the environment  >  node.toml  >  default

An unknown key is an error, with the key that was probably meant. Relative paths start from the folder of `node.toml`.
Secrets have no place here: keys lie in files of their own.

    spelling   the kinds of values, each with what makes it refused
    sections   the settings, section by section, with their defaults
    loading    from the three sources to one `NodeConfig`
"""

from comity.node.config.loading import NodeConfig
from comity.node.config.sections import Gateway, Limits, Listen, Publishing, Storage

__all__ = ["Gateway", "Limits", "Listen", "NodeConfig", "Publishing", "Storage"]
