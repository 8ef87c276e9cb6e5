// WebP through libwebp: of an animation the first frame on a black canvas, as Pillow gives it.

#include <webp/decode.h>
#include <webp/demux.h>

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "data/exif.h"
#include "data/image_readers.h"
#include "data/pixel_rows.h"

namespace resnet {

namespace {

class Demuxer {
 public:
  Demuxer(std::span<const std::byte> file, const std::string& name) {
    const WebPData data{reinterpret_cast<const uint8_t*>(file.data()), file.size()};
    WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
    demuxer_.reset(WebPDemuxPartial(&data, &state));
    if (demuxer_ && state == WEBP_DEMUX_DONE) return;
    if (state == WEBP_DEMUX_PARSE_ERROR || state == WEBP_DEMUX_DONE) {
      throw bad_data(name, 12, "chunks", "found no valid image; expected an intact WebP");
    }
    throw bad_data(name, file.size(), "chunks", "the file ends in the middle of the image; expected a complete WebP");
  }

  int64_t width() const { return WebPDemuxGetI(demuxer_.get(), WEBP_FF_CANVAS_WIDTH); }
  int64_t height() const { return WebPDemuxGetI(demuxer_.get(), WEBP_FF_CANVAS_HEIGHT); }
  bool has_alpha() const { return (WebPDemuxGetI(demuxer_.get(), WEBP_FF_FORMAT_FLAGS) & ALPHA_FLAG) != 0; }

  int orientation() const {
    WebPChunkIterator chunk{};
    int result = 1;
    if (WebPDemuxGetChunk(demuxer_.get(), "EXIF", 1, &chunk) != 0) {
      result = exif_orientation({reinterpret_cast<const std::byte*>(chunk.chunk.bytes), chunk.chunk.size});
    }
    WebPDemuxReleaseChunkIterator(&chunk);
    return result;
  }

  /// Borrows from the file.
  bool first_frame(WebPIterator& frame) const {
    const bool found = WebPDemuxGetFrame(demuxer_.get(), 1, &frame) != 0;
    WebPDemuxReleaseIterator(&frame);
    return found;
  }

 private:
  std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> demuxer_{nullptr, WebPDemuxDelete};
};

}  // namespace

ImageInfo probe_webp(std::span<const std::byte> file, const std::string& name) {
  const Demuxer demuxer(file, name);
  return {.format = ImageFormat::webp,
          .width = demuxer.width(),
          .height = demuxer.height(),
          .mode = demuxer.has_alpha() ? "RGBA" : "RGB",
          .orientation = demuxer.orientation()};
}

Image decode_webp(std::span<const std::byte> file, const std::string& name, const ImageInfo& info,
                  const DecodeOptions& options) {
  const Demuxer demuxer(file, name);
  WebPIterator frame{};
  if (!demuxer.first_frame(frame)) throw bad_data(name, 12, "frame", "found none; expected at least one");
  refuse_bomb(info, frame.fragment.size, name);
  // The canvas takes memory too, and its size is bound to nothing.
  constexpr int64_t kMostOfFrame = 16, kFreePixels = int64_t{1} << 22;
  const int64_t canvas = info.width * info.height;
  if (canvas > kFreePixels && canvas / kMostOfFrame > int64_t{frame.width} * frame.height) {
    throw UserError(ExitCode::limit,
                    "{}: has a canvas of {} x {} pixels for a first frame of {} x {}; at most {} times "
                    "the frame's pixels are read",
                    name, info.width, info.height, frame.width, frame.height, kMostOfFrame);
  }
  const auto offset = static_cast<uint64_t>(frame.fragment.bytes - reinterpret_cast<const uint8_t*>(file.data()));
  WebPDecoderConfig config{};
  if (WebPInitDecoderConfig(&config) == 0)
    throw InternalError("webp: the library is of another version than its header");
  config.output.colorspace = MODE_RGB;
  const auto status = WebPDecode(frame.fragment.bytes, frame.fragment.size, &config);
  const std::unique_ptr<WebPDecBuffer, void (*)(WebPDecBuffer*)> buffer(&config.output, WebPFreeDecBuffer);
  if (status == VP8_STATUS_OUT_OF_MEMORY) {
    throw ResourceError(ExitCode::limit, "{}: not enough memory for {} x {} pixels; expected a smaller image", name,
                        info.width, info.height);
  }
  if (status != VP8_STATUS_OK) {
    const bool cut = status == VP8_STATUS_NOT_ENOUGH_DATA || status == VP8_STATUS_SUSPENDED;
    throw bad_data(name, offset, "frame", "found {}; expected an intact WebP",
                   cut ? "data that ends in the middle of the image" : "damaged data");
  }
  const WebPDecBuffer& output = config.output;
  PixelRows rows(name, options.channels, info.height, info.width);
  if (output.width == info.width && output.height == info.height) {
    for (int64_t y = 0; y < info.height; ++y) rows.put_rgb(y, output.u.RGBA.rgba + y * output.u.RGBA.stride);
    return rows.take();
  }
  // The first frame of an animation may cover a part of the canvas.
  std::vector<uint8_t> row(static_cast<size_t>(info.width) * 3);
  for (int64_t y = 0; y < info.height; ++y) {
    std::fill(row.begin(), row.end(), uint8_t{0});
    const int64_t from = y - frame.y_offset;
    if (from >= 0 && from < output.height) {
      std::copy_n(output.u.RGBA.rgba + from * output.u.RGBA.stride, 3 * output.width, row.data() + 3 * frame.x_offset);
    }
    rows.put_rgb(y, row.data());
  }
  return rows.take();
}

}  // namespace resnet
