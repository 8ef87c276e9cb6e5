#include "formats/stored_tensor.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"

namespace resnet {

static_assert(std::endian::native == std::endian::little, "tensor bytes are copied as they lie: little endian only");

namespace {

constexpr std::array<StoredDType, 13> kStoredDTypes{{
    {"BOOL", 1, DType::u8},
    {"U8", 1, DType::u8},
    {"I8", 1, DType::i8},
    {"I16", 2, DType::i32},
    {"U16", 2, DType::i32},
    {"F16", 2, DType::f32},
    {"BF16", 2, DType::f32},
    {"I32", 4, DType::i32},
    {"U32", 4, DType::i32},
    {"F32", 4, DType::f32},
    {"F64", 8, DType::f64},
    {"I64", 8, DType::i32},
    {"U64", 8, DType::i32},
}};

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half >> 15) << 31;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in f32
    const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24f;
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

float bfloat_to_float(uint16_t value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

template <class Stored, class Loaded, class Convert>
void convert_elements(std::span<const std::byte> stored, std::span<Loaded> loaded, Convert&& one) {
  for (size_t i = 0; i < loaded.size(); ++i) {
    Stored value;
    std::memcpy(&value, stored.data() + i * sizeof(Stored), sizeof(Stored));
    loaded[i] = one(value, i);
  }
}

template <class Stored>
void narrow_elements(const StoredPlace& place, const StoredDType& dtype, std::span<const std::byte> stored,
                     std::span<int32_t> loaded) {
  convert_elements<Stored>(stored, loaded, [&](Stored value, size_t i) {
    if (!std::in_range<int32_t>(value)) {
      throw bad_data(place.path, place.begin + i * sizeof(Stored), shown_name(place.name).c_str(),
                     "{} value {} does not fit 32 bits", dtype.name, value);
    }
    return static_cast<int32_t>(value);
  });
}

}  // namespace

std::span<const StoredDType> stored_dtypes() { return kStoredDTypes; }

const StoredDType* find_stored_dtype(std::string_view name) {
  for (const StoredDType& dtype : kStoredDTypes) {
    if (name == dtype.name) return &dtype;
  }
  return nullptr;
}

const StoredDType& stored_dtype_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return *find_stored_dtype("F32");
    case DType::f64: return *find_stored_dtype("F64");
    case DType::i32: return *find_stored_dtype("I32");
    case DType::u8: return *find_stored_dtype("U8");
    case DType::i8: return *find_stored_dtype("I8");
  }
  throw InternalError("stored_dtype_of: unknown dtype");
}

bool loads_as_stored(const StoredDType& dtype) {
  const std::string_view kind = dtype.name;
  return kind == "F32" || kind == "F64" || kind == "I32" || kind == "U8" || kind == "I8" || kind == "BOOL";
}

Tensor tensor_from_stored(const StoredPlace& place, const StoredDType& dtype, const Shape& shape,
                          std::span<const std::byte> stored) {
  Tensor tensor(dtype.loaded, shape);
  check(stored.size() == static_cast<size_t>(shape.elements()) * dtype.bytes,
        "tensor_from_stored: not the shape's bytes");
  const std::string_view kind = dtype.name;
  if (loads_as_stored(dtype)) {
    if (!stored.empty()) std::memcpy(tensor.data(), stored.data(), stored.size());
  } else if (kind == "F16") {
    convert_elements<uint16_t>(stored, tensor.as<float>(), [](uint16_t value, size_t) { return half_to_float(value); });
  } else if (kind == "BF16") {
    convert_elements<uint16_t>(stored, tensor.as<float>(),
                               [](uint16_t value, size_t) { return bfloat_to_float(value); });
  } else if (kind == "I16") {
    narrow_elements<int16_t>(place, dtype, stored, tensor.as<int32_t>());
  } else if (kind == "U16") {
    narrow_elements<uint16_t>(place, dtype, stored, tensor.as<int32_t>());
  } else if (kind == "U32") {
    narrow_elements<uint32_t>(place, dtype, stored, tensor.as<int32_t>());
  } else if (kind == "I64") {
    narrow_elements<int64_t>(place, dtype, stored, tensor.as<int32_t>());
  } else {
    check(kind == "U64", "tensor_from_stored: a dtype of the table has no conversion");
    narrow_elements<uint64_t>(place, dtype, stored, tensor.as<int32_t>());
  }
  return tensor;
}

LoadBudget::LoadBudget(const std::string& path)
    : path_(path),
      memory_(static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE))) {}

void LoadBudget::add(const std::string& tensor, uint64_t bytes) {
  needed_ = checked_add(needed_, bytes).value_or(std::numeric_limits<uint64_t>::max());
  if (needed_ > memory_) {
    throw ResourceError(ExitCode::limit, "{}: the tensors up to '{}' need {} bytes; this machine has {}", path_,
                        shown_name(tensor), needed_, memory_);
  }
}

std::string shown_name(const std::string& name) {
  constexpr size_t kLongest = 80;
  if (name.size() <= kLongest) return escape_control(name);
  size_t cut = kLongest;
  while (cut > 0 && (static_cast<unsigned char>(name[cut]) & 0xc0) == 0x80) --cut;  // not inside a UTF-8 sequence
  return escape_control(name.substr(0, cut)) + "...";
}

}  // namespace resnet
