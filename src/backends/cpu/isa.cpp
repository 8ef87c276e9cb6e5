#include <cstdlib>
#include <cstring>

#include "backends/cpu/simd/isa.h"
#include "base/error.h"

namespace resnet {
namespace {

Isa cpu_isa() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Isa::avx512;
  }
  if (avx2) return Isa::avx2;
#endif
  return Isa::generic;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::generic: return "generic";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
  }
  return "?";
}

Isa detected_isa() {
  const Isa best = cpu_isa();
  const char* limit = std::getenv("RESNET_MAX_ISA");
  if (limit == nullptr || *limit == '\0') return best;
  for (const Isa isa : {Isa::generic, Isa::avx2, Isa::avx512}) {
    if (std::strcmp(limit, isa_name(isa)) == 0) return isa < best ? isa : best;
  }
  throw UserError("RESNET_MAX_ISA is '{}'; accepted: generic, avx2, avx512 (or leave it unset)", escape_control(limit));
}

}  // namespace resnet
