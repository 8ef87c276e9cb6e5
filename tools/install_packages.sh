#!/usr/bin/env bash
# Installs what is missing of the named groups of tools/packages.txt:  tools/install_packages.sh build [test] [bench]
# With everything there it asks dpkg and nobody else: no network, no root.
set -euo pipefail

list="$(dirname "$0")/packages.txt"
fail() { echo "install_packages: error: $*" >&2; exit 4; }

[ $# -gt 0 ] || { echo "usage: $0 GROUP... (groups: $(awk '!/^#/ && NF {print $1}' "$list" | sort -u | tr '\n' ' '))" >&2; exit 2; }
wanted=()
for group in "$@"; do
  mapfile -t packages < <(awk -v group="$group" '$1 == group {print $2}' "$list")
  [ ${#packages[@]} -gt 0 ] || { echo "install_packages: error: no group '$group' in $list" >&2; exit 2; }
  wanted+=("${packages[@]}")
done

command -v dpkg-query >/dev/null ||
  fail "this is not a Debian system (no dpkg-query); install by hand what $list names"
missing=()
for package in "${wanted[@]}"; do
  state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null ||
    fail "missing packages: ${missing[*]}; run as root: apt-get install --no-install-recommends ${missing[*]}"
  as_root=(sudo)
fi
echo "install_packages: installing ${missing[*]}" >&2
# One source that does not answer must not stop us: what counts is whether the packages can be installed.
"${as_root[@]}" apt-get update -qq || echo "install_packages: warning: apt-get update failed; trying with the lists at hand" >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
  fail "apt-get could not install: ${missing[*]}; is the Debian 12 'main' archive reachable and are you allowed to install?"
