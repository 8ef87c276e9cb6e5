#include "data/resize.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <random>

#include "base/error.h"
#include "base/rng.h"
#include "data/temp_folder.h"

namespace resnet {
namespace {

using namespace testing_data;

struct Request {
  int64_t channels = 1, width = 1, height = 1, new_width = 1, new_height = 1;
  Bytes pixels;  // [height, width, channels], as Pillow has them
  Interpolation interpolation = Interpolation::bilinear;

  std::string str() const {
    return fmt::format("{} channels, {}x{} to {}x{}, {}", channels, width, height, new_width, new_height,
                       name_of(interpolation));
  }
};

constexpr std::array kAll = {Interpolation::nearest, Interpolation::box,     Interpolation::bilinear,
                             Interpolation::hamming, Interpolation::bicubic, Interpolation::lanczos};

/// Resizes channel by channel and interleaves the result as Pillow does.
Bytes resize(const Request& request) {
  const Resizer resizer(request.height, request.width, request.new_height, request.new_width, request.interpolation);
  const auto channels = static_cast<size_t>(request.channels);
  Bytes plane(static_cast<size_t>(resizer.in_pixels()));
  Bytes resized(static_cast<size_t>(resizer.out_pixels()));
  Bytes out(channels * resized.size());
  std::vector<uint8_t> scratch;
  for (size_t c = 0; c < channels; ++c) {
    for (size_t i = 0; i < plane.size(); ++i) plane[i] = request.pixels[i * channels + c];
    resizer.resize(plane, resized, scratch);
    for (size_t i = 0; i < resized.size(); ++i) out[i * channels + c] = resized[i];
  }
  return out;
}

void append_header(Bytes& bytes, const Request& request) {
  for (const int64_t value : {request.channels, request.width, request.height, request.new_width, request.new_height,
                              static_cast<int64_t>(request.interpolation)}) {
    for (const int shift : {0, 8, 16, 24}) bytes.push_back(static_cast<uint8_t>(value >> shift));
  }
}

/// Takes the next `size` bytes; a short file fails the test.
Bytes take(const Bytes& bytes, size_t& at, int64_t size) {
  const auto end = at + static_cast<size_t>(size);
  if (end > bytes.size()) throw std::runtime_error("the answers end too early");
  Bytes part(bytes.begin() + static_cast<long>(at), bytes.begin() + static_cast<long>(end));
  at = end;
  return part;
}

Request take_request(const Bytes& bytes, size_t& at) {
  Request request;
  int64_t interpolation = 0;
  for (int64_t* field :
       {&request.channels, &request.width, &request.height, &request.new_width, &request.new_height, &interpolation}) {
    const Bytes raw = take(bytes, at, 4);
    *field = raw[0] | raw[1] << 8 | raw[2] << 16 | raw[3] << 24;
  }
  request.interpolation = kAll.at(static_cast<size_t>(interpolation));
  request.pixels = take(bytes, at, request.channels * request.width * request.height);
  return request;
}

int64_t answer_size(const Request& request) { return request.channels * request.new_width * request.new_height; }

/// Pillow's answers, one after the other. Without Pillow the test fails.
Bytes ask_pillow(const std::vector<Request>& requests) {
  const TempFolder folder;
  Bytes bytes;
  for (const Request& request : requests) {
    append_header(bytes, request);
    bytes.insert(bytes.end(), request.pixels.begin(), request.pixels.end());
  }
  folder.write("requests", bytes);
  const std::string command = fmt::format("/usr/bin/python3 '{}/tools/make_resize_golden.py' '{}' '{}'",
                                          RESNET_SOURCE_DIR, folder / "requests", folder / "answers");
  if (std::system(command.c_str()) != 0) {
    throw std::runtime_error("Pillow did not answer; apt-get install python3-pil. Command: " + command);
  }
  return read_bytes(folder / "answers");
}

void expect_equal_to_pillow(const std::vector<Request>& requests) {
  const Bytes answers = ask_pillow(requests);
  size_t at = 0;
  for (const Request& request : requests) {
    const Bytes expected = take(answers, at, answer_size(request));
    const Bytes actual = resize(request);
    ASSERT_EQ(actual.size(), expected.size());
    const auto [ours, theirs] = std::mismatch(actual.begin(), actual.end(), expected.begin());
    ASSERT_TRUE(ours == actual.end()) << request.str() << ": byte " << ours - actual.begin() << " is " << int{*ours}
                                      << ", Pillow's is " << int{*theirs};
  }
  EXPECT_EQ(at, answers.size());
}

uint64_t draw_seed() {
  const char* wanted = std::getenv("RESNET_TEST_SEED");
  return wanted ? std::strtoull(wanted, nullptr, 10) : std::random_device{}();
}

void fill(Request& request, Rng& rng) {
  request.pixels.resize(static_cast<size_t>(request.channels * request.width * request.height));
  const bool extreme = rng.below(3) == 0;  // only black and white, where rounding and clipping show
  for (uint8_t& pixel : request.pixels) {
    pixel = extreme ? (rng.below(2) ? 255 : 0) : static_cast<uint8_t>(rng.below(256));
  }
}

TEST(Resize, equals_pillow_byte_for_byte_over_random_sizes_up_down_mixed_and_unchanged) {
  const uint64_t seed = draw_seed();
  SCOPED_TRACE(fmt::format("RESNET_TEST_SEED={}", seed));
  Rng rng(seed);
  std::vector<Request> requests;
  for (int i = 0; i < 600; ++i) {
    Request request;
    // Squared, so that small sides are as likely as large ones.
    const auto side = [&] { return 1 + static_cast<int64_t>(rng.uniform() * rng.uniform() * 200); };
    request.channels = rng.below(3) == 0 ? 3 : 1;
    request.width = side();
    request.height = side();
    request.new_width = rng.below(8) == 0 ? request.width : side();
    request.new_height = rng.below(8) == 0 ? request.height : side();
    request.interpolation = kAll[static_cast<size_t>(i) % kAll.size()];
    fill(request, rng);
    requests.push_back(request);
  }
  expect_equal_to_pillow(requests);
}

TEST(Resize, equals_pillow_for_the_sizes_that_networks_use_and_for_extreme_ratios) {
  const uint64_t seed = draw_seed();
  SCOPED_TRACE(fmt::format("RESNET_TEST_SEED={}", seed));
  Rng rng(seed);
  const std::vector<Request> sizes = {{1, 28, 28, 96, 96, {}},     {1, 28, 28, 224, 224, {}}, {3, 32, 32, 224, 224, {}},
                                      {3, 500, 375, 224, 224, {}}, {1, 96, 96, 28, 28, {}},   {1, 28, 28, 28, 28, {}},
                                      {3, 640, 480, 96, 96, {}},   {1, 1, 1, 300, 200, {}},   {1, 5000, 1, 1, 1, {}},
                                      {1, 1, 5000, 1, 3, {}},      {1, 3000, 2, 7, 900, {}},  {3, 2, 3000, 900, 7, {}},
                                      {1, 65535, 1, 65534, 1, {}}, {1, 2, 2, 3001, 1, {}}};
  std::vector<Request> requests;
  for (const Interpolation interpolation : kAll) {
    for (Request request : sizes) {
      request.interpolation = interpolation;
      fill(request, rng);
      requests.push_back(std::move(request));
    }
  }
  expect_equal_to_pillow(requests);
}

TEST(Resize, equals_the_stored_answers_of_pillow) {
  const Bytes golden = read_bytes(RESNET_SOURCE_DIR "/tests/data/resize_golden.bin");
  int cases = 0;
  for (size_t at = 0; at < golden.size(); ++cases) {
    const Request request = take_request(golden, at);
    EXPECT_EQ(resize(request), take(golden, at, answer_size(request))) << request.str();
  }
  EXPECT_EQ(cases, 60);
}

TEST(Resize, keeps_a_constant_image_constant) {
  for (const int level : {0, 1, 127, 254, 255}) {
    for (const int64_t side : {1, 3, 28, 77, 200}) {
      Request request{1, 31, 17, side, side + 5, Bytes(31 * 17, static_cast<uint8_t>(level))};
      for (const Interpolation interpolation : kAll) {
        request.interpolation = interpolation;
        const Bytes out = resize(request);
        EXPECT_EQ(std::count(out.begin(), out.end(), level), static_cast<long>(out.size())) << level << request.str();
      }
    }
  }
}

TEST(Resize, refuses_sides_it_cannot_resize) {
  for (const int64_t side : {int64_t{-1}, int64_t{0}, kMaxImageSide + 1, INT64_MAX}) {
    EXPECT_THROW(Resizer(side, 1, 1, 1), UserError);
    EXPECT_THROW(Resizer(1, side, 1, 1), UserError);
    EXPECT_THROW(Resizer(1, 1, side, 1), UserError);
    EXPECT_THROW(Resizer(1, 1, 1, side), UserError);
  }
}

TEST(Resize, refuses_buffers_of_another_size) {
  const Resizer resizer(2, 3, 4, 5);
  std::vector<uint8_t> scratch;
  Bytes in(6), out(20), wrong(7);
  resizer.resize(in, out, scratch);
  EXPECT_THROW(resizer.resize(wrong, out, scratch), InternalError);
  EXPECT_THROW(resizer.resize(in, wrong, scratch), InternalError);
}

TEST(Resize, makes_a_window_of_the_resized_image_with_the_bytes_of_a_crop) {
  Rng rng(5);
  std::vector<uint8_t> scratch;
  for (int i = 0; i < 300; ++i) {
    const auto side = [&] { return 1 + static_cast<int64_t>(rng.below(60)); };
    const int64_t in_height = side(), in_width = side();
    const int64_t height = rng.below(6) == 0 ? in_height : side();
    const int64_t width = rng.below(6) == 0 ? in_width : side();
    const Interpolation interpolation = kAll[static_cast<size_t>(i) % kAll.size()];
    const auto part = [&](int64_t whole) {
      const auto size = 1 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(whole)));
      return std::pair(static_cast<int64_t>(rng.below(static_cast<uint64_t>(whole - size + 1))), size);
    };
    const auto [top, rows] = part(height);
    const auto [left, columns] = part(width);
    Bytes in(static_cast<size_t>(in_height * in_width));
    for (uint8_t& pixel : in) pixel = static_cast<uint8_t>(rng.below(256));
    Bytes whole(static_cast<size_t>(height * width)), window(static_cast<size_t>(rows * columns));
    Resizer(in_height, in_width, height, width, interpolation).resize(in, whole, scratch);
    Resizer(in_height, in_width, height, width, interpolation,
            {.top = top, .left = left, .height = rows, .width = columns})
        .resize(in, window, scratch);
    for (int64_t y = 0; y < rows; ++y) {
      for (int64_t x = 0; x < columns; ++x) {
        ASSERT_EQ(window[static_cast<size_t>(y * columns + x)],
                  whole[static_cast<size_t>((top + y) * width + left + x)])
            << name_of(interpolation) << " case " << i << ", row " << y << ", column " << x;
      }
    }
  }
}

TEST(Resize, makes_a_window_of_an_image_too_large_to_hold) {
  // A line of one row, resized to 8192 rows, has half a billion columns.
  const Bytes in(65535, 77);
  std::vector<uint8_t> scratch;
  for (const Interpolation interpolation : kAll) {
    const Resizer resizer(1, 65535, 8192, 65535 * int64_t{8192}, interpolation,
                          {.top = 100, .left = 65535 * int64_t{4096}, .height = 8, .width = 9});
    Bytes out(72);
    resizer.resize(in, out, scratch);
    EXPECT_EQ(out, Bytes(72, 77)) << name_of(interpolation);
  }
}

TEST(Resize, refuses_a_window_that_is_not_inside) {
  const auto make = [](const Window& window) { Resizer(5, 6, 7, 8, Interpolation::box, window); };
  EXPECT_NO_THROW(make({.top = 0, .left = 0, .height = 7, .width = 8}));
  EXPECT_NO_THROW(make({.top = 6, .left = 7, .height = 1, .width = 1}));
  EXPECT_THROW(make({.top = 1, .left = 0, .height = 7, .width = 8}), UserError);
  EXPECT_THROW(make({.top = 0, .left = 1, .height = 7, .width = 8}), UserError);
  EXPECT_THROW(make({.top = -1, .left = 0, .height = 7, .width = 8}), UserError);
  EXPECT_THROW(make({.top = 0, .left = 0, .height = 0, .width = 8}), UserError);
  EXPECT_THROW(make({.top = INT64_MAX, .left = 0, .height = 1, .width = 8}), UserError);
}

TEST(Resize, names_its_interpolations_and_knows_the_names) {
  for (const Interpolation interpolation : kAll) {
    EXPECT_EQ(parse_interpolation(name_of(interpolation)), interpolation);
  }
  try {
    parse_interpolation("bilinnear\n");
    ADD_FAILURE() << "was accepted";
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(),
                 "interpolation: found 'bilinnear\\x0a'; expected one of nearest, box, bilinear, hamming, bicubic, "
                 "lanczos");
  }
}

}  // namespace
}  // namespace resnet
