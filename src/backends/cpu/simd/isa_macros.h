#pragma once
// Which AVX-512 code a source in simd/ is compiled with. The compiler's own macros do not decide it, so that a test
// build (RESNET_EMULATE_AVX512, docs/decisions/0021-avx512-without-the-processor.md) can take these paths on any x86
// processor.
//
// RESNET_AVX512: F, BW, DQ and VL; 16 lanes, 32 registers, intrinsics named _mm512_*.
// RESNET_AVX512FP16: arithmetic of _Float16 vectors.
// RESNET_TARGET_VNNI: attribute of a function that holds _mm512_dpbusd_epi32; who calls it asks the processor first.
// RESNET_AMX: AMX's products of bytes; who calls them asks has_amx_int8. The emulated build has them in plain C++.

#if defined(RESNET_ISA_avx512) || defined(RESNET_ISA_avx512fp16)
#define RESNET_AVX512 1
#ifdef RESNET_EMULATE_AVX512
#include "backends/cpu/simd/emulated_avx512.h"
#define RESNET_TARGET_VNNI
#define RESNET_AMX 1
#else
#include <immintrin.h>
#define RESNET_TARGET_VNNI __attribute__((target("avx512vnni")))
#ifdef __x86_64__
#define RESNET_AMX 1
#endif
#endif
#endif

// The emulated build's half precision is half_vec.h's emulation.
#if defined(RESNET_ISA_avx512fp16) && !defined(RESNET_EMULATE_AVX512)
#define RESNET_AVX512FP16 1
#endif
