#!/usr/bin/env bash
# Fails, naming the lines, when a C++ file is not as .clang-format has it. `make format` mends it.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(find include src tests bench examples fuzz -name '*.h' -o -name '*.hpp' -o -name '*.c' -o -name '*.cpp' | sort)
[ ${#files[@]} -gt 0 ] || { echo "check_format: error: no C++ files found" >&2; exit 1; }
if [ "${1:-}" = --fix ]; then
  clang-format -i "${files[@]}"
else
  printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 20 clang-format --dry-run --Werror
fi
echo "check_format: ${#files[@]} files"
