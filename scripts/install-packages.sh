#!/bin/bash
# Installs the Debian packages that building Starling takes: only those that are missing, as root or
# through sudo. Does nothing where all are there. Elsewhere than on Debian and its relatives it lists
# what is needed and goes on, since the build finds libraries in other places too
# (CMAKE_PREFIX_PATH).
#
#   scripts/install-packages.sh           install what is missing
#   scripts/install-packages.sh --check   install nothing; exit 1 if something is missing
set -euo pipefail

# One group per line: what for | packages.
groups=(
  "compiler and build tools|build-essential cmake ninja-build ccache pkg-config git python3"
  "tensors (LibTorch), on the BLAS that shares LibTorch's threads|libtorch-dev libopenblas0-openmp"
  "messages between peers|libzmq3-dev cppzmq-dev libcapnp-dev capnproto"
  "base libraries, hashes|libabsl-dev libssl-dev libxxhash-dev"
  "command line, run files, logs, JSON|libcli11-dev libtomlplusplus-dev libspdlog-dev libfmt-dev nlohmann-json3-dev"
  "tokenizers: patterns, Unicode normal forms|libpcre2-dev libutf8proc-dev"
  "tests|libgtest-dev libgmock-dev libsentencepiece-dev python3-torch"
  "benchmarks of single paths|libbenchmark-dev"
)

say() { echo "install-packages: $*"; }

can_ask=no
if [ -t 0 ]; then can_ask=yes; fi

# Runs a command as root; 77 if that is not possible.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && { [ $can_ask = yes ] || sudo -n true 2>/dev/null; }; then
    sudo "$@"
  else
    return 77
  fi
}

is_installed() {
  dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

find_missing() {
  missing=()
  local group package
  for group in "${groups[@]}"; do
    for package in ${group#*|}; do
      is_installed "$package" || missing+=("$package")
    done
  done
}

list_needed() {
  local group package wanted
  for group in "${groups[@]}"; do
    wanted=
    for package in ${group#*|}; do
      if [ $# = 0 ] || [[ " $* " == *" $package "* ]]; then wanted+=" $package"; fi
    done
    [ -z "$wanted" ] || say "  ${group%%|*}:$wanted"
  done
}

# Where several OpenBLAS are installed, Debian prefers the pthread one, whose second pool of threads
# beside LibTorch's OpenMP makes training much slower.
select_openmp_blas() {
  command -v update-alternatives >/dev/null || return 0
  local triplet library name value wanted
  triplet=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -dumpmachine 2>/dev/null) ||
    return 0
  for library in libblas liblapack; do
    name=$library.so.3-$triplet
    wanted=/usr/lib/$triplet/openblas-openmp/$library.so.3
    [ -e "$wanted" ] || continue
    value=$(update-alternatives --query "$name" 2>/dev/null | sed -n 's/^Value: //p')
    [ -n "$value" ] && [ "$value" != "$wanted" ] || continue
    if as_root update-alternatives --set "$name" "$wanted" >/dev/null; then
      say "$library: now OpenMP's OpenBLAS instead of $value, which LibTorch runs much slower with"
    else
      say "$library: $value is selected, which LibTorch runs much slower with. As root:"
      say "  update-alternatives --set $name $wanted"
    fi
  done
}

main() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "not a Debian-like system, nothing installed. Starling needs, in Debian's names:"
    list_needed
    exit 0
  fi

  find_missing
  if [ "${1:-}" = --check ]; then
    [ ${#missing[@]} = 0 ] && exit 0
    say "missing: ${missing[*]}"
    exit 1
  fi
  if [ ${#missing[@]} != 0 ]; then
    say "installing ${#missing[@]} missing Debian packages:"
    list_needed "${missing[@]}"
    # Without stdin and questions: this also runs in CI.
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0)
    local status=0
    as_root "${apt[@]}" update </dev/null || status=$?
    if [ $status = 77 ]; then
      say "needs root or sudo, and this is neither. Run as root:" >&2
      say "  apt-get update && apt-get install ${missing[*]}" >&2
      exit 1
    elif [ $status != 0 ]; then
      say "apt-get update failed ($status); trying with the package lists there are" >&2
    fi
    if ! as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null; then
      say "apt-get could not install: ${missing[*]}" >&2
      say "With libraries from elsewhere: make build PACKAGES=skip CMAKE_ARGS=-DCMAKE_PREFIX_PATH=…" >&2
      exit 1
    fi
  fi
  select_openmp_blas
}

main "$@"
