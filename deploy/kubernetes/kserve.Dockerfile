# The image of the storage containers in kserve.yaml: the node's image, and the policy of this cluster.
#   mkdir trust && comity policy new --out trust/policy.toml
#   docker build -f deploy/kubernetes/kserve.Dockerfile -t registry.example.org/comity-kserve:0.1.0 trust
ARG COMITY=comity:0.1.0
FROM ${COMITY}
COPY *.toml *.json /etc/comity/
