#include "base/tensor.h"

#include <gtest/gtest.h>

namespace resnet {
namespace {

TEST(Tensor, IsZeroAndCopiesDeep) {
  for (const int64_t elements : {0, 1, 7, 1 << 20}) {
    Tensor a(DType::f32, Shape{elements});
    EXPECT_EQ(a.size_bytes(), static_cast<size_t>(elements) * 4);
    for (const float v : a.as<float>()) ASSERT_EQ(v, 0);
    for (float& v : a.as<float>()) v = 3;
    Tensor b = a;
    EXPECT_EQ(a, b);
    if (elements == 0) continue;
    b.as<float>().back() = 4;
    EXPECT_EQ(a.as<float>().back(), 3);
    EXPECT_NE(a, b);
    a = b;
    EXPECT_EQ(a, b);
    a = *&a;  // to itself
    EXPECT_EQ(a, b);
  }
}

TEST(Tensor, EqualMeansTypeAndBits) {
  const Tensor row(DType::f32, Shape{1, 4}), column(DType::f32, Shape{4, 1}), integers(DType::i32, Shape{1, 4});
  EXPECT_NE(row, column);
  EXPECT_NE(row, integers);
  Tensor negative(DType::f32, Shape{1, 4});
  negative.as<float>()[0] = -0.0f;
  EXPECT_NE(row, negative) << "another zero";
  EXPECT_EQ(Tensor(), Tensor());
  EXPECT_NE(Tensor(), Tensor(DType::f32, Shape{}));
}

TEST(Tensor, MovedFromItHasNoBytes) {
  Tensor a(DType::f64, Shape{3});
  a.as<double>()[2] = 5;
  Tensor b = std::move(a);
  EXPECT_EQ(b.as<double>()[2], 5);
  EXPECT_EQ(a.size_bytes(), 0u);  // NOLINT: what a moved-from one is, is what is tested
  a = std::move(b);
  EXPECT_EQ(a.as<double>()[2], 5);
  EXPECT_EQ(b.size_bytes(), 0u);  // NOLINT
}

}  // namespace
}  // namespace resnet
