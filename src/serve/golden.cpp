#include "serve/golden.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/decode.h"
#include "formats/file_io.h"

namespace resnet {

namespace {

using nlohmann::json;

constexpr const char* kFormat = "resnet golden 1";
// Some 1500 images of a thousand classes. A value takes 16 bytes in memory and is written in two at least.
constexpr uint64_t kMaxGoldenBytes = uint64_t{32} << 20;
constexpr int64_t kMaxValues = int64_t{4} << 20;

std::string_view text_of(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Not a number is null in JSON.
json json_of(const std::vector<float>& logits) {
  json list = json::array();
  for (const float value : logits) list.push_back(std::isfinite(value) ? json(value) : json(nullptr));
  return list;
}

bool is_sha256(const json& value) {
  return value.is_string() && value.get_ref<const std::string&>().size() == 64 &&
         value.get_ref<const std::string&>().find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

GoldenImage observe(Classifier& classifier, const std::string& path, const std::string& file) {
  const ModelDescription& model = classifier.description();
  if (model.channels != 1 && model.channels != 3) {
    throw UserError(ExitCode::refused, "model: takes images of {} channels; expected 1 or 3, as image files have",
                    model.channels);
  }
  GoldenImage seen{.file = file};
  std::vector<std::byte> bytes;
  read_image_bytes(path, bytes);
  seen.sha256 = sha256_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  const Image image =
      decode_image(bytes, path, {.channels = model.channels, .exif_orientation = model.preprocessing.exif_orientation});
  const auto side = static_cast<size_t>(model.preprocessing.image_size);
  std::vector<uint8_t> pixels(static_cast<size_t>(model.channels) * side * side);
  PreprocessScratch scratch;
  preprocess_pixels(image.view(), model.preprocessing, scratch, pixels);
  seen.pixels_sha256 = sha256_hex(text_of(pixels));
  const ImageView view = image.view();
  const Tensor logits = classifier.logits(std::span(&view, 1));
  const auto values = logits.as<float>();
  seen.logits.assign(values.begin(), values.end());
  return seen;
}

void write_golden(const std::string& path, const Golden& golden) {
  const Preprocessing& p = golden.preprocessing;
  json images = json::array();
  for (const GoldenImage& image : golden.images) {
    images.push_back({{"file", image.file},
                      {"sha256", image.sha256},
                      {"pixels_sha256", image.pixels_sha256},
                      {"logits", json_of(image.logits)}});
  }
  const json all = {{"format", kFormat},
                    {"architecture", golden.architecture},
                    {"preprocessing",
                     {{"image_size", p.image_size},
                      {"resize", name_of(p.resize)},
                      {"resize_size", resized_side(p)},
                      {"interpolation", name_of(p.interpolation)},
                      {"mean", p.mean},
                      {"std", p.std},
                      {"exif_orientation", p.exif_orientation}}},
                    {"images", images}};
  const std::string text = all.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
  if (text.size() > kMaxGoldenBytes) {
    throw ResourceError(ExitCode::limit, "{}: {} images make {} bytes; at most {} are read; expected fewer images",
                        escape_control(path), golden.images.size(), text.size(), kMaxGoldenBytes);
  }
  atomic_write_file(path, text);
}

std::vector<GoldenImage> read_golden(const std::string& path, size_t classes) {
  const std::string shown = escape_control(path);
  const std::string text = read_whole_file(path, kMaxGoldenBytes);
  // Deeper than images > image > logits there is nothing to read, and no logit is written in less than eight bytes.
  constexpr int kDeepest = 5;
  int64_t values = 0;
  bool too_much = false;
  const json all = json::parse(
      text,
      [&](int depth, json::parse_event_t, const json&) {
        too_much = too_much || depth > kDeepest || ++values > kMaxValues;
        return !too_much;
      },
      false);
  if (all.is_discarded() || too_much) throw bad_data(shown, 0, "golden", "no JSON of a golden; write one with --write");
  if (!all.is_object() || all.value("format", json()) != kFormat) {
    throw bad_data(shown, 0, "format", "expected \"{}\"; write one with --write", kFormat);
  }
  const auto images = all.find("images");
  if (images == all.end() || !images->is_array() || images->empty()) {
    throw bad_data(shown, 0, "images", "expected a list of at least one image");
  }
  std::vector<GoldenImage> golden;
  for (const json& entry : *images) {
    const auto wrong = [&](const char* field, const std::string& expected) -> UserError {
      return bad_data(shown, 0, field, "image {} of the list: expected {}", golden.size(), expected);
    };
    const auto field = [&](const char* name) { return entry.is_object() ? entry.value(name, json()) : json(); };
    GoldenImage image;
    const json file = field("file"), logits = field("logits");
    if (!file.is_string() || file.get_ref<const std::string&>().empty()) throw wrong("file", "a path");
    image.file = file.get<std::string>();
    for (const auto& [name, member] :
         {std::pair{"sha256", &GoldenImage::sha256}, std::pair{"pixels_sha256", &GoldenImage::pixels_sha256}}) {
      const json hash = field(name);
      if (!is_sha256(hash)) throw wrong(name, "64 lowercase hexadecimal digits");
      image.*member = hash.get<std::string>();
    }
    if (!logits.is_array() || logits.size() != classes) {
      throw wrong("logits", fmt::format("a list of {} numbers, one for each class of the model", classes));
    }
    for (const json& value : logits) {
      if (!value.is_number() && !value.is_null()) throw wrong("logits", "numbers, or null where there is none");
      image.logits.push_back(value.is_null() ? std::numeric_limits<float>::quiet_NaN() : value.get<float>());
    }
    golden.push_back(std::move(image));
  }
  return golden;
}

GoldenDifference difference(const GoldenImage& now, const GoldenImage& then) {
  check(now.logits.size() == then.logits.size(), "golden: other classes");
  GoldenDifference d{.file = now.sha256 != then.sha256, .pixels = now.pixels_sha256 != then.pixels_sha256};
  double largest = 0, furthest = 0;
  for (size_t i = 0; i < now.logits.size(); ++i) {
    const double a = now.logits[i], b = then.logits[i];
    if (!std::isfinite(a) && !std::isfinite(b)) continue;  // a golden knows no more of what is not finite
    if (!std::isfinite(a) || !std::isfinite(b)) return {d.file, d.pixels, std::numeric_limits<double>::infinity()};
    largest = std::max(largest, std::abs(b));
    furthest = std::max(furthest, std::abs(a - b));
  }
  d.logits = furthest == 0 ? 0 : largest == 0 ? std::numeric_limits<double>::infinity() : furthest / largest;
  return d;
}

}  // namespace resnet
