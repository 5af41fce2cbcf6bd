#!/usr/bin/env bash
# Run a cluster and show what was saved: scripts/run_cluster.sh [SCENARIO.toml] [options of `memcommons run`]
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/install.sh"

install cluster "$root"
exec "$venv/bin/memcommons" run "$@"
