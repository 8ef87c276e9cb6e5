#pragma once
// Which instruction set our own SIMD kernels run with, decided once per process at run time.
// Everything in simd/ is compiled once per entry of Isa from the same source (see vec.h).

namespace resnet {

/// `generic` is what the compiler assumes for the architecture (SSE2 on x86-64); `avx2` also needs
/// FMA; `avx512` needs F, BW, DQ and VL; `avx512fp16` also FP16, which only half-precision convolutions use.
enum class Isa { generic, avx2, avx512, avx512fp16 };

/// The best instruction set of this CPU, not above the environment variable
/// RESNET_MAX_ISA=generic|avx2|avx512|avx512fp16. Throws UserError (code 2) for any other value of it.
Isa detected_isa();

const char* isa_name(Isa isa);

/// Whether this process may use AMX's tile registers and their products of bytes. They are large, so Linux (5.16 and
/// newer) wants to be asked for their use once, which the first call does.
bool has_amx_int8();

/// Whether vectors are added, shifted and shuffled by units beside those that multiply them, as AMD's processors with
/// AVX-512 do; Intel's have two for everything.
bool has_spare_vector_units();

/// Channels per block of the activation layout nChw{B}c the kernels of `isa` want: 8 or 16.
constexpr int channel_block(Isa isa) { return isa >= Isa::avx512 ? 16 : 8; }

}  // namespace resnet
