#pragma once
// One-dimensional Winograd transforms F(M, 3) for M = 2, 3, 4 (Cook-Toom; Lavin & Gray 2015). With
// finite points p_i, N_i = prod_{j != i} (p_i - p_j) and the point at infinity last:
//   B^T: row i holds the coefficients of prod_{j != i} (x - p_j), the last row of prod_j (x - p_j);
//   G:   row i is (1, p_i, p_i^2) / N_i, the last row (0, 0, 1);
//   A^T: column i is (1, p_i, ..., p_i^(M-1)), the last column (0, ..., 0, 1).
// Points come in pairs +-p, so that both rows of a pair share their even and odd halves. All the
// constants of B^T and A^T are exact in f32. The points were chosen by measured error:
//   M = 2: 0, +-1;   M = 3: +-1/2, +-5/4 (half the error of 0, +-1, 2);   M = 4: 0, +-5/8, +-3/2.
//
// Stride 2: y[i] = g[0] d[2i] + g[1] d[2i+1] + g[2] d[2i+2]. The taps at even places are a convolution of stride 1 with
// the two weights g[0], g[2]: F(M, 2), of M + 1 points. Those at odd places are one weight alone, for which nothing
// can be saved: the M inputs are points of their own, that all meet g[1] and are added to the output. In two dimensions
// that is (2M+1)^2 products for M x M outputs, of (3M)^2: 1.44 (M = 2), 1.65 (M = 3) or 1.78 (M = 4) times fewer.
// The points of F(M, 2) are those of F(M-1, 3), which has as many: 0, 1; 0, +-1; +-1/2, +-5/4; and infinity.
//
// V is a vector of floats; every function maps registers to registers. In input(), output() and weight() products are
// fused with their sum by name, of two the larger: half precision has them beside the processor's arithmetic and beside
// its emulation, and both have to give the same bits.

#include "backends/cpu/simd/vec.h"

namespace resnet::simd::RESNET_ISA {

template <int M, int kStride>
struct WinogradTransform;

template <>
struct WinogradTransform<2, 1> {
  /// B^T d: 4 inputs to 4 points.
  template <class V>
  static RESNET_INLINE void input(const V (&d)[4], V (&o)[4]) {
    o[0] = d[2] - d[0];
    o[1] = d[2] + d[1];
    o[2] = d[2] - d[1];
    o[3] = d[3] - d[1];
  }
  /// A^T m: 4 points to 2 outputs.
  template <class V>
  static RESNET_INLINE void output(const V (&m)[4], V (&y)[2]) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = (m[1] - m[2]) + m[3];
  }
  /// A y: the adjoint of output().
  template <class V>
  static RESNET_INLINE void output_gradient(const V (&y)[2], V (&o)[4]) {
    o[0] = y[0];
    o[1] = y[0] + y[1];
    o[2] = y[0] - y[1];
    o[3] = y[1];
  }
  /// G g: 3 weights to 4 points.
  template <class V>
  static RESNET_INLINE void weight(const V (&g)[3], V (&o)[4]) {
    const V even = (g[0] + g[2]) * 0.5f, odd = g[1] * 0.5f;
    o[0] = -g[0];
    o[1] = even + odd;
    o[2] = even - odd;
    o[3] = g[2];
  }
  /// G^T u: the adjoint of weight().
  template <class V>
  static RESNET_INLINE void weight_gradient(const V (&u)[4], V (&g)[3]) {
    const V even = (u[1] + u[2]) * 0.5f, odd = (u[1] - u[2]) * 0.5f;
    g[0] = even - u[0];
    g[1] = odd;
    g[2] = even + u[3];
  }
};

template <>
struct WinogradTransform<3, 1> {
  static constexpr float a = 0.5f, b = 1.25f, aa = a * a, bb = b * b;
  static constexpr float sum = aa + bb, product = aa * bb;
  static constexpr float na = 1 / (2 * a * (aa - bb)), nb = 1 / (2 * b * (bb - aa));  // 1/N at +p; at -p its negative

  template <class V>
  static RESNET_INLINE void input(const V (&d)[5], V (&o)[5]) {
    const V a_odd = fnmadd(bb, d[1], d[3]), a_even = fnmadd(bb, d[0], d[2]);
    const V b_odd = fnmadd(aa, d[1], d[3]), b_even = fnmadd(aa, d[0], d[2]);
    o[0] = fmadd(a, a_even, a_odd);
    o[1] = fnmadd(a, a_even, a_odd);
    o[2] = fmadd(b, b_even, b_odd);
    o[3] = fnmadd(b, b_even, b_odd);
    o[4] = fmadd(product, d[0], fnmadd(sum, d[2], d[4]));
  }
  template <class V>
  static RESNET_INLINE void output(const V (&m)[5], V (&y)[3]) {
    const V a_sum = m[0] + m[1], a_difference = m[0] - m[1];
    const V b_sum = m[2] + m[3], b_difference = m[2] - m[3];
    y[0] = a_sum + b_sum;
    y[1] = fmadd(b, b_difference, a * a_difference);
    y[2] = fmadd(bb, b_sum, fmadd(aa, a_sum, m[4]));
  }
  template <class V>
  static RESNET_INLINE void output_gradient(const V (&y)[3], V (&o)[5]) {
    const V a_even = fmadd(aa, y[2], y[0]), b_even = fmadd(bb, y[2], y[0]);
    o[0] = fmadd(a, y[1], a_even);
    o[1] = fnmadd(a, y[1], a_even);
    o[2] = fmadd(b, y[1], b_even);
    o[3] = fnmadd(b, y[1], b_even);
    o[4] = y[2];
  }
  template <class V>
  static RESNET_INLINE void weight(const V (&g)[3], V (&o)[5]) {
    const V a_odd = g[1] * (a * na), a_even = fmadd(aa, g[2], g[0]);
    const V b_odd = g[1] * (b * nb), b_even = fmadd(bb, g[2], g[0]);
    o[0] = fmadd(na, a_even, a_odd);
    o[1] = fnmadd(na, a_even, a_odd);
    o[2] = fmadd(nb, b_even, b_odd);
    o[3] = fnmadd(nb, b_even, b_odd);
    o[4] = g[2];
  }
  template <class V>
  static RESNET_INLINE void weight_gradient(const V (&u)[5], V (&g)[3]) {
    const V a_even = (u[0] - u[1]) * na, a_odd = (u[0] + u[1]) * (a * na);
    const V b_even = (u[2] - u[3]) * nb, b_odd = (u[2] + u[3]) * (b * nb);
    g[0] = a_even + b_even;
    g[1] = a_odd + b_odd;
    g[2] = fmadd(bb, b_even, fmadd(aa, a_even, u[4]));
  }
};

template <>
struct WinogradTransform<4, 1> {
  static constexpr float a = 0.625f, b = 1.5f, aa = a * a, bb = b * b;
  static constexpr float sum = aa + bb, product = aa * bb;
  static constexpr float n0 = 1 / product, na = 1 / (2 * aa * (aa - bb)), nb = 1 / (2 * bb * (bb - aa));

  template <class V>
  static RESNET_INLINE void input(const V (&d)[6], V (&o)[6]) {
    const V a_even = fnmadd(bb, d[2], d[4]), a_odd = fnmadd(bb, d[1], d[3]);
    const V b_even = fnmadd(aa, d[2], d[4]), b_odd = fnmadd(aa, d[1], d[3]);
    o[0] = fmadd(product, d[0], fnmadd(sum, d[2], d[4]));
    o[1] = fmadd(a, a_odd, a_even);
    o[2] = fnmadd(a, a_odd, a_even);
    o[3] = fmadd(b, b_odd, b_even);
    o[4] = fnmadd(b, b_odd, b_even);
    o[5] = fmadd(product, d[1], fnmadd(sum, d[3], d[5]));
  }
  template <class V>
  static RESNET_INLINE void output(const V (&m)[6], V (&y)[4]) {
    const V a_sum = m[1] + m[2], a_difference = m[1] - m[2];
    const V b_sum = m[3] + m[4], b_difference = m[3] - m[4];
    y[0] = m[0] + (a_sum + b_sum);
    y[1] = fmadd(b, b_difference, a * a_difference);
    y[2] = fmadd(bb, b_sum, aa * a_sum);
    y[3] = fmadd(bb * b, b_difference, fmadd(aa * a, a_difference, m[5]));
  }
  template <class V>
  static RESNET_INLINE void output_gradient(const V (&y)[4], V (&o)[6]) {
    const V a_even = fmadd(aa, y[2], y[0]), a_odd = fmadd(aa, y[3], y[1]);
    const V b_even = fmadd(bb, y[2], y[0]), b_odd = fmadd(bb, y[3], y[1]);
    o[0] = y[0];
    o[1] = fmadd(a, a_odd, a_even);
    o[2] = fnmadd(a, a_odd, a_even);
    o[3] = fmadd(b, b_odd, b_even);
    o[4] = fnmadd(b, b_odd, b_even);
    o[5] = y[3];
  }
  template <class V>
  static RESNET_INLINE void weight(const V (&g)[3], V (&o)[6]) {
    const V a_even = fmadd(aa, g[2], g[0]) * na, b_even = fmadd(bb, g[2], g[0]) * nb;
    o[0] = g[0] * n0;
    o[1] = fmadd(a * na, g[1], a_even);
    o[2] = fnmadd(a * na, g[1], a_even);
    o[3] = fmadd(b * nb, g[1], b_even);
    o[4] = fnmadd(b * nb, g[1], b_even);
    o[5] = g[2];
  }
  template <class V>
  static RESNET_INLINE void weight_gradient(const V (&u)[6], V (&g)[3]) {
    const V a_even = (u[1] + u[2]) * na, a_odd = (u[1] - u[2]) * (a * na);
    const V b_even = (u[3] + u[4]) * nb, b_odd = (u[3] - u[4]) * (b * nb);
    g[0] = fmadd(n0, u[0], a_even) + b_even;
    g[1] = a_odd + b_odd;
    g[2] = fmadd(bb, b_even, fmadd(aa, a_even, u[5]));
  }
};

/// F(M, 2) of the stride-2 transforms: M + 1 inputs, two weights.
template <int M>
struct WinogradTwoTaps;

template <>
struct WinogradTwoTaps<2> {
  template <class V>
  static RESNET_INLINE void input(const V (&d)[3], V (&o)[3]) {
    o[0] = d[1] - d[0];
    o[1] = d[1];
    o[2] = d[2] - d[1];
  }
  template <class V>
  static RESNET_INLINE void weight(const V& g0, const V& g1, V (&o)[4]) {
    o[0] = -g0;
    o[1] = g0 + g1;
    o[2] = g1;
  }
  template <class V>
  static RESNET_INLINE void output(const V (&m)[5], V (&y)[2]) {
    y[0] = m[0] + m[1];
    y[1] = m[1] + m[2];
  }
};

template <>
struct WinogradTwoTaps<3> {
  template <class V>
  static RESNET_INLINE void input(const V (&d)[4], V (&o)[4]) {
    WinogradTransform<2, 1>::input(d, o);
  }
  template <class V>
  static RESNET_INLINE void weight(const V& g0, const V& g1, V (&o)[5]) {
    o[0] = -g0;
    o[1] = (g0 + g1) * 0.5f;
    o[2] = (g0 - g1) * 0.5f;
    o[3] = g1;
  }
  template <class V>
  static RESNET_INLINE void output(const V (&m)[7], V (&y)[3]) {
    const V sum = m[1] + m[2];
    y[0] = m[0] + sum;
    y[1] = m[1] - m[2];
    y[2] = sum + m[3];
  }
};

template <>
struct WinogradTwoTaps<4> {
  using Points = WinogradTransform<3, 1>;
  static constexpr float a = Points::a, b = Points::b, aa = Points::aa, bb = Points::bb;
  static constexpr float na = Points::na, nb = Points::nb;
  template <class V>
  static RESNET_INLINE void input(const V (&d)[5], V (&o)[5]) {
    Points::input(d, o);
  }
  template <class V>
  static RESNET_INLINE void weight(const V& g0, const V& g1, V (&o)[6]) {
    const V a_odd = g1 * (a * na), b_odd = g1 * (b * nb);
    o[0] = fmadd(na, g0, a_odd);
    o[1] = fnmadd(na, g0, a_odd);
    o[2] = fmadd(nb, g0, b_odd);
    o[3] = fnmadd(nb, g0, b_odd);
    o[4] = g1;
  }
  template <class V>
  static RESNET_INLINE void output(const V (&m)[9], V (&y)[4]) {
    const V a_sum = m[0] + m[1], a_difference = m[0] - m[1];
    const V b_sum = m[2] + m[3], b_difference = m[2] - m[3];
    y[0] = a_sum + b_sum;
    y[1] = fmadd(b, b_difference, a * a_difference);
    y[2] = fmadd(bb, b_sum, aa * a_sum);
    y[3] = fmadd(bb * b, b_difference, fmadd(aa * a, a_difference, m[4]));
  }
};

template <int M>
struct WinogradTransform<M, 2> {
  /// 2M + 1 inputs to as many points: those of F(M, 2), then the inputs at odd places.
  template <class V>
  static RESNET_INLINE void input(const V (&d)[2 * M + 1], V (&o)[2 * M + 1]) {
    V even[M + 1], points[M + 1];
    RESNET_UNROLL
    for (int i = 0; i <= M; ++i) even[i] = d[2 * i];
    WinogradTwoTaps<M>::input(even, points);
    RESNET_UNROLL
    for (int i = 0; i <= M; ++i) o[i] = points[i];
    RESNET_UNROLL
    for (int i = 0; i < M; ++i) o[M + 1 + i] = d[2 * i + 1];
  }
  /// 2M + 1 points to M outputs.
  template <class V>
  static RESNET_INLINE void output(const V (&m)[2 * M + 1], V (&y)[M]) {
    WinogradTwoTaps<M>::output(m, y);
    RESNET_UNROLL
    for (int i = 0; i < M; ++i) y[i] += m[M + 1 + i];
  }
  /// 3 weights to M + 2 points: the last is that of all inputs at odd places.
  template <class V>
  static RESNET_INLINE void weight(const V (&g)[3], V (&o)[M + 2]) {
    WinogradTwoTaps<M>::weight(g[0], g[2], o);
    o[M + 1] = g[1];
  }
};

}  // namespace resnet::simd::RESNET_ISA
