#!/usr/bin/env bash
# Line and branch coverage of a build made with the coverage preset:  tools/coverage.sh build/coverage
# Prints the readers of hostile input (formats, data) file by file, then the whole of src/; writes report/index.html.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
data="$build/coverage.json"
gcovr --root . --filter src/ --exclude-throw-branches --exclude-unreachable-branches --json "$data" "$build" >/dev/null
echo "Readers, lines:"
gcovr --root . --add-tracefile "$data" --filter 'src/(formats|data)/'
echo "Readers, branches:"
gcovr --root . --add-tracefile "$data" --filter 'src/(formats|data)/' --branches
mkdir -p "$build/report"
gcovr --root . --add-tracefile "$data" --html-details "$build/report/index.html" --print-summary >"$build/summary.txt"
echo "All of src/ ($build/report/index.html):"
cat "$build/summary.txt"
