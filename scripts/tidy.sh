#!/bin/bash
# Runs clang-tidy over every source, or over those given: scripts/tidy.sh [FILE…]
# Slow where LibTorch is included; not part of CI.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-tidy >/dev/null || {
  echo "tidy: needs clang-tidy. On Debian: sudo apt-get install clang-tidy" >&2
  exit 1
}
scripts/build.sh release  # for generated headers and compile_commands.json
files=("$@")
[ $# != 0 ] || mapfile -t files < <(scripts/sources.sh cc)
printf '%s\0' "${files[@]}" |
  xargs -0 -n 1 -P "${JOBS:-$(scripts/jobs.sh)}" clang-tidy -p build --quiet
echo "tidy: ${#files[@]} files, nothing found"
