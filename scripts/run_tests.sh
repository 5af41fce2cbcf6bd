#!/usr/bin/env bash
# Run the tests: scripts/run_tests.sh [pytest arguments, relative to the project]
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/install.sh"

install tests "$root[test,lint]"
cd -- "$root"
exec "$venv/bin/python" -m pytest -n auto "$@"
