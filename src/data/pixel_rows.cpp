#include "data/pixel_rows.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "base/checked_math.h"
#include "base/error.h"

namespace resnet {

namespace {

// A vector writes zeros into all it holds; beyond this size the pages come from the kernel untouched.
constexpr uint64_t kMappedFromBytes = uint64_t{16} << 20;

[[noreturn]] void throw_no_memory(const std::string& name, int64_t channels, int64_t height, int64_t width) {
  throw ResourceError(ExitCode::limit,
                      "{}: not enough memory for {} x {} pixels of {} channels; expected a smaller image", name, width,
                      height, channels);
}

}  // namespace

PixelRows::PixelRows(const std::string& name, int64_t channels, int64_t height, int64_t width) : name_(name) {
  check(channels == 1 || channels == 3, "PixelRows: channels are neither 1 nor 3");
  image_ = {.pixels = {}, .channels = channels, .height = height, .width = width};
  const auto bytes =
      checked_multiply({static_cast<uint64_t>(channels), static_cast<uint64_t>(height), static_cast<uint64_t>(width)});
  if (!bytes || *bytes > static_cast<uint64_t>(PTRDIFF_MAX)) throw_no_memory(name_, channels, height, width);
  if (*bytes < kMappedFromBytes) {
    image_.pixels.resize(*bytes);
    data_ = image_.pixels.data();
    return;
  }
  void* pages = mmap(nullptr, *bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) throw_no_memory(name_, channels, height, width);
  data_ = static_cast<uint8_t*>(pages);
  mapped_bytes_ = *bytes;
}

PixelRows::~PixelRows() {
  if (mapped_bytes_ > 0) munmap(data_, mapped_bytes_);
}

uint8_t* PixelRows::plane_row(int64_t channel, int64_t y) const noexcept {
  return data_ + (channel * image_.height + y) * image_.width;
}

void PixelRows::put_grey(int64_t y, const uint8_t* row) noexcept {
  for (int64_t c = 0; c < image_.channels; ++c) std::copy_n(row, image_.width, plane_row(c, y));
}

void PixelRows::put_rgb(int64_t y, const uint8_t* row, int64_t step) noexcept {
  const int64_t width = image_.width;
  if (image_.channels == 1) {
    uint8_t* out = plane_row(0, y);
    for (int64_t x = 0; x < width; ++x, row += step) out[x] = luma(row[0], row[1], row[2]);
    return;
  }
  uint8_t *r = plane_row(0, y), *g = plane_row(1, y), *b = plane_row(2, y);
  for (int64_t x = 0; x < width; ++x, row += step) {
    r[x] = row[0];
    g[x] = row[1];
    b[x] = row[2];
  }
}

Image PixelRows::take() try {
  if (mapped_bytes_ > 0) {
    // Plane by plane, so that the two copies never stand beside each other in whole.
    image_.pixels.reserve(mapped_bytes_);
    constexpr size_t kPieceBytes = size_t{4} << 20;  // whole pages
    for (size_t at = 0; at < mapped_bytes_; at += kPieceBytes) {
      const size_t piece = std::min(kPieceBytes, mapped_bytes_ - at);
      image_.pixels.insert(image_.pixels.end(), data_ + at, data_ + at + piece);
      madvise(data_ + at, piece, MADV_DONTNEED);
    }
  }
  return std::move(image_);
} catch (const std::bad_alloc&) {
  throw_no_memory(name_, image_.channels, image_.height, image_.width);
}

}  // namespace resnet
