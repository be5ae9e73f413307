#!/bin/sh
# Beyond its own machine the hub answers nobody without a token, and a container is always beyond. One that is not set is
# made up: nobody knows it, and browsers come in by the address that the hub prints.
set -eu
if [ -z "${RAEBURN_HUB_TOKEN:-}" ]; then
  RAEBURN_HUB_TOKEN=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')
  export RAEBURN_HUB_TOKEN
fi
exec "$@"
