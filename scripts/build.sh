#!/bin/bash
# Configures and builds one preset (CMakePresets.json): scripts/build.sh PRESET [TARGET…]
# Without targets it builds everything. The Makefile's targets call it.
#
# From the environment: CMAKE_ARGS, more arguments to the configuration; JOBS, compilers at once.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1
shift

command -v cmake >/dev/null || {
  echo "build: needs cmake 3.22 or later. On Debian: scripts/install-packages.sh" >&2
  exit 1
}

# Generated files and precompiled headers do not keep ccache from its hits.
export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-pch_defines,time_macros}
if [ -z "${CMAKE_GENERATOR:-}" ] && command -v ninja >/dev/null; then
  export CMAKE_GENERATOR=Ninja
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The configuration's many lines matter only when it fails.
# shellcheck disable=SC2086  # CMAKE_ARGS holds several words
if ! cmake --preset "$preset" ${CMAKE_ARGS:-} >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
grep '^-- Starling' "$log" || true

targets=()
if [ $# != 0 ]; then targets=(--target "$@"); fi
cmake --build --preset "$preset" -j "${JOBS:-$(scripts/jobs.sh)}" "${targets[@]}"
