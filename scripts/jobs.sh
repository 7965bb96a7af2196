#!/bin/bash
# Prints how many compilers to run at once: one per processor, but no more than memory allows, since
# a file that includes LibTorch takes up to 1.5 GB.
set -euo pipefail
processors=$(nproc 2>/dev/null || echo 2)
memory_kib=$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo 2>/dev/null || true)
fit=$((${memory_kib:-3145728} / 1572864))
jobs=$((fit < processors ? fit : processors))
echo $((jobs < 1 ? 1 : jobs))
