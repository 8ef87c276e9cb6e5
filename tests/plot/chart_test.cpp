#include "plot/chart.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <set>
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

/// Lines of the SVG that hold every one of `parts`: cairo writes an element a line.
std::vector<std::string> elements(const std::string& svg, const std::vector<std::string>& parts) {
  std::vector<std::string> found;
  std::istringstream lines(svg);
  for (std::string line; std::getline(lines, line);) {
    bool all = true;
    for (const std::string& part : parts) all = all && line.find(part) != std::string::npos;
    if (all) found.push_back(line);
  }
  return found;
}

/// The outlines of the areas in the first series' colour that let shine through what lies below.
std::vector<std::vector<Pixel>> bands_in(const std::string& svg) {
  std::vector<std::vector<Pixel>> bands;
  for (const std::string& line : elements(svg, {"<path", "fill:rgb(0%,44.705882%,69.803922%)"})) {
    if (line.find("fill-opacity:1;") != std::string::npos) continue;
    std::istringstream path(line.substr(line.find(" d=\"") + 4));
    bands.emplace_back();
    std::string command;
    for (Pixel point{}; path >> command && command != "Z" && path >> point.x >> point.y;) bands.back().push_back(point);
  }
  return bands;
}

/// "12,34" of "stroke-dasharray:12,34;", "" when there is none.
std::string style_of(const std::string& element, const std::string& property) {
  const size_t at = element.find(property + ":");
  if (at == std::string::npos) return "";
  const size_t begin = at + property.size() + 1;
  return element.substr(begin, element.find(';', begin) - begin);
}

Chart chart_with_band(std::vector<double> low, std::vector<double> y, std::vector<double> high, bool log_y = false) {
  Chart chart = chart_of(std::move(y), log_y);
  chart.series[0].low = std::move(low);
  chart.series[0].high = std::move(high);
  return chart;
}

Chart chart_of_many(int count) {
  Chart chart = chart_of({});
  chart.series.clear();
  for (int i = 0; i < count; ++i) {
    const double y = i;
    chart.series.push_back({"run " + std::to_string(i), {1, 2, 3}, {y, y + 0.5, y}});
  }
  return chart;
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
  for (const char* name : {"\xff\xfe", "caf\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "a\nb\x1b[31m",
                           "\xe2\x82", "\xef\xbf\xbe", "\xef\xb7\x90", "\xf0\x9f\xbf\xbf", "\xc2\x85"}) {
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

TEST(Chart, labels_stand_beside_the_curves_and_apart_from_each_other) {
  // Two panels at a reader's 800 pixels, seven curves that all end in one place, names as long as the lab's.
  Chart chart = chart_of({});
  chart.series.clear();
  for (int i = 0; i < 7; ++i) {
    chart.series.push_back({fmt::format("residual-{}, gamma 0", 1000 + i), {1, 2, 3}, {3.0, 2.0, 1.0}});
  }
  const std::string svg = render_svg({chart, chart}, {.width = 800, .height = 360});
  const auto curves = curves_in(svg);
  ASSERT_EQ(curves.size(), 2u);
  double first_panel_end = 0;
  for (const Pixel& point : curves[0]) first_panel_end = std::max(first_panel_end, point.x);
  double second_panel_start = 1e9;
  for (const Pixel& point : curves[1]) second_panel_start = std::min(second_panel_start, point.x);
  ASSERT_LT(first_panel_end, second_panel_start);
  EXPECT_GT(first_panel_end, 100) << "the labels leave no room for the curves";
  // Rows of glyphs between the panels' curves are the first panel's labels.
  std::map<double, int> rows;
  for (size_t at = svg.find("<use "); at != std::string::npos; at = svg.find("<use ", at + 1)) {
    const double x = std::stod(svg.substr(svg.find(" x=\"", at) + 4, 20));
    const double y = std::stod(svg.substr(svg.find(" y=\"", at) + 4, 20));
    if (x > first_panel_end + 10 && x < second_panel_start - 60 && y > 60 && y < 320) ++rows[y];
  }
  int labels = 0;
  double before = -100;
  for (const auto& [y, glyphs] : rows) {
    if (glyphs < 15) continue;  // an axis's number
    ++labels;
    EXPECT_GE(y - before, 14) << "two labels on top of each other";
    before = y;
  }
  EXPECT_EQ(labels, 7);
}

TEST(Chart, a_style_keeps_its_hue_wherever_the_curve_stands) {
  Chart one = chart_of({1, 2});
  one.series[0].style = 0;
  Chart other = chart_of({1, 2});
  other.series.insert(other.series.begin(), {"first", {1, 2}, {5, 5}, {}, {}, 1});
  other.series[1].style = 0;
  EXPECT_EQ(curves_in(render_svg({one})).size(), 1u);
  EXPECT_EQ(curves_in(render_svg({other})).size(), 1u) << "blue is the second curve's, and no other's";
  other.series[1].style = -1;
  EXPECT_EQ(curves_in(render_svg({other})).size(), 0u);
}

TEST(Chart, a_band_is_an_area_in_scale_below_its_curve) {
  const std::string svg = render_svg({chart_with_band({1, 2, 4}, {2, 4, 5}, {3, 7, 6})});
  const auto bands = bands_in(svg);
  const auto curves = curves_in(svg);
  ASSERT_EQ(bands.size(), 1u);
  ASSERT_EQ(curves.size(), 1u);
  const auto& outline = bands[0];  // the upper edge forwards, the lower edge back
  const auto& curve = curves[0];
  ASSERT_EQ(outline.size(), 6u);
  ASSERT_EQ(curve.size(), 3u);
  const double unit = (curve[0].y - curve[2].y) / 3;
  EXPECT_GT(unit, 20);
  const std::vector<double> above{1, 3, 1}, below{1, 2, 1};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(outline[i].x, curve[i].x, 0.01);
    EXPECT_NEAR(outline[5 - i].x, curve[i].x, 0.01);
    EXPECT_NEAR(curve[i].y - outline[i].y, above[i] * unit, 0.05);
    EXPECT_NEAR(outline[5 - i].y - curve[i].y, below[i] * unit, 0.05);
  }
  EXPECT_LT(svg.find(elements(svg, {"fill:rgb(0%,44.705882%,69.803922%)"}).at(0)),
            svg.find(elements(svg, {"stroke-width:2.2;"}).at(0)))
      << "the band covers the curve";
  EXPECT_TRUE(bands_in(render_svg({chart_of({2, 4, 5})})).empty());
}

TEST(Chart, a_band_counts_for_the_range_of_the_axis) {
  const auto bands = bands_in(render_svg({chart_with_band({-50, -90, -70}, {1, 1, 1}, {60, 50, 80})}));
  ASSERT_EQ(bands.size(), 1u);
  for (const Pixel& point : bands[0]) EXPECT_TRUE(point.y > 60 && point.y < 380) << point.y;
}

TEST(Chart, a_band_has_a_gap_where_a_bound_cannot_be_drawn) {
  const auto bands = bands_in(render_svg({chart_with_band({0, 0, kNan, 0, 0, 0}, {1, 1, 1, 1, 1, 1},  //
                                                          {2, 2, 2, 2, 2, kInfinity})}));
  ASSERT_EQ(bands.size(), 2u);
  EXPECT_EQ(bands[0].size(), 4u);
  EXPECT_EQ(bands[1].size(), 4u);
  const std::string lone = render_svg({chart_with_band({0, kNan}, {1, 1}, {2, 2})});
  EXPECT_TRUE(bands_in(lone).empty());
  EXPECT_EQ(elements(lone, {"stroke-width:6;", "stroke:rgb(0%,44.705882%,69.803922%)"}).size(), 1u);
}

TEST(Chart, a_band_that_reaches_zero_goes_down_to_the_foot_of_a_log_axis) {
  const auto with_low = [](double low) { return chart_with_band({0.5, low, 0.1}, {1, 1, 1}, {10, 9, 10}, true); };
  const std::string svg = render_svg({with_low(0)});
  EXPECT_EQ(svg, render_svg({with_low(-3)}));
  const auto bands = bands_in(svg);
  ASSERT_EQ(bands.size(), 1u);
  ASSERT_EQ(bands[0].size(), 6u);
  // The axis ends at the lowest bound that has a logarithm, 0.1 at the right.
  EXPECT_NEAR(bands[0][4].y, bands[0][3].y, 0.01);
  EXPECT_GT(bands[0][4].y, bands[0][5].y + 20);
  EXPECT_EQ(bands_in(render_svg({with_low(kNan)})).size(), 0u) << "two lone points are bars";
}

TEST(Chart, a_log_x_axis_makes_equal_ratios_equal_widths_and_gaps_of_what_is_not_positive) {
  Chart chart{.title = "", .series = {{"loss", {1, 10, 1000}, {3, 2, 1}}}, .log_x = true};
  const auto curves = curves_in(render_svg({chart}));
  ASSERT_EQ(curves.size(), 1u);
  const auto& points = curves[0];
  ASSERT_EQ(points.size(), 3u);
  EXPECT_GT(points[1].x - points[0].x, 50);
  EXPECT_NEAR(points[2].x - points[1].x, 2 * (points[1].x - points[0].x), 0.01);
  chart.series[0] = {"loss", {1, 2, 0, -4, 5, 6, 7}, {1, 2, 3, 4, 5, 6, 7}};
  const auto parts = curves_in(render_svg({chart}));
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].size(), 2u);
  EXPECT_EQ(parts[1].size(), 3u);
  for (const std::vector<double>& x : std::vector<std::vector<double>>{
           {5}, {5, 5}, {30, 45}, {1e-280, 1e280}, {1, 1 + 1e-12}, {20, 56, 110, 1202}, {-1, 0}}) {
    chart.series[0] = {"loss", x, x};
    const std::string svg = render_svg({chart}, {.width = 400, .height = 240});
    EXPECT_EQ(svg.find("nan"), std::string::npos) << x[0];
    EXPECT_EQ(svg.find("inf"), std::string::npos) << x[0];
    EXPECT_LT(svg.size(), 100'000u) << x[0] << ": too many ticks";
  }
}

TEST(Chart, thirty_five_curves_differ_in_colour_or_dashes_and_neighbours_in_both) {
  const std::string svg = render_svg({chart_of_many(35)}, {.width = 1000, .height = 900});
  const auto curves = elements(svg, {"<path", "fill:none", "stroke-width:2.2;"});
  ASSERT_EQ(curves.size(), 35u);
  std::set<std::string> looks;
  for (size_t i = 0; i < curves.size(); ++i) {
    const std::string dashes = style_of(curves[i], "stroke-dasharray");
    const std::string color = style_of(curves[i], "stroke");
    looks.insert(color + " " + dashes);
    if (i == 0) continue;
    EXPECT_NE(dashes, style_of(curves[i - 1], "stroke-dasharray")) << i;
    EXPECT_NE(color, style_of(curves[i - 1], "stroke")) << i;
  }
  EXPECT_EQ(looks.size(), 35u);
  EXPECT_EQ(style_of(curves[0], "stroke-dasharray"), "");
  // Beside each name a sample of its line; a single curve needs none.
  const auto samples = elements(svg, {"<path", "fill:none", "stroke-width:2;"});
  ASSERT_EQ(samples.size(), 35u);
  for (size_t i = 0; i < samples.size(); ++i) {
    EXPECT_EQ(style_of(samples[i], "stroke-dasharray"), style_of(curves[i], "stroke-dasharray")) << i;
    EXPECT_EQ(style_of(samples[i], "stroke"), style_of(curves[i], "stroke")) << i;
  }
  EXPECT_TRUE(elements(render_svg({chart_of_many(1)}), {"stroke-width:2;"}).empty());
}

TEST(Chart, every_text_can_be_read_on_a_light_and_on_a_dark_page) {
  struct Ground {
    Theme theme;
    const char* color;
    double luminance;
  };
  // WCAG 2.1: relative luminance of #ffffff and #14171c, which is 20, 23, 28.
  for (const Ground& ground : {Ground{Theme::light, "rgb(100%,100%,100%)", 1.0},
                               Ground{Theme::dark, "rgb(7.843137%,9.019608%,10.980392%)", 0.00847}}) {
    const std::string svg = render_svg({chart_of_many(7)}, {}, ground.theme);
    EXPECT_EQ(elements(svg, {std::string("fill:") + ground.color, "fill-opacity:1;"}).size(), 1u);
    const auto texts = elements(svg, {"<g style=\"fill:rgb("});
    EXPECT_GT(texts.size(), 20u);
    std::set<std::string> colors;
    for (const std::string& text : texts) {
      colors.insert(style_of(text, "fill"));
      std::istringstream percent(text.substr(text.find("rgb(") + 4));
      double luminance = 0;
      for (const double weight : {0.2126, 0.7152, 0.0722}) {
        double value = 0;
        percent >> value;
        percent.ignore(2);  // the sign and the comma
        value /= 100;
        luminance += weight * (value <= 0.04045 ? value / 12.92 : std::pow((value + 0.055) / 1.055, 2.4));
      }
      const double contrast =
          (std::max(luminance, ground.luminance) + 0.05) / (std::min(luminance, ground.luminance) + 0.05);
      EXPECT_GE(contrast, 4.45) << text;
    }
    EXPECT_GE(colors.size(), 8u) << "names in the curves' hues, values, ticks";
  }
  EXPECT_EQ(render_png({chart_of_many(2)}, {}, Theme::dark), render_png({chart_of_many(2)}, {}, Theme::dark));
  EXPECT_NE(render_png({chart_of_many(2)}, {}, Theme::dark), render_png({chart_of_many(2)}));
}

TEST(Chart, panels_beyond_the_columns_stand_in_a_further_row) {
  const auto curves =
      curves_in(render_svg({chart_of({1, 2}), chart_of({1, 2}), chart_of({1, 2})}, {.height = 600, .columns = 2}));
  ASSERT_EQ(curves.size(), 3u);
  EXPECT_NEAR(curves[0][0].y, curves[1][0].y, 0.01);
  EXPECT_GT(curves[1][0].x, curves[0][1].x);
  EXPECT_NEAR(curves[0][0].x, curves[2][0].x, 0.01);
  EXPECT_GT(curves[2][1].y, curves[0][0].y + 50);
  for (const Pixel& point : curves[2]) EXPECT_LT(point.y, 570);
}

TEST(Chart, x_and_y_of_different_lengths_and_absurd_sizes_are_our_own_bug) {
  Chart chart = chart_of({1, 2});
  chart.series[0].x.push_back(3);
  EXPECT_THROW(render_svg({chart}), InternalError);
  EXPECT_THROW(render_svg({chart_with_band({0, 0}, {1, 2, 3}, {4, 4, 4})}), InternalError);
  EXPECT_THROW(render_svg({chart_with_band({0, 0, 0}, {1, 2, 3}, {})}), InternalError);
  EXPECT_THROW(render_svg({chart_with_band({}, {1, 2, 3}, {4, 4, 4})}), InternalError);
  EXPECT_THROW(render_png({chart_of({1})}, {.width = 100'000}), InternalError);
}

}  // namespace
}  // namespace resnet
