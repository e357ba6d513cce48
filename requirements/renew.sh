#!/usr/bin/env bash
# Write the hash-pinned locks anew, with the newest releases that pyproject.toml's ranges allow. Needs `uv`, which the
# extra `dev` installs. node.txt is what the container installs, dev.txt what CI installs before the project itself.
set -euo pipefail
cd "$(dirname "$0")/.."

lock() { # FILE EXTRA... : the requirements of the project with these extras
  local file=$1 extras=(); shift
  for extra in "$@"; do extras+=(--extra "$extra"); done
  uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
    --no-annotate --custom-compile-command requirements/renew.sh "${extras[@]}" pyproject.toml -o "requirements/$file"
}

lock node.txt node postgres s3 oidc
lock dev.txt dev
# What builds a release, beside node.txt: the manual pages are made by the commands themselves.
printf 'build>=1.2\nhatchling>=1.27\n' | uv pip compile --quiet --upgrade --generate-hashes --universal \
  --python-version 3.11 --no-emit-index-url --no-annotate --custom-compile-command requirements/renew.sh - \
  -o requirements/build.txt
