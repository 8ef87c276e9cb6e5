#include "plot/canvas.h"

#include <cairo-svg.h>

#include "base/error.h"
#include "base/utf8.h"

#if defined(__has_feature)
#define RESNET_HAS_FEATURE(x) __has_feature(x)
#else
#define RESNET_HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || RESNET_HAS_FEATURE(address_sanitizer)
// Fontconfig keeps a kilobyte for the process's life (the same after one chart and after 300) behind pointers that
// LeakSanitizer cannot see. In this file, so that every program that draws has it.
extern "C" {
__attribute__((visibility("default"))) const char* __lsan_default_suppressions();
__attribute__((visibility("default"))) const char* __lsan_default_options();
const char* __lsan_default_suppressions() { return "leak:libfontconfig"; }
const char* __lsan_default_options() { return "print_suppressions=0"; }
}
#endif

namespace resnet::drawing {

std::string drawable(const std::string& text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto point = code_point_at(text, at);
    const size_t bytes = point ? point->bytes : 1;
    const bool shown = point && is_printable(point->value);
    out += shown ? text.substr(at, bytes) : "?";
    at += bytes;
  }
  return out;
}

namespace {

using Surface = std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)>;

void check_status(cairo_status_t status) {
  if (status == CAIRO_STATUS_NO_MEMORY) throw ResourceError(ExitCode::limit, "chart: out of memory");
  if (status != CAIRO_STATUS_SUCCESS)
    throw InternalError(fmt::format("chart: cairo: {}", cairo_status_to_string(status)));
}

cairo_status_t append(void* out, const unsigned char* data, unsigned int length) {
  static_cast<std::string*>(out)->append(reinterpret_cast<const char*>(data), length);
  return CAIRO_STATUS_SUCCESS;
}

}  // namespace

std::string svg_of(int width, int height, const std::function<void(Canvas&)>& draw) {
  std::string out;
  {
    const Surface surface(cairo_svg_surface_create_for_stream(&append, &out, width, height), &cairo_surface_destroy);
    cairo_svg_surface_set_document_unit(surface.get(), CAIRO_SVG_UNIT_PX);
    Canvas canvas(surface.get());
    draw(canvas);
    check_status(canvas.status());
    cairo_surface_finish(surface.get());
    check_status(cairo_surface_status(surface.get()));
  }
  // Cairo 1.16 numbers surfaces through the process's life; nothing refers to the number.
  const std::string id = "id=\"surface";
  const size_t at = out.find(id);
  if (at != std::string::npos) {
    const size_t digits = at + id.size();
    out.erase(digits, out.find('"', digits) - digits);
  }
  return out;
}

std::string png_of(int width, int height, double pixel_ratio, const std::function<void(Canvas&)>& draw) {
  const auto pixels = [&](int units) { return static_cast<int>(std::lround(units * pixel_ratio)); };
  const Surface surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24, pixels(width), pixels(height)),
                        &cairo_surface_destroy);
  Canvas canvas(surface.get());
  canvas.scale(pixel_ratio);
  draw(canvas);
  check_status(canvas.status());
  std::string out;
  check_status(cairo_surface_write_to_png_stream(surface.get(), &append, &out));
  return out;
}

}  // namespace resnet::drawing
