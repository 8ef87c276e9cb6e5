#include "plot/heatmap.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"

namespace resnet {
namespace {

Heatmap matrix_of(size_t classes) {
  Heatmap h{.title = "Confusion", .row_label = "Rows: true", .column_label = "Columns: predicted"};
  for (size_t k = 0; k < classes; ++k) {
    h.names.push_back("class " + std::to_string(k));
    h.counts.emplace_back(classes, 0);
    h.counts[k][k] = 90;
    h.counts[k][(k + 1) % classes] += 10;
  }
  return h;
}

/// Filled areas that are not the page.
long areas_in(const std::string& svg) {
  long count = 0;
  for (size_t at = svg.find("<path"); at != std::string::npos; at = svg.find("<path", at + 1)) {
    const std::string element = svg.substr(at, svg.find('>', at) - at);
    count += element.find("fill:rgb(") != std::string::npos && element.find("stroke:none") != std::string::npos;
  }
  return count;
}

TEST(Heatmap, draws_a_cell_for_each_count_that_is_not_zero) {
  for (const size_t classes : {2, 10, 40, 100}) {
    const Heatmap h = matrix_of(classes);
    EXPECT_EQ(areas_in(render_svg(h)), static_cast<long>(2 * classes)) << classes;
    Heatmap fewer = h;
    fewer.counts[1][0] = fewer.counts[1][1] = 0;
    std::fill(fewer.counts[1].begin(), fewer.counts[1].end(), 0);
    EXPECT_EQ(areas_in(render_svg(fewer)), static_cast<long>(2 * classes - 2)) << "a class without images has no cell";
  }
}

TEST(Heatmap, colours_by_the_share_of_the_row_and_repeats_its_bytes) {
  Heatmap h = matrix_of(4);
  EXPECT_EQ(render_svg(h), render_svg(h));
  Heatmap more = h;
  for (int64_t& count : more.counts[2]) count *= 10;
  EXPECT_NE(render_svg(h), render_svg(more)) << "numbers are shown";
  const auto colours = [](const std::string& svg) {
    std::vector<std::string> found;
    for (size_t at = svg.find("fill:rgb("); at != std::string::npos; at = svg.find("fill:rgb(", at + 1))
      found.push_back(svg.substr(at, svg.find(')', at) - at));
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    return found;
  };
  EXPECT_EQ(colours(render_svg(h)), colours(render_svg(more))) << "the shares are the same";
  more.counts[2][2] = 1;
  EXPECT_NE(colours(render_svg(h)), colours(render_svg(more)));
}

TEST(Heatmap, survives_names_that_cannot_be_drawn_and_refuses_a_matrix_that_is_not_square) {
  Heatmap h = matrix_of(3);
  h.names[1] = "\x1b[2J\xff" + std::string(5000, 'x');
  EXPECT_NE(render_svg(h).find("<svg"), std::string::npos);
  h.counts[1].pop_back();
  EXPECT_THROW(render_svg(h), InternalError);
  h.counts.pop_back();
  EXPECT_THROW(render_svg(h), InternalError);
}

}  // namespace
}  // namespace resnet
