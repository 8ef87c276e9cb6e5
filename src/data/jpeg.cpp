// JPEG through libjpeg-turbo, with the settings of Pillow's JpegDecode.c: the accurate integer DCT, fancy upsampling, a
// source that suspends at the end of the file (so that a truncated file is an error and not a grey area), warnings read
// over, CMYK taken as inverted.

#include <cstdio>  // jpeglib.h needs it before itself

#include <jerror.h>
#include <jpeglib.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>
#include <type_traits>

#include "base/error.h"
#include "data/exif.h"
#include "data/image_readers.h"
#include "data/pixel_rows.h"

namespace resnet {

namespace {

/// A JPEG's marker segments up to the first scan, in Pillow's way: bytes that are no marker are stepped over.
class Segments {
 public:
  Segments(std::span<const std::byte> file, const std::string& name) : file_(file), name_(name) {}

  struct Segment {
    int marker = 0;                   ///< second byte: 0xc0 is SOF0
    size_t at = 0;                    ///< of the marker's 0xff
    std::span<const std::byte> body;  ///< without marker and length
  };

  /// The next segment that has a body; SOS is the last one a caller may ask for.
  Segment next() {
    while (true) {
      while (byte(at_, "marker") != 0xff) ++at_;
      const size_t start = at_;
      while (byte(at_, "marker") == 0xff) ++at_;
      const int marker = byte(at_++, "marker");
      const bool alone = marker == 0 || marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8);
      if (alone) continue;
      if (marker == 0xd9) {
        throw bad_data(name_, start, "marker", "the image ends (EOI) before its data; expected a frame header");
      }
      const size_t length =
          static_cast<size_t>(byte(at_, "length")) << 8 | static_cast<size_t>(byte(at_ + 1, "length"));
      if (length < 2 || length > file_.size() - at_) {
        throw bad_data(name_, at_, "length",
                       "found a segment 0x{:02x} of {} bytes, {} are left; expected 2 or more, within the file", marker,
                       length, file_.size() - at_);
      }
      const Segment segment{.marker = marker, .at = start, .body = file_.subspan(at_ + 2, length - 2)};
      at_ += length;
      return segment;
    }
  }

 private:
  int byte(size_t at, const char* field) const {
    if (at < file_.size()) return std::to_integer<int>(file_[at]);
    throw bad_data(name_, file_.size(), field, "the file ends before the image data; expected a complete JPEG");
  }

  std::span<const std::byte> file_;
  const std::string& name_;
  size_t at_ = 2;  // after SOI
};

bool is_frame_header(int marker) {
  return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

struct ErrorManager {
  jpeg_error_mgr base;  // first, so that libjpeg's pointer is ours
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
  bool too_many_scans;
};

ErrorManager* manager_of(j_common_ptr info) { return reinterpret_cast<ErrorManager*>(info->err); }

extern "C" {
[[noreturn]] void on_error(j_common_ptr info) {
  ErrorManager* manager = manager_of(info);
  manager->base.format_message(info, manager->message);
  std::longjmp(manager->jump, 1);
}
void on_message(j_common_ptr info) { info->err->format_message(info, manager_of(info)->message); }

void do_nothing(j_decompress_ptr) {}
/// The whole file is in memory: at its end decoding is suspended, which its caller reports.
boolean no_more_input(j_decompress_ptr) { return FALSE; }
void skip_input(j_decompress_ptr info, long bytes) {
  if (bytes <= 0) return;
  const size_t step = std::min(static_cast<size_t>(bytes), info->src->bytes_in_buffer);
  info->src->next_input_byte += step;
  info->src->bytes_in_buffer -= step;
}
void on_progress(j_common_ptr info);
}

/// Pillow's CMYK to RGB (its Convert.c), after the inversion that it takes every CMYK JPEG to need.
void rgb_from_inverted_cmyk(const uint8_t* in, int64_t width, uint8_t* out) {
  for (int64_t x = 0; x < width; ++x, in += 4, out += 3) {
    const int not_k = in[3];
    for (int c = 0; c < 3; ++c) {
      const int product = (255 - in[c]) * not_k + 128;
      out[c] = static_cast<uint8_t>(std::clamp(not_k - ((product + (product >> 8)) >> 8), 0, 255));
    }
  }
}

/// One decompression. libjpeg reports errors by longjmp, so every call into it goes through run().
class Decompressor {
 public:
  explicit Decompressor(std::span<const std::byte> file) : file_(file) {
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = on_error;
    errors_.base.output_message = on_message;
    source_.next_input_byte = reinterpret_cast<const JOCTET*>(file.data());
    source_.bytes_in_buffer = file.size();
    source_.init_source = do_nothing;
    source_.fill_input_buffer = no_more_input;
    source_.skip_input_data = skip_input;
    source_.resync_to_restart = jpeg_resync_to_restart;
    source_.term_source = do_nothing;
    progress_.base.progress_monitor = on_progress;
  }
  ~Decompressor() { jpeg_destroy_decompress(&info_); }
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;

  struct Progress {
    jpeg_progress_mgr base;  // first, as above
    int max_scans;
  };

  /// Calls into libjpeg; false after an error of its. This frame is the one that longjmp comes back to, and those it
  /// skips are libjpeg's and `call`'s, which must hold nothing to destroy when they call libjpeg.
  template <class Call>
  bool run(const Call& call) {
    static_assert(std::is_trivially_destructible_v<Call>);
    if (setjmp(errors_.jump) != 0) return false;
    call();
    return true;
  }

  void create(int64_t blocks) {
    // A scan bomb: hundreds of scans of a few bytes that each visit every block. A photo has about ten; this allows a
    // second of visits, and twenty scans in any case.
    constexpr int64_t kMostVisits = 200'000'000;
    progress_.max_scans = static_cast<int>(std::clamp<int64_t>(kMostVisits / std::max<int64_t>(blocks, 1), 20, 500));
    jpeg_create_decompress(&info_);
    info_.src = &source_;
    info_.progress = &progress_.base;
  }

  jpeg_decompress_struct& info() { return info_; }
  uint64_t offset() const { return file_.size() - source_.bytes_in_buffer; }
  const ErrorManager& errors() const { return errors_; }
  int max_scans() const { return progress_.max_scans; }

 private:
  std::span<const std::byte> file_;
  jpeg_decompress_struct info_{};
  ErrorManager errors_{};
  jpeg_source_mgr source_{};
  Progress progress_{};
};

extern "C" void on_progress(j_common_ptr info) {
  const auto* progress = reinterpret_cast<const Decompressor::Progress*>(info->progress);
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= progress->max_scans) return;
  manager_of(info)->too_many_scans = true;
  std::longjmp(manager_of(info)->jump, 1);
}

/// Takes one decompression from the header to the last row.
class Decoding {
 public:
  Decoding(std::span<const std::byte> file, const std::string& name, const ImageInfo& info,
           const DecodeOptions& options)
      : jpeg_(file), file_(file), name_(name), info_(info), options_(options) {}

  Image run() {
    read_header();
    require_plausible();
    PixelRows rows(name_, options_.channels, info_.height, info_.width);
    read_rows(rows);
    if (options_.damage != nullptr && jpeg_.errors().base.num_warnings > 0) {
      options_.damage->push_back(
          fmt::format("{} ({} warnings)", jpeg_.errors().message, jpeg_.errors().base.num_warnings));
    }
    return rows.take();
  }

 private:
  void read_header() {
    const int64_t blocks = (info_.width + 7) / 8 * ((info_.height + 7) / 8);
    int result = JPEG_SUSPENDED;
    const bool fine = jpeg_.run([&] {
      jpeg_.create(blocks);
      do {
        result = jpeg_read_header(&jpeg_.info(), FALSE);
      } while (result == JPEG_HEADER_TABLES_ONLY);
    });
    if (!fine) fail();
    if (result != JPEG_HEADER_OK) truncated("header");
  }

  /// What follows the probe's walk and libjpeg's own must agree, and the file must be able to hold what it claims.
  void require_plausible() {
    const jpeg_decompress_struct& info = jpeg_.info();
    if (info.image_width != static_cast<uint64_t>(info_.width) ||
        info.image_height != static_cast<uint64_t>(info_.height)) {
      throw bad_data(name_, jpeg_.offset(), "frame header", "found {} x {} pixels after {} x {}; expected one size",
                     info.image_width, info.image_height, info_.width, info_.height);
    }
    if (info.arith_code) return refuse_bomb(info_, file_.size(), name_);  // a plain block takes less than a bit there
    // Huffman-coded, each 8 x 8 block of the finest component takes a bit at the least.
    const uint64_t blocks =
        static_cast<uint64_t>((info_.width + 7) / 8) * static_cast<uint64_t>((info_.height + 7) / 8);
    if (blocks / 8 > file_.size()) {
      throw bad_data(name_, jpeg_.offset(), "size", "found {} x {} pixels in a file of {} bytes; expected {} or more",
                     info_.width, info_.height, file_.size(), blocks / 8);
    }
  }

  void read_rows(PixelRows& rows) {
    jpeg_decompress_struct& info = jpeg_.info();
    const bool cmyk = info.num_components == 4;
    const bool grey = info.num_components == 1;
    info.out_color_space = grey ? JCS_GRAYSCALE : cmyk ? JCS_CMYK : JCS_RGB;
    const auto width = static_cast<size_t>(info_.width);
    std::vector<uint8_t> line(width * (grey ? 1 : cmyk ? 4 : 3));
    std::vector<uint8_t> rgb(cmyk ? width * 3 : 0);
    uint8_t* const line_data = line.data();
    uint8_t* const rgb_data = rgb.data();
    bool started = false;
    const bool fine = jpeg_.run([&] {
      started = jpeg_start_decompress(&info) != FALSE;
      while (started && info.output_scanline < info.output_height) {
        const int64_t y = info.output_scanline;
        JSAMPROW row = line_data;
        if (jpeg_read_scanlines(&info, &row, 1) != 1) break;
        if (cmyk) rgb_from_inverted_cmyk(line_data, info_.width, rgb_data);
        grey ? rows.put_grey(y, line_data) : rows.put_rgb(y, cmyk ? rgb_data : line_data);
      }
      // The end of the image is missed by nobody once the rows are there; damage before it is an error, as in Pillow.
      if (started && info.output_scanline == info.output_height) jpeg_finish_decompress(&info);
    });
    if (!fine) fail();
    if (!started || info.output_scanline < static_cast<JDIMENSION>(info_.height)) truncated("scan");
  }

  [[noreturn]] void truncated(const char* field) const {
    throw bad_data(name_, file_.size(), field, "the file ends in the middle of the image; expected a complete JPEG");
  }

  [[noreturn]] void fail() const {
    if (jpeg_.errors().too_many_scans) {
      throw UserError(ExitCode::limit, "{}: byte {} (scan): found more than {} scans; at most that many are read",
                      name_, jpeg_.offset(), jpeg_.max_scans());
    }
    if (jpeg_.errors().base.msg_code == JERR_OUT_OF_MEMORY) {
      throw ResourceError(ExitCode::limit, "{}: not enough memory for {} x {} pixels; expected a smaller image", name_,
                          info_.width, info_.height);
    }
    throw bad_data(name_, jpeg_.offset(), "JPEG data", "found damage ({}); expected an intact JPEG",
                   escape_control(jpeg_.errors().message));
  }

  Decompressor jpeg_;
  std::span<const std::byte> file_;
  const std::string& name_;
  const ImageInfo& info_;
  const DecodeOptions& options_;
};

}  // namespace

ImageInfo probe_jpeg(std::span<const std::byte> file, const std::string& name) {
  constexpr int kStartOfScan = 0xda, kApp1 = 0xe1;
  Segments segments(file, name);
  ImageInfo info{.format = ImageFormat::jpeg};
  bool has_exif = false;
  while (true) {
    const Segments::Segment segment = segments.next();
    const auto body = segment.body;
    const auto number = [&](size_t at) {
      return std::to_integer<int64_t>(body[at]) << 8 | std::to_integer<int64_t>(body[at + 1]);
    };
    if (segment.marker == kStartOfScan) break;
    if (segment.marker == kApp1 && !has_exif && body.size() >= 5 && std::memcmp(body.data(), "Exif", 5) == 0) {
      has_exif = true;  // of several blocks the first one counts, as in Pillow
      info.orientation = exif_orientation(body);
    }
    if (!is_frame_header(segment.marker)) continue;
    if (body.size() < 6) {
      throw bad_data(name, segment.at, "frame header", "found {} bytes; expected 6 or more", body.size());
    }
    if (body[0] != std::byte{8}) {
      throw bad_data(name, segment.at + 4, "precision", "found {} bits a sample; expected 8",
                     std::to_integer<int>(body[0]));
    }
    info.height = number(1);
    info.width = number(3);
    const int components = std::to_integer<int>(body[5]);
    if (components != 1 && components != 3 && components != 4) {
      throw bad_data(name, segment.at + 9, "components", "found {}; expected 1 (grey), 3 (colour) or 4 (CMYK)",
                     components);
    }
    info.mode = components == 1 ? "L" : components == 3 ? "RGB" : "CMYK";
    if (info.width == 0 || info.height == 0) {
      throw bad_data(name, segment.at + 5, "size", "found {} x {} pixels; expected at least 1 x 1", info.width,
                     info.height);
    }
  }
  if (info.mode.empty()) throw bad_data(name, 2, "frame header", "found none before the first scan; expected one");
  return info;
}

Image decode_jpeg(std::span<const std::byte> file, const std::string& name, const ImageInfo& info,
                  const DecodeOptions& options) {
  return Decoding(file, name, info, options).run();
}

}  // namespace resnet
