#pragma once
// Builds idx and gzip files, intact and broken.

#include <zlib.h>

#include <stdexcept>

#include "data/temp_folder.h"

namespace resnet::testing_data {

inline void append_big_endian(Bytes& bytes, uint32_t value) {
  for (const int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<uint8_t>(value >> shift));
}

inline Bytes idx_header(uint32_t magic, const std::vector<uint32_t>& dims) {
  Bytes bytes;
  append_big_endian(bytes, magic);
  for (const uint32_t dim : dims) append_big_endian(bytes, dim);
  return bytes;
}

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline Bytes cut(const Bytes& bytes, size_t size) { return {bytes.begin(), bytes.begin() + static_cast<long>(size)}; }

inline Bytes ramp(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 37 + 11);
  return bytes;
}

inline Bytes image_file(uint32_t count, uint32_t height, uint32_t width) {
  return idx_header(0x803, {count, height, width}) + ramp(size_t{count} * height * width);
}

inline Bytes label_file(const Bytes& labels) {
  return idx_header(0x801, {static_cast<uint32_t>(labels.size())}) + labels;
}

/// One gzip member.
inline Bytes gzip(const Bytes& bytes) {
  z_stream stream{};
  if (deflateInit2(&stream, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::runtime_error("deflateInit2");
  }
  Bytes out(deflateBound(&stream, bytes.size()) + 32);
  Bytes in = bytes;
  stream.next_in = in.data();
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  if (result != Z_STREAM_END) throw std::runtime_error("deflate");
  return out;
}

/// The four files of a data set with square images of `side` pixels.
inline void write_mnist_files(const TempFolder& folder, const Bytes& train_labels, const Bytes& test_labels,
                              uint32_t side = 5) {
  folder.write("train-images-idx3-ubyte", image_file(static_cast<uint32_t>(train_labels.size()), side, side));
  folder.write("train-labels-idx1-ubyte", label_file(train_labels));
  folder.write("t10k-images-idx3-ubyte.gz", gzip(image_file(static_cast<uint32_t>(test_labels.size()), side, side)));
  folder.write("t10k-labels-idx1-ubyte.gz", gzip(label_file(test_labels)));
}

}  // namespace resnet::testing_data
