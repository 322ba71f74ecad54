// Dense arithmetic on short vectors, beside the event-driven product: norms, dot products, exp.
#pragma once

#include "matvec.hpp"

#include <cmath>

namespace spikeloom {

inline float sum(f32v v) {
    float total = 0;
    for (int i = 0; i < LANES; ++i) total += v[i];
    return total;
}

inline float sum_of_squares(const float* x, int64_t n) {
    f32v acc{};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32v v = load(x + i);
        acc += v * v;
    }
    float total = sum(acc);
    for (; i < n; ++i) total += x[i] * x[i];
    return total;
}

inline void rms_norm(const float* x, const float* weight, int64_t n, double eps, float* y) {
    const float scale = 1.0f / std::sqrt(sum_of_squares(x, n) / float(n) + float(eps));
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale * weight[i];
}

// R dot products at once: x is read once, and no sum waits for another.
template <int R, class W>
inline void dot_rows(const W* rows, int64_t stride, const float* x, int64_t n, float* y) {
    f32v acc[R] = {};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32v v = load(x + i);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r] += v * load(rows + r * stride + i);
    }
    for (int r = 0; r < R; ++r) y[r] = sum(acc[r]);
    for (; i < n; ++i)
        for (int r = 0; r < R; ++r) y[r] += x[i] * widen(rows[r * stride + i]);
}

template <class W>
inline void dot_all(const Weights& w, const float* x, float* y) {
    const W* rows = static_cast<const W*>(w.data);
    int64_t r = 0;
    for (; r + ROWS <= w.d_in; r += ROWS)
        dot_rows<ROWS>(rows + r * w.stride, w.stride, x, w.d_out, y + r);
    for (; r < w.d_in; ++r) dot_rows<1>(rows + r * w.stride, w.stride, x, w.d_out, y + r);
    for (r = 0; r < w.d_in; ++r) y[r] *= w.scale[r];
}

// y[0 : d_in] = every row times x [d_out]: the product the other way.
inline void dots(const Weights& w, const float* x, float* y) {
    switch (w.dtype) {
        case FLOAT32: return dot_all<float>(w, x, y);
        case BFLOAT16: return dot_all<bf16>(w, x, y);
        case INT8: return dot_all<int8_t>(w, x, y);
    }
}

// exp of 16 floats to about 2 units in the last place: 2^n * polynomial (Cephes expf).
inline f32v exp16(f32v x) {
    x = x > 88.0f ? f32v{} + 88.0f : x;
    x = x < -87.0f ? f32v{} - 87.0f : x;
    const float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const f32v n = (x * 1.44269504f + to_integer) - to_integer;
    const f32v r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    f32v p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const i32v bits = (__builtin_convertvector(n, i32v) + 127) << 23;
    return p * (f32v)bits;
}

}  // namespace spikeloom
