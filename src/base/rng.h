#pragma once
// Randomness as a pure function: no generator has hidden state, so a run that stops anywhere and
// resumes draws the same numbers. Streams are told apart by hashing names, epochs and indices.

#include <cmath>
#include <cstdint>
#include <string_view>

namespace resnet {

/// SplitMix64's finaliser (Steele et al. 2014): a bijective mix of 64 bits.
constexpr uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constexpr uint64_t hash_combine(uint64_t a, uint64_t b) { return mix(a ^ mix(b)); }

/// FNV-1a over the text, mixed.
constexpr uint64_t hash_text(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325u;
  for (char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return mix(h);
}

/// Counter-based generator: the i-th number of stream `key` is mix(key, i).
class Rng {
 public:
  explicit constexpr Rng(uint64_t key) : key_(key) {}
  uint64_t next() { return hash_combine(key_, counter_++); }
  /// Uniform in [0, 1) with 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// Uniform integer in [0, bound), without modulo bias (Lemire 2019).
  uint64_t below(uint64_t bound) {
    while (true) {
      __extension__ using Wide = unsigned __int128;
      const Wide product = static_cast<Wide>(next()) * bound;
      if (static_cast<uint64_t>(product) >= (-bound) % bound) return static_cast<uint64_t>(product >> 64);
    }
  }
  /// Standard normal (Box-Muller; two draws a call so that the count never depends on values).
  double normal() {
    const double u = 1.0 - uniform();
    const double v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * 3.14159265358979323846 * v);
  }

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

}  // namespace resnet
