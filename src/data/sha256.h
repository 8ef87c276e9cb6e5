#pragma once
// Hashes of pixels and files.

#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <memory>

#include "base/error.h"

namespace resnet {

/// SHA-256 of what is added, of which 64 bits are enough here.
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) fail();
  }
  void add(const void* bytes, size_t size) {
    if (EVP_DigestUpdate(context_.get(), bytes, size) != 1) fail();
  }
  /// Little-endian, so that every machine has the same fingerprint.
  void add(int64_t value) {
    std::array<uint8_t, 8> bytes{};
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i));
    add(bytes.data(), bytes.size());
  }
  uint64_t first_64_bits() {
    std::array<uint8_t, EVP_MAX_MD_SIZE> digest{};
    if (EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) != 1) fail();
    uint64_t bits = 0;
    for (size_t i = 0; i < 8; ++i) bits = bits << 8 | digest[i];
    return bits;
  }

 private:
  [[noreturn]] static void fail() { throw ResourceError(ExitCode::limit, "SHA-256: not available"); }
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

}  // namespace resnet
