// The C interface: arguments checked, exceptions turned into codes, images into the model's channels.

#include <resnet/resnet.h>

#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "data/decode.h"
#include "serve/classifier.h"

struct resnet_classifier {
  resnet::Classifier classifier;
};

namespace {

using namespace resnet;

thread_local std::string last_message;
thread_local const char* last_error = "";

/// Keeps the message on one line, whatever a name brought along, and gives the code back.
resnet_status fail(ExitCode code, const char* message) noexcept {
  try {
    last_message = escape_control(message);
    last_error = last_message.c_str();
  } catch (...) {
    last_error = "memory: not enough even for a message; give back what is not needed";
  }
  switch (code) {
    case ExitCode::usage: return RESNET_USAGE;
    case ExitCode::bad_data: return RESNET_BAD_DATA;
    case ExitCode::io: return RESNET_IO;
    case ExitCode::limit: return RESNET_LIMIT;
    default: return RESNET_INTERNAL;
  }
}

/// Runs `action`; nothing it throws leaves the library.
template <class Action>
resnet_status guarded(Action&& action) noexcept {
  try {
    action();
    return RESNET_OK;
  } catch (const Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(ExitCode::limit, "memory: not enough; give back what is not needed, or take fewer images at a time");
  } catch (const std::exception& error) {
    return fail(ExitCode::internal, error.what());
  } catch (...) {
    return fail(ExitCode::internal, "an exception of an unknown kind");
  }
}

void require_argument(const void* argument, const char* function, const char* name) {
  if (!argument) throw UserError("{}: {} is null; expected a pointer", function, name);
}

ClassifierOptions options_of(const resnet_options* given) {
  ClassifierOptions options;
  if (!given) return options;
  if (given->struct_size != sizeof(resnet_options))
    throw UserError("resnet_open: options of {} bytes; expected {}; start from resnet_default_options()",
                    given->struct_size, sizeof(resnet_options));
  options.threads = given->threads;
  if (given->max_batch != 0) options.max_batch = given->max_batch;
  if (given->backend) options.backend = given->backend;
  options.measure = given->measure != 0;
  return options;
}

/// The caller's pixels, channel by channel.
Image planar(const resnet_image& image, const std::string& where, int64_t channels) {
  require_argument(image.pixels, where.c_str(), "pixels");
  if (image.channels != channels)
    throw UserError("{}: {} channels; the model wants {}; convert it, or leave channels out by the strides", where,
                    image.channels, channels);
  if (image.height < 1 || image.height > kMaxImageSide || image.width < 1 || image.width > kMaxImageSide)
    throw UserError("{}: {}x{} pixels; expected sides of 1 to {}", where, image.width, image.height, kMaxImageSide);
  Image result;
  result.channels = channels;
  result.height = image.height;
  result.width = image.width;
  result.pixels.resize(static_cast<size_t>(channels * image.height * image.width));
  uint8_t* to = result.pixels.data();
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t y = 0; y < image.height; ++y) {
      const uint8_t* row = image.pixels + c * image.channel_stride + y * image.row_stride;
      for (int64_t x = 0; x < image.width; ++x) *to++ = row[x * image.column_stride];
    }
  }
  return result;
}

Image decoded(const resnet_image& image, size_t index, const ModelDescription& model) {
  const std::string where = fmt::format("image {}", index);
  if (image.kind != RESNET_IMAGE_PIXELS && model.channels != 1 && model.channels != 3)
    throw UserError("{}: the model wants {} channels; files hold grey or RGB; give it pixels", where, model.channels);
  const DecodeOptions options{.channels = model.channels, .exif_orientation = model.preprocessing.exif_orientation};
  switch (image.kind) {
    case RESNET_IMAGE_FILE: require_argument(image.path, where.c_str(), "path"); return read_image(image.path, options);
    case RESNET_IMAGE_ENCODED:
      require_argument(image.encoded, where.c_str(), "encoded");
      return decode_image({static_cast<const std::byte*>(image.encoded), image.encoded_bytes}, where, options);
    case RESNET_IMAGE_PIXELS: return planar(image, where, model.channels);
  }
  throw UserError("{}: kind {}; expected one of resnet_image_kind", where, static_cast<int>(image.kind));
}

/// Logits [count, classes]. Images are decoded as many at a time as are computed, so a long list needs little memory.
Tensor logits_of(Classifier& classifier, const resnet_image* images, size_t count) {
  const auto classes = static_cast<int64_t>(classifier.description().class_names.size());
  if (count > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
    throw UserError("images: {}; expected at most {} in one call", count, std::numeric_limits<int32_t>::max());
  Tensor all(DType::f32, Shape{static_cast<int64_t>(count), classes});
  const auto most = static_cast<size_t>(classifier.max_batch());
  for (size_t first = 0; first < count; first += most) {
    std::vector<Image> part;
    std::vector<ImageView> views;
    for (size_t i = first; i < std::min(count, first + most); ++i)
      part.push_back(decoded(images[i], i, classifier.description()));
    for (const Image& image : part) views.push_back(image.view());
    const Tensor logits = classifier.logits(views);
    std::memcpy(all.data() + first * static_cast<size_t>(classes) * sizeof(float), logits.data(), logits.size_bytes());
  }
  return all;
}

}  // namespace

extern "C" {

const char* resnet_version(void) { return RESNET_VERSION; }

const char* resnet_last_error(void) { return last_error; }

resnet_status resnet_open(const char* model_path, const resnet_options* options, resnet_classifier** classifier) {
  if (classifier) *classifier = nullptr;
  return guarded([&] {
    require_argument(model_path, "resnet_open", "model_path");
    require_argument(classifier, "resnet_open", "classifier");
    *classifier = new resnet_classifier{Classifier(model_path, options_of(options))};
  });
}

void resnet_close(resnet_classifier* classifier) { delete classifier; }

const char* resnet_architecture(const resnet_classifier* classifier) {
  return classifier ? classifier->classifier.description().architecture.c_str() : nullptr;
}

size_t resnet_class_count(const resnet_classifier* classifier) {
  return classifier ? classifier->classifier.description().class_names.size() : 0;
}

const char* resnet_class_name(const resnet_classifier* classifier, size_t index) {
  if (index >= resnet_class_count(classifier)) return nullptr;
  return classifier->classifier.description().class_names[index].c_str();
}

int64_t resnet_channels(const resnet_classifier* classifier) {
  return classifier ? classifier->classifier.description().channels : 0;
}

int64_t resnet_input_size(const resnet_classifier* classifier) {
  return classifier ? classifier->classifier.description().preprocessing.image_size : 0;
}

resnet_status resnet_logits(resnet_classifier* classifier, const resnet_image* images, size_t count, float* logits) {
  return guarded([&] {
    require_argument(classifier, "resnet_logits", "classifier");
    if (count == 0) return;
    require_argument(images, "resnet_logits", "images");
    require_argument(logits, "resnet_logits", "logits");
    const Tensor all = logits_of(classifier->classifier, images, count);
    std::memcpy(logits, all.data(), all.size_bytes());
  });
}

resnet_status resnet_classify(resnet_classifier* classifier, const resnet_image* images, size_t count, size_t k,
                              resnet_prediction* predictions) {
  return guarded([&] {
    require_argument(classifier, "resnet_classify", "classifier");
    const size_t classes = resnet_class_count(classifier);
    if (k < 1 || k > classes) throw UserError("resnet_classify: k is {}; expected 1 to {}, the classes", k, classes);
    if (count == 0) return;
    require_argument(images, "resnet_classify", "images");
    require_argument(predictions, "resnet_classify", "predictions");
    const Tensor all = logits_of(classifier->classifier, images, count);
    for (size_t i = 0; i < count; ++i) {
      const auto row = all.as<float>().subspan(i * classes, classes);
      for (const Prediction& p :
           Classifier::top_k(row, static_cast<int64_t>(k), classifier->classifier.description().class_names)) {
        const auto index = static_cast<size_t>(p.index);
        *predictions++ = {index, p.probability, resnet_class_name(classifier, index)};
      }
    }
  });
}

}  // extern "C"
