#!/bin/bash
# The test suite with each family of kernels switched off by its name, alone and all at once, with one kind of convolution forced,
# and with older instruction sets. The oracles compare the kernels that are fastest here: they are left out.
#
#   tools/test_kernels.sh BUILD_FOLDER JOBS             all settings, some six minutes each on two cores
#   tools/test_kernels.sh BUILD_FOLDER JOBS SETTING...  those; a setting is NAME=VALUE, two of them parted by a semicolon
set -euo pipefail

build=$1 jobs=$2
shift 2
families=("gemm" "winograd" "onednn winograd" "on the fly" "apart" "stem" "int8 winograd" "int8 pairs" "int8 bytes" "int8 tiles")
if [ $# = 0 ]; then
  set -- RESNET_CONV_ALGORITHM=direct RESNET_CONV_ALGORITHM=winograd "RESNET_MAX_ISA=avx2;ONEDNN_MAX_CPU_ISA=AVX2" RESNET_MAX_ISA=generic \
    "RESNET_CONV_WITHOUT=$(IFS=,; echo "${families[*]}")" "${families[@]/#/RESNET_CONV_WITHOUT=}"
fi
failed=()
for setting in "$@"; do
  echo "test_kernels: $setting" >&2
  IFS=';' read -r -a variables <<< "$setting"
  env "${variables[@]}" ctest --test-dir "$build" --output-on-failure -LE oracle -j "$jobs" || failed+=("$setting")
done
for setting in "${failed[@]}"; do echo "test_kernels: failed: $setting" >&2; done
exit $((${#failed[@]} > 0))
