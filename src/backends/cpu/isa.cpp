#include <cstdlib>
#include <cstring>

#include "backends/cpu/simd/isa.h"
#include "base/error.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace resnet {
namespace {

#if defined(RESNET_AVX512FP16_KERNELS) && !defined(RESNET_EMULATE_AVX512)
/// By CPUID, as compilers learned the name at different times. Its registers are AVX-512's, whose state the operating
/// system is known to keep when `avx512f` is supported.
bool has_avx512fp16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 23 & 1) != 0;
}
#endif

bool ask_for_amx_int8() {
#if defined(RESNET_EMULATE_AVX512)
  return true;
#elif defined(__x86_64__) && defined(__linux__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsXsave = 1U << 27, kTile = 1U << 24, kInt8 = 1U << 25, kTileState = 3U << 17;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsXsave) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTile) == 0 || (d & kInt8) == 0) return false;
  unsigned enabled = 0, upper = 0;
  asm("xgetbv" : "=a"(enabled), "=d"(upper) : "c"(0));
  if ((enabled & kTileState) != kTileState) return false;
  // Documentation/arch/x86/xstate.rst of Linux; what it grants holds for every thread.
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

bool has_spare_vector_units() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

namespace {

Isa cpu_isa() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#ifdef RESNET_EMULATE_AVX512
  if (avx2) return Isa::avx512fp16;
#else
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
#ifdef RESNET_AVX512FP16_KERNELS
    if (has_avx512fp16()) return Isa::avx512fp16;
#endif
    return Isa::avx512;
  }
#endif
  if (avx2) return Isa::avx2;
#endif
  return Isa::generic;
}

}  // namespace

bool has_amx_int8() {
  static const bool has = ask_for_amx_int8();
  return has;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::generic: return "generic";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512fp16: return "avx512fp16";
  }
  return "?";
}

Isa detected_isa() {
  const Isa best = cpu_isa();
  const char* limit = std::getenv("RESNET_MAX_ISA");
  if (limit == nullptr || *limit == '\0') return best;
  for (const Isa isa : {Isa::generic, Isa::avx2, Isa::avx512, Isa::avx512fp16}) {
    if (std::strcmp(limit, isa_name(isa)) == 0) return isa < best ? isa : best;
  }
  throw UserError("environment RESNET_MAX_ISA: '{}'; expected generic, avx2, avx512 or avx512fp16",
                  escape_control(limit));
}

}  // namespace resnet
