// resnet: classify images with a trained residual network. docs/library.md is the guide; resnet.h the same for C.
//
//   resnet::Classifier classifier("model.safetensors");
//   for (const resnet::Prediction& p : classifier.classify("photo.jpg"))
//     std::cout << p.name << ' ' << p.probability << '\n';
//
// Everything here is inline over the C interface, so no type of the standard library crosses into the shared library:
// a program may use another compiler, standard (C++17 or later) or standard library than the one it was built with.
//
// Errors are thrown as resnet::Error. Threads: one at a time may use a Classifier; several Classifiers may be used by
// several threads at once.
#pragma once

#include <resnet/resnet.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace resnet {
inline namespace v0 {

/// Any failure: what() holds on one line what came, what was expected and what to do. code() is the exit code that the
/// program `resnet` would end with: RESNET_USAGE (an argument), RESNET_BAD_DATA (a file's content), RESNET_IO (a file
/// missing or unreadable), RESNET_LIMIT (memory, threads, too many pixels), RESNET_INTERNAL (a bug of the library).
class Error : public std::runtime_error {
 public:
  Error(resnet_status code, const std::string& message) : std::runtime_error(message), code_(code) {}
  resnet_status code() const noexcept { return code_; }

 private:
  resnet_status code_;
};

struct Options {
  int threads = 0;              ///< that compute, 1 to 1024; 0: all CPUs this process may use
  std::int64_t max_batch = 32;  ///< images computed together, 1 to 65536: more memory, for a little more speed
  std::string backend = "cpu";  ///< or "reference": slow plain loops, also for models in double
  /// Measure this machine's fastest algorithms, which takes seconds once and is remembered for every later process.
  bool measure = false;
};

/// One image, of any size: the classifier resizes, crops and normalises as its model file says. A path converts to it.
class Image {
 public:
  /// A JPEG, PNG or WebP file, told apart by content; converted to grey or RGB as the model wants.
  Image(std::string path) : path_(std::move(path)), image_(resnet_image_file(nullptr)) {}
  Image(const char* path) : Image(std::string(path)) {}
  /// Such a file's bytes in memory. Borrowed.
  static Image encoded(const void* bytes, std::size_t count) { return Image(resnet_image_encoded(bytes, count)); }
  /// 8-bit pixels [height, width, channels] without gaps, in the model's channels, RGB order. Borrowed.
  static Image hwc(const std::uint8_t* pixels, std::int64_t height, std::int64_t width, std::int64_t channels = 3) {
    return Image(resnet_image_hwc(pixels, height, width, channels));
  }
  /// The same [channels, height, width].
  static Image chw(const std::uint8_t* pixels, std::int64_t channels, std::int64_t height, std::int64_t width) {
    return Image(resnet_image_chw(pixels, channels, height, width));
  }
  /// Any strides (see resnet_image): padded rows, bottom-up bitmaps, BGR, the first three of RGBA.
  explicit Image(const resnet_image& image) : image_(image) {
    if (image.kind == RESNET_IMAGE_FILE && image.path) path_ = image.path;
  }

  /// As C has it; valid as long as this.
  resnet_image c_image() const {
    resnet_image image = image_;
    if (image.kind == RESNET_IMAGE_FILE) image.path = path_.c_str();
    return image;
  }

 private:
  std::string path_;
  resnet_image image_;
};

struct Prediction {
  std::size_t index = 0;
  std::string name;
  double probability = 0;  ///< softmax of the logits
};

/// A model file made ready to classify. Movable; a moved-from one may only be assigned or destroyed.
class Classifier {
 public:
  /// Throws Error: a file that is missing (RESNET_IO) or no valid model (RESNET_BAD_DATA), a wrong option
  /// (RESNET_USAGE), no memory (RESNET_LIMIT).
  explicit Classifier(const std::string& model_path, const Options& options = {}) {
    resnet_options c_options = resnet_default_options();
    c_options.threads = options.threads;
    c_options.measure = options.measure;
    c_options.max_batch = options.max_batch;
    c_options.backend = options.backend.c_str();
    resnet_classifier* opened = nullptr;
    require(resnet_open(model_path.c_str(), &c_options, &opened));
    handle_.reset(opened);
  }

  /// The k most probable classes (fewer when the model has fewer), best first. Throws Error.
  std::vector<Prediction> classify(const Image& image, std::size_t k = 5) {
    return std::move(classify(std::vector<Image>{image}, k).front());
  }
  /// The same for each image; several at once are faster than one after the other. Throws Error naming the first
  /// image that fails.
  std::vector<std::vector<Prediction>> classify(const std::vector<Image>& images, std::size_t k = 5) {
    const std::size_t kept = std::min(k, class_count());
    std::vector<resnet_prediction> found(images.size() * kept);
    const std::vector<resnet_image> c_images = c_images_of(images);
    require(resnet_classify(handle_.get(), c_images.data(), c_images.size(), kept, found.data()));
    std::vector<std::vector<Prediction>> predictions(images.size());
    for (std::size_t i = 0; i < found.size(); ++i)
      predictions[i / kept].push_back({found[i].index, found[i].name, found[i].probability});
    return predictions;
  }

  /// The network's outputs before softmax: [classes]. Throws Error.
  std::vector<float> logits(const Image& image) { return logits(std::vector<Image>{image}); }
  /// [images, classes], one image after the other.
  std::vector<float> logits(const std::vector<Image>& images) {
    std::vector<float> values(images.size() * class_count());
    const std::vector<resnet_image> c_images = c_images_of(images);
    require(resnet_logits(handle_.get(), c_images.data(), c_images.size(), values.data()));
    return values;
  }

  std::string architecture() const { return resnet_architecture(handle_.get()); }
  std::size_t class_count() const { return resnet_class_count(handle_.get()); }
  /// In the order of their indices.
  std::vector<std::string> class_names() const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < class_count(); ++i) names.emplace_back(resnet_class_name(handle_.get(), i));
    return names;
  }
  /// Of its images: 1 for grey, 3 for RGB; a model of another number takes pixels only.
  std::int64_t channels() const { return resnet_channels(handle_.get()); }
  /// Side of the square that the network looks at, in pixels.
  std::int64_t input_size() const { return resnet_input_size(handle_.get()); }

 private:
  struct Close {
    void operator()(resnet_classifier* classifier) const { resnet_close(classifier); }
  };

  static void require(resnet_status status) {
    if (status != RESNET_OK) throw Error(status, resnet_last_error());
  }
  static std::vector<resnet_image> c_images_of(const std::vector<Image>& images) {
    std::vector<resnet_image> c_images;
    c_images.reserve(images.size());
    for (const Image& image : images) c_images.push_back(image.c_image());
    return c_images;
  }

  std::unique_ptr<resnet_classifier, Close> handle_;
};

}  // namespace v0
}  // namespace resnet
