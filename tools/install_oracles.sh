#!/usr/bin/env bash
# Makes the virtual environment in which tests find PyPI's oracles beside Debian's PyTorch:  tools/install_oracles.sh FOLDER
# With everything there it asks nobody: no network.
set -euo pipefail

folder=${1:?usage: $0 FOLDER}
list="$(dirname "$0")/oracles.txt"
mapfile -t wanted < <(sed -E 's/\s*#.*//; /^$/d' "$list")
if [ "$(cat "$folder/installed.txt" 2>/dev/null)" = "${wanted[*]}" ]; then exit 0; fi
rm -rf "$folder"
echo "install_oracles: installing ${wanted[*]}" >&2
/usr/bin/python3 -m venv --system-site-packages "$folder"
"$folder/bin/pip" install --quiet --no-deps "${wanted[@]}" ||
  { echo "install_oracles: error: pip could not install: ${wanted[*]}; is PyPI reachable?" >&2; exit 4; }
echo "${wanted[*]}" >"$folder/installed.txt"
