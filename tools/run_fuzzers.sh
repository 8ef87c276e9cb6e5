#!/usr/bin/env bash
# Runs every fuzz_* program of a build for SECONDS each:  tools/run_fuzzers.sh build/fuzz SECONDS
# Starts from fuzz/corpus/NAME; what is found grows under BUILD/corpus/. An input that crashes is left under BUILD/crashes/ and
# fails the run; once mended it belongs into fuzz/corpus/NAME, which every `make test` replays.
set -euo pipefail
build=$1 seconds=$2 failed=0
seeds="$(dirname "$0")/../fuzz/corpus"
mapfile -t fuzzers < <(find "$build" -type f -executable -name 'fuzz_*' | sort)
[ ${#fuzzers[@]} -gt 0 ] || { echo "run_fuzzers: error: no fuzz_* program under $build" >&2; exit 1; }
for fuzzer in "${fuzzers[@]}"; do
  name=$(basename "$fuzzer")
  mkdir -p "$build/corpus/$name" "$build/crashes"
  echo "run_fuzzers: $name, $seconds s" >&2
  "$fuzzer" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
    -artifact_prefix="$build/crashes/$name-" "$build/corpus/$name" "$seeds/${name#fuzz_}" || failed=1
done
exit $failed
