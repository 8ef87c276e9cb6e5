#include "data/decode.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "data/exif.h"
#include "data/png_bytes.h"

namespace resnet {
namespace {

using namespace testing_data;

std::span<const std::byte> as_file(const Bytes& bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

/// What decoding a file came to, in a process of its own: there the peak of memory starts where the test's memory is
/// now, and not at what the building of a file once took.
struct Outcome {
  bool refused = false;
  ExitCode code = ExitCode::ok;
  std::string message;
  size_t pixels = 0, extra_bytes = 0;
};

size_t peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

Outcome decoded_apart(const Bytes& file, const DecodeOptions& options) {
  malloc_trim(0);  // or what was freed would be used again without being counted
  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("pipe");
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    Outcome outcome;
    const size_t before = peak_bytes();
    try {
      outcome.pixels = decode_image(as_file(file), "photo", options).pixels.size();
    } catch (const Error& error) {
      outcome = {.refused = true, .code = error.code(), .message = error.what()};
    }
    const std::string told = fmt::format("{} {} {} {} {}", outcome.refused ? 1 : 0, static_cast<int>(outcome.code),
                                         outcome.pixels, peak_bytes() - before, outcome.message);
    const bool written = write(ends[1], told.data(), told.size()) == static_cast<ssize_t>(told.size());
    _exit(written ? 0 : 1);
  }
  close(ends[1]);
  std::string told;
  std::array<char, 4096> part{};
  for (ssize_t got = 0; (got = read(ends[0], part.data(), part.size())) > 0;) {
    told.append(part.data(), static_cast<size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0) << "the decoder ended its process";
  Outcome outcome;
  int code = 0;
  std::istringstream text(told);
  text >> outcome.refused >> code >> outcome.pixels >> outcome.extra_bytes;
  text.get();
  std::getline(text, outcome.message, '\0');
  outcome.code = static_cast<ExitCode>(code);
  return outcome;
}

/// Refused with `code` and a message with all `parts`, within a second and 64 MiB.
void expect_refused(const Bytes& file, ExitCode code, const std::vector<std::string>& parts,
                    const DecodeOptions& options = {}) {
  const auto start = std::chrono::steady_clock::now();
  const Outcome outcome = decoded_apart(file, options);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1)) << parts.front();
  EXPECT_TRUE(outcome.refused) << "accepted; expected " << parts.front();
  EXPECT_EQ(outcome.code, code) << outcome.message;
  for (const std::string& part : parts) {
    EXPECT_NE(outcome.message.find(part), std::string::npos) << outcome.message << "\n" << part;
  }
  EXPECT_LT(outcome.extra_bytes, size_t{64} << 20) << parts.front();
}

TEST(DecodeImage, is_measured_where_its_memory_shows) {
  // 4000 x 4000 pixels of RGB take 48 MB: had they not shown, no limit below would be one.
  const Outcome outcome = decoded_apart(png_file(4000, 4000, 0, Bytes(size_t{4000} * 4001)), {});
  EXPECT_EQ(outcome.pixels, 48000000u);
  EXPECT_GT(outcome.extra_bytes, 48000000u);
}

Bytes rocket() { return read_bytes(RESNET_SOURCE_DIR "/tests/data/photos/rocket.jpg"); }

/// The rocket with another size in its frame header (SOF0).
Bytes rocket_that_claims(uint16_t width, uint16_t height) {
  Bytes file = rocket();
  for (size_t i = 2; i + 8 < file.size(); ++i) {
    if (file[i] != 0xff || file[i + 1] != 0xc0) continue;
    file[i + 5] = static_cast<uint8_t>(height >> 8);
    file[i + 6] = static_cast<uint8_t>(height);
    file[i + 7] = static_cast<uint8_t>(width >> 8);
    file[i + 8] = static_cast<uint8_t>(width);
    return file;
  }
  throw std::runtime_error("the rocket has no frame header");
}

TEST(DecodeImage, gives_channels_one_after_the_other) {
  const Bytes file = png_file(2, 1, 2, {0, 10, 20, 30, 40, 50, 60});
  const Image image = decode_image(as_file(file), "photo");
  EXPECT_EQ(image.channels, 3);
  EXPECT_EQ(image.height, 1);
  EXPECT_EQ(image.width, 2);
  EXPECT_EQ(image.pixels, (Bytes{10, 40, 20, 50, 30, 60}));
  // Pillow: (10 * 19595 + 20 * 38470 + 30 * 7471 + 0x8000) >> 16 = 18
  EXPECT_EQ(decode_image(as_file(file), "photo", {.channels = 1}).pixels, (Bytes{18, 48}));
}

TEST(DecodeImage, names_what_is_no_image) {
  expect_refused({}, ExitCode::bad_data,
                 {"photo: byte 0 (format): found an empty file", "expected a JPEG, PNG or WebP"});
  expect_refused(text_bytes("GIF89a...."), ExitCode::bad_data, {"found a GIF"});
  expect_refused(text_bytes("BM123456"), ExitCode::bad_data, {"found a BMP"});
  expect_refused({1, 2, 3, 4, 5}, ExitCode::bad_data, {"0x01 0x02 0x03 0x04"});
}

TEST(DecodeImage, refuses_a_photo_cut_at_every_kilobyte) {
  const Bytes file = rocket();
  for (size_t size = 3; size < file.size() - 16; size += 1024) {
    expect_refused(cut(file, size), ExitCode::bad_data, {"photo: byte ", "the file ends"});
  }
}

TEST(DecodeImage, refuses_headers_that_claim_more_than_is_allowed_or_there) {
  expect_refused(rocket_that_claims(65535, 65535), ExitCode::limit, {"65535 x 65535 pixels", "at most 178956970"});
  expect_refused(rocket_that_claims(13376, 13379), ExitCode::limit, {"at most 178956970"});
  // 178,943,…: allowed, but more blocks than the file has bits for.
  Bytes short_file = rocket_that_claims(13376, 13376);
  short_file.resize(60000);
  expect_refused(short_file, ExitCode::bad_data, {"(size): found 13376 x 13376 pixels in a file of 60000 bytes"});
  expect_refused(rocket_that_claims(0, 10), ExitCode::bad_data, {"(size): found 0 x 10"});
  expect_refused(png_file(65535, 65535, 2, {0}), ExitCode::limit, {"65535 x 65535"});
  expect_refused(png_file(13000, 13000, 2, {0, 1, 2}), ExitCode::bad_data, {"(pixel data)", "13000 x 13000"});
  expect_refused(png_file(100000000, 1, 2, {0, 1, 2}), ExitCode::limit, {"100000000 x 1 pixels; at most 65535 a side"});
  expect_refused(grey_png(30, 30, 7), ExitCode::limit, {"30 x 30 pixels; at most 800"}, {.max_pixels = 800});
}

TEST(DecodeImage, does_not_take_memory_for_a_large_photo_that_ends_at_once) {
  // As many bytes as the claim needs at the least, but the scan is damaged early: what came first is all that is
  // touched.
  Bytes file = rocket_that_claims(12000, 9000);
  file.resize(9000);
  file.resize(400000, 0xff);
  expect_refused(file, ExitCode::bad_data, {"the file ends"});
}

TEST(DecodeImage, never_inflates_what_is_no_pixel) {
  Bytes rows;
  for (int y = 0; y < 4; ++y) rows = rows + Bytes{0, 1, 2, 3, 4};
  const Bytes bomb = text_bytes("Comment") + Bytes{0, 0} + zlib_packed(Bytes(size_t{48} << 20));
  const Bytes file = png_file(4, 4, 0, rows, png_chunk("zTXt", bomb) + png_chunk("iCCP", bomb));
  const Outcome outcome = decoded_apart(file, {.channels = 1});
  EXPECT_EQ(outcome.pixels, 16u);
  EXPECT_LT(outcome.extra_bytes, size_t{8} << 20);
}

TEST(DecodeImage, takes_no_palette_from_behind_the_pixel_data) {
  constexpr uint8_t kIndexed = 3;
  const Bytes start = png_file(2, 1, kIndexed, {0, 0, 1});
  const Bytes without_end = cut(start, start.size() - 12);
  const Bytes palette = png_chunk("PLTE", {10, 20, 30, 40, 50, 60});
  const std::vector<std::string> none = {"(PLTE): found no palette"};
  expect_refused(without_end + palette + png_chunk("IEND", {}), ExitCode::bad_data, none);
  // Cut short as well: between its length and its checksum there is nothing, or a part.
  for (size_t size = 8; size < palette.size(); ++size) {
    expect_refused(without_end + cut(palette, size), ExitCode::bad_data, none);
  }
  const Image image = decode_image(
      as_file(png_file(2, 1, kIndexed, {0, 0, 1}, palette) + png_chunk("PLTE", {1, 2, 3, 4, 5, 6})), "photo");
  EXPECT_EQ(image.pixels, (Bytes{10, 40, 20, 50, 30, 60}));
}

TEST(DecodeImage, reads_no_more_pixels_than_the_header_says) {
  Bytes rows;
  for (int y = 0; y < 2; ++y) rows = rows + Bytes{0, 1, 2};
  rows.resize(size_t{32} << 20);
  const Image image = decode_image(as_file(png_file(2, 2, 0, rows)), "photo", {.channels = 1});
  EXPECT_EQ(image.pixels, (Bytes{1, 2, 1, 2}));
}

/// A lossless WebP of one colour, which takes the same 17 bytes at any size.
Bytes plain_webp_frame(uint32_t width, uint32_t height) {
  Bytes data = {47, 0, 0, 0, 0, 7, 80, 138, 42, 212, 163, 255, 129, 136, 232, 127, 0};
  const uint32_t sides = (width - 1) | (height - 1) << 14;
  for (uint32_t i = 0; i < 4; ++i) data[1 + i] = static_cast<uint8_t>(sides >> (8 * i));
  return data;
}

Bytes riff_chunk(std::string_view type, const Bytes& body) {
  const auto size = static_cast<uint32_t>(body.size());
  Bytes chunk = text_bytes(type);
  for (int shift = 0; shift < 32; shift += 8) chunk.push_back(static_cast<uint8_t>(size >> shift));
  chunk = chunk + body;
  if (size % 2 == 1) chunk.push_back(0);
  return chunk;
}

Bytes webp_file(const Bytes& chunks) { return riff_chunk("RIFF", text_bytes("WEBP") + chunks); }

TEST(DecodeImage, refuses_webp_bombs) {
  const Image plain = decode_image(as_file(webp_file(riff_chunk("VP8L", plain_webp_frame(2000, 2000)))), "photo");
  EXPECT_EQ(plain.pixels.front(), 10);
  EXPECT_EQ(plain.pixels.size(), 12000000u);
  expect_refused(webp_file(riff_chunk("VP8L", plain_webp_frame(13000, 13000))), ExitCode::limit,
                 {"13000 x 13000 pixels in 26 bytes of data", "at most 8192"});
  // An animation whose first frame covers a corner of its canvas; bytes enough that the ratio alone would allow it.
  const auto sides = [](uint32_t value) {
    return Bytes{static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value >> 16)};
  };
  Bytes frame_data = plain_webp_frame(100, 100);
  frame_data.resize(50000);
  const Bytes place = sides(0) + sides(0) + sides(99) + sides(99) + sides(10) + Bytes{0};
  const Bytes frame = riff_chunk("ANMF", place + riff_chunk("VP8L", frame_data));
  const auto animation = [&](uint32_t side) {
    const Bytes canvas = Bytes{2, 0, 0, 0} + sides(side - 1) + sides(side - 1);
    return webp_file(riff_chunk("VP8X", canvas) + riff_chunk("ANIM", Bytes(6)) + frame);
  };
  EXPECT_EQ(decode_image(as_file(animation(300)), "photo").width, 300);
  expect_refused(animation(13000), ExitCode::limit, {"a canvas of 13000 x 13000", "frame of 100 x 100", "at most 16"});
}

TEST(DecodeImage, ends_a_scan_bomb) {
  // A progressive JPEG whose last scan is there a thousand times.
  const Bytes seed = read_bytes(RESNET_SOURCE_DIR "/fuzz/corpus/jpeg/ok-progressive");
  const Bytes file(seed.begin() + 1, seed.end());  // the fuzzer's first byte is no part of it
  size_t scan = 0;
  for (size_t i = 0; i + 1 < file.size(); ++i) {
    if (file[i] == 0xff && file[i + 1] == 0xda) scan = i;
  }
  ASSERT_GT(scan, 0u);
  Bytes bomb = cut(file, file.size() - 2);
  for (int i = 0; i < 1000; ++i) bomb.insert(bomb.end(), file.begin() + static_cast<long>(scan), file.end() - 2);
  bomb = bomb + Bytes{0xff, 0xd9};
  expect_refused(bomb, ExitCode::limit, {"(scan): found more than 500 scans"});
}

TEST(DecodeImage, escapes_the_name) {
  try {
    decode_image({}, "a\x1b[31m", {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\x1b'), std::string::npos);
  }
}

TEST(ReadImage, reads_no_more_of_a_file_than_shows_that_it_is_no_image) {
  const TempFolder folder;
  const std::string path = folder.write("hole.jpg", {1, 2, 3, 4});
  std::filesystem::resize_file(path, uint64_t{1400} << 20);
  const size_t before = peak_bytes();
  EXPECT_THROW(read_image(path), UserError);
  EXPECT_LT(peak_bytes() - before, size_t{64} << 20);
  std::vector<std::byte> bytes(size_t{100} << 20);
  read_image_bytes(folder.write("small.png", grey_png(9, 9, 1)), bytes);
  EXPECT_LT(bytes.capacity(), size_t{1} << 20) << "what a large file took is given back";
}

TEST(ReadImage, tells_a_missing_file_from_a_damaged_one) {
  const TempFolder folder;
  const auto code_of = [](const std::string& path) {
    try {
      read_image(path);
      return ExitCode::ok;
    } catch (const Error& error) {
      return error.code();
    }
  };
  EXPECT_EQ(code_of(folder / "none.png"), ExitCode::io);
  EXPECT_EQ(code_of(folder.path()), ExitCode::io);
  EXPECT_EQ(code_of(folder.write("short.png", cut(grey_png(9, 9, 1), 46))), ExitCode::bad_data);
  EXPECT_EQ(code_of(folder.write("jpeg-by-name.jpg", grey_png(9, 9, 1))), ExitCode::ok);
}

TEST(Upright, turns_each_orientation_into_what_it_says) {
  // 1 2 3    The stored image; what is upright follows from EXIF's table (row 0 and column 0 are which sides).
  // 4 5 6
  const Image stored{.pixels = {1, 2, 3, 4, 5, 6}, .channels = 1, .height = 2, .width = 3};
  const std::vector<Bytes> expected = {{1, 2, 3, 4, 5, 6}, {3, 2, 1, 6, 5, 4}, {6, 5, 4, 3, 2, 1}, {4, 5, 6, 1, 2, 3},
                                       {1, 4, 2, 5, 3, 6}, {4, 1, 5, 2, 6, 3}, {6, 3, 5, 2, 4, 1}, {3, 6, 2, 5, 1, 4}};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const Image image = upright(stored, orientation);
    EXPECT_EQ(image.pixels, expected[static_cast<size_t>(orientation - 1)]) << orientation;
    EXPECT_EQ(image.width, orientation >= 5 ? 2 : 3);
  }
}

TEST(ExifOrientation, is_1_where_the_block_is_damaged) {
  const Bytes good = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_EQ(exif_orientation(as_file(good)), 6);
  for (size_t size = 0; size < 22; ++size) EXPECT_EQ(exif_orientation(as_file(cut(good, size))), 1) << size;
  Bytes wrong = good;
  wrong[18] = 9;
  EXPECT_EQ(exif_orientation(as_file(wrong)), 1);
  wrong = good;
  for (size_t i = 4; i < 8; ++i) wrong[i] = 0xff;
  EXPECT_EQ(exif_orientation(as_file(wrong)), 1);
}

}  // namespace
}  // namespace resnet
