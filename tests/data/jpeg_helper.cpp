// Writes the kinds of JPEG that Pillow reads but cannot write, for a test in Python:
//   jpeg_helper WIDTH HEIGHT SPACE SAMPLING RESTART_BLOCKS PROGRESSIVE ARITHMETIC < pixels > file
// SPACE: grey, rgb, ycc, cmyk or ycck, what the file stores; stdin has 1, 3 or 4 bytes a pixel.
// SAMPLING: a digit each for the components' horizontal and vertical factors, as 221111.

#include <cstdio>  // jpeglib.h needs it before itself

#include <jpeglib.h>

#include <cstdlib>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 8) return 2;
  const std::string space = argv[3], sampling = argv[4];
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  jpeg_stdio_dest(&info, stdout);
  info.image_width = static_cast<JDIMENSION>(std::atoi(argv[1]));
  info.image_height = static_cast<JDIMENSION>(std::atoi(argv[2]));
  const bool four = space == "cmyk" || space == "ycck";
  info.input_components = space == "grey" ? 1 : four ? 4 : 3;
  info.in_color_space = space == "grey" ? JCS_GRAYSCALE : four ? JCS_CMYK : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_colorspace(&info, space == "grey"   ? JCS_GRAYSCALE
                             : space == "rgb"  ? JCS_RGB
                             : space == "cmyk" ? JCS_CMYK
                             : space == "ycck" ? JCS_YCCK
                                               : JCS_YCbCr);
  jpeg_set_quality(&info, 80, TRUE);
  for (size_t c = 0; c < static_cast<size_t>(info.num_components) && 2 * c + 1 < sampling.size(); ++c) {
    info.comp_info[c].h_samp_factor = sampling[2 * c] - '0';
    info.comp_info[c].v_samp_factor = sampling[2 * c + 1] - '0';
  }
  info.restart_interval = static_cast<unsigned>(std::atoi(argv[5]));
  if (std::atoi(argv[6]) != 0) jpeg_simple_progression(&info);
  info.arith_code = std::atoi(argv[7]) != 0 ? TRUE : FALSE;
  jpeg_start_compress(&info, TRUE);
  std::vector<unsigned char> row(size_t{info.image_width} * static_cast<size_t>(info.input_components));
  while (info.next_scanline < info.image_height) {
    if (std::fread(row.data(), 1, row.size(), stdin) != row.size()) return 1;
    JSAMPROW rows[] = {row.data()};
    jpeg_write_scanlines(&info, rows, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  return 0;
}
