#!/bin/bash
# Prints the C++ files of the project, one per line: scripts/sources.sh [SUFFIX…], by default cc h.
set -euo pipefail
cd "$(dirname "$0")/.."
suffixes=("$@")
[ $# != 0 ] || suffixes=(cc h)
folders=()
for folder in runtime router stages sync codec checkpoint interop examples tests bench; do
  [ ! -d "$folder" ] || folders+=("$folder")
done
for suffix in "${suffixes[@]}"; do
  find "${folders[@]}" -name "*.$suffix" -print
done | LC_ALL=C sort
