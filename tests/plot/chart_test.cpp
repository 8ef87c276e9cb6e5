#include "plot/chart.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

#include "base/error.h"

namespace resnet {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Chart chart_of(std::vector<double> y, bool log_y = false) {
  Series series{"train", {}, std::move(y)};
  for (size_t i = 0; i < series.y.size(); ++i) series.x.push_back(static_cast<double>(i + 1));
  return {.title = "Loss", .x_label = "epoch", .y_label = "cross-entropy", .series = {series}, .log_y = log_y};
}

std::vector<Chart> learning_curves() {
  Chart loss = chart_of({2.0, 1.0, 0.5, 0.3, 0.25});
  loss.series.push_back({"eval", {1, 2, 3, 4, 5}, {1.5, 0.9, 0.6, 0.5, 0.5}});
  Chart accuracy = loss;
  accuracy.title = "Top-1 accuracy";
  for (Series& series : accuracy.series) {
    for (double& y : series.y) y = 1 - y / 4;
  }
  return {loss, accuracy};
}

struct Pixel {
  double x, y;
};

/// The strokes in the first series' colour, #0072b2, that are as thick as a curve.
std::vector<std::vector<Pixel>> curves_in(const std::string& svg) {
  std::vector<std::vector<Pixel>> curves;
  std::istringstream lines(svg);
  for (std::string line; std::getline(lines, line);) {
    const auto has = [&](const char* text) { return line.find(text) != std::string::npos; };
    if (!has("<path") || !has("fill:none") || !has("stroke:rgb(0%,44.705882%,69.803922%)")) continue;
    if (!has("stroke-width:2.2;") && !has("stroke-width:1.2;")) continue;
    std::istringstream path(line.substr(line.find(" d=\"") + 4));
    curves.emplace_back();
    std::string command;
    for (Pixel point{}; path >> command >> point.x >> point.y;) curves.back().push_back(point);
  }
  return curves;
}

TEST(Chart, the_same_data_gives_the_same_bytes_and_other_data_other_bytes) {
  EXPECT_EQ(render_svg(learning_curves()), render_svg(learning_curves()));
  EXPECT_EQ(render_png(learning_curves()), render_png(learning_curves()));
  auto changed = learning_curves();
  changed[1].series[1].y[2] += 0.05;
  EXPECT_NE(render_svg(learning_curves()), render_svg(changed));
  EXPECT_NE(render_png(learning_curves()), render_png(changed));
}

TEST(Chart, svg_is_well_formed_and_png_has_the_size_asked_for) {
  char name[] = "/tmp/resnet-chart-XXXXXX";
  const int fd = mkstemp(name);
  ASSERT_GE(fd, 0);
  std::ofstream(name, std::ios::binary) << render_svg(learning_curves());
  const std::string command =
      std::string(
          "/usr/bin/python3 -c \"import sys, xml.dom.minidom as m; s = m.parse(sys.argv[1]).documentElement; "
          "sys.exit(s.tagName != 'svg' or s.getAttribute('width') != '1000px')\" ") +
      name;
  EXPECT_EQ(std::system(command.c_str()), 0);
  std::remove(name);

  const std::string png = render_png(learning_curves(), {.width = 640, .height = 300, .pixel_ratio = 1.5});
  ASSERT_GT(png.size(), 1000u);
  EXPECT_EQ(png.substr(0, 8), "\x89PNG\r\n\x1a\n");
  const auto big_endian = [&](size_t at) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(png[at + i]);
    return value;
  };
  EXPECT_EQ(big_endian(16), 960u);
  EXPECT_EQ(big_endian(20), 450u);
}

TEST(Chart, a_curve_is_drawn_in_scale_and_inside_the_figure) {
  const auto curves = curves_in(render_svg({chart_of({1.0, 2.0, 4.0, 3.0})}, {.width = 500, .height = 300}));
  ASSERT_EQ(curves.size(), 1u);
  const auto& points = curves[0];
  ASSERT_EQ(points.size(), 4u);
  for (const Pixel& point : points) {
    EXPECT_GT(point.x, 0);
    EXPECT_LT(point.x, 440);  // room for the label
    EXPECT_GT(point.y, 50);
    EXPECT_LT(point.y, 270);
  }
  const double column = points[1].x - points[0].x;
  const double unit = points[0].y - points[1].y;
  EXPECT_GT(column, 50);
  EXPECT_GT(unit, 20);
  EXPECT_NEAR(points[3].x - points[0].x, 3 * column, 0.01);
  EXPECT_NEAR(points[0].y - points[2].y, 3 * unit, 0.01);
  EXPECT_NEAR(points[0].y - points[3].y, 2 * unit, 0.01);
}

TEST(Chart, a_log_axis_makes_equal_ratios_equal_heights) {
  const auto curves = curves_in(render_svg({chart_of({0.001, 0.01, 1.0}, true)}));
  ASSERT_EQ(curves.size(), 1u);
  const auto& points = curves[0];
  ASSERT_EQ(points.size(), 3u);
  EXPECT_GT(points[0].y - points[1].y, 20);
  EXPECT_NEAR(points[1].y - points[2].y, 2 * (points[0].y - points[1].y), 0.01);
}

TEST(Chart, values_that_cannot_be_drawn_are_gaps) {
  for (const double gap : {kNan, kInfinity, -kInfinity, 1e300}) {
    const std::string svg = render_svg({chart_of({1, 2, gap, 3, 5, 4})});
    const auto curves = curves_in(svg);
    ASSERT_EQ(curves.size(), 2u) << gap;
    EXPECT_EQ(curves[0].size(), 2u);
    EXPECT_EQ(curves[1].size(), 3u);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
  }
  for (const double gap : {0.0, -1.0, kNan}) {
    EXPECT_EQ(curves_in(render_svg({chart_of({1, 2, gap, 3, 5, 4}, true)})).size(), 2u) << gap;
    EXPECT_EQ(curves_in(render_svg({chart_of({1, 2, gap, 3, 5, 4}, true)}))[1].size(), 3u) << gap;
  }
}

TEST(Chart, no_panels_no_series_no_points_and_one_point_are_drawn) {
  const std::string nothing = render_svg({});
  const std::string no_series = render_svg({Chart{}});
  const std::string no_points = render_svg({chart_of({})});
  const std::string one_point = render_svg({chart_of({0.5})});
  for (const std::string& svg : {nothing, no_series, no_points, one_point, render_svg({chart_of({kNan, kNan})})}) {
    EXPECT_NE(svg.find("</svg>"), std::string::npos);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_TRUE(curves_in(svg).empty());
  }
  EXPECT_LT(nothing.size(), no_series.size());
  EXPECT_LT(no_series.size(), no_points.size());
  EXPECT_LT(no_points.size(), one_point.size());
}

TEST(Chart, extreme_values_give_finite_coordinates) {
  const std::vector<std::vector<double>> cases{
      {-1e290, 1e290},  {1e-310, 2e-310},   {0, 5e-324},
      {1e15, 1e15 + 1}, {1, 1 + 1e-15},     {0, 0, 0},
      {-5, -5},         {1e-8, 3e-8, 2e-8}, {123456789, 123456790},
      {-0.0, 0.0},      {1e-280, 1e280},    {-3, -1, -2},
      {9.999999, 10.0}, {1e6, 2e6},         {0.1, 0.2, 0.30000000000000004},
  };
  for (const auto& values : cases) {
    for (const bool log_y : {false, true}) {
      const std::string svg = render_svg({chart_of(values, log_y)});
      EXPECT_EQ(svg.find("nan"), std::string::npos) << values[0];
      EXPECT_EQ(svg.find("inf"), std::string::npos) << values[0];
      EXPECT_LT(svg.size(), 200'000u) << values[0] << ": too many ticks";
      for (const auto& curve : curves_in(svg)) {
        for (const Pixel& point : curve) {
          EXPECT_TRUE(point.x >= 0 && point.x <= 1000 && point.y >= 0 && point.y <= 420)
              << values[0] << " at " << point.x << "," << point.y;
        }
      }
    }
  }
}

TEST(Chart, a_million_points_stay_small_and_a_single_spike_stays_visible) {
  std::vector<double> values(1'000'000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<double>(i) * 1e-5);
  values[612'345] = 3.0;
  const std::string svg = render_svg({chart_of(values)});
  EXPECT_LT(svg.size(), 400'000u);
  const auto curves = curves_in(svg);
  ASSERT_EQ(curves.size(), 1u);
  int above = 0;
  double top = 1000;
  for (const Pixel& point : curves[0]) top = std::min(top, point.y);
  for (const Pixel& point : curves[0]) above += point.y < top + 5;
  EXPECT_EQ(above, 1);
}

TEST(Chart, text_that_is_not_utf8_or_has_control_characters_is_drawn_with_question_marks) {
  for (const char* name :
       {"\xff\xfe", "caf\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "a\nb\x1b[31m", "\xe2\x82"}) {
    Chart chart = chart_of({1, 2, 3});
    chart.title = chart.x_label = chart.y_label = chart.series[0].name = name;
    EXPECT_EQ(curves_in(render_svg({chart})).size(), 1u);
    EXPECT_GT(render_png({chart}).size(), 1000u);
  }
  Chart long_name = chart_of({1, 2, 3});
  for (int i = 0; i < 500; ++i) long_name.series[0].name += "\u20ac\u00e9x";
  const auto curves = curves_in(render_svg({long_name}));
  ASSERT_EQ(curves.size(), 1u);
  EXPECT_GT(curves[0].back().x - curves[0].front().x, 400) << "the label leaves no room for the curve";
}

TEST(Chart, more_series_than_colours_are_all_labelled_within_the_figure) {
  Chart chart = chart_of({});
  chart.series.clear();
  for (int i = 0; i < 40; ++i) chart.series.push_back({"run " + std::to_string(i), {1, 2, 3}, {1.0, 1.0, 1.0}});
  const std::string svg = render_svg({chart});
  int glyphs = 0;
  for (size_t at = svg.find("<use "); at != std::string::npos; at = svg.find("<use ", at + 1)) {
    const double y = std::stod(svg.substr(svg.find(" y=\"", at) + 4, 20));
    EXPECT_TRUE(y > 0 && y < 420) << y;
    ++glyphs;
  }
  EXPECT_GT(glyphs, 40 * 8);
}

TEST(Chart, x_and_y_of_different_lengths_and_absurd_sizes_are_our_own_bug) {
  Chart chart = chart_of({1, 2});
  chart.series[0].x.push_back(3);
  EXPECT_THROW(render_svg({chart}), InternalError);
  EXPECT_THROW(render_png({chart_of({1})}, {.width = 100'000}), InternalError);
}

}  // namespace
}  // namespace resnet
