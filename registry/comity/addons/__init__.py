"""Add-ons: what a registry can live without. Each package here is one, and its module `addon` says what it adds.

    attestations   those of other tools: SLSA, in-toto and Sigstore
    derivation     lineage, derivations, differences and bills of materials
    fit            which offers can run a model
    hardware       appraises hardware evidence of offers
    oci            the gateway as an OCI registry, and for Ollama
    schedulers     hand-off files for Slurm, Kubernetes and SkyPilot

The core finds them with `comity.installed_addons` and imports none by its name; an installation without this folder
is the core alone. An add-on imports what it needs of the core, and no other add-on.
"""
