// Event-driven matrix-vector product: y += sum over fired channels i of c[i] * W[i, :].
//
// W is input-major, [d_in, d_out] with `stride` elements between rows: what one channel adds to all
// outputs lies in one piece, so a silent channel costs nothing, not even memory traffic, which is
// what bounds a product of one token. c[i] = payload[i] * scale[i] is computed once per fired
// channel; the scale carries the neuron's step theta, and for int8 the row's quantisation step.
//
// Vectors are GCC/Clang vector extensions: 16 floats are one AVX-512 register, two AVX2 registers or
// four NEON registers, nearly without code per machine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace spikeloom {

constexpr int64_t LANES = 16;
typedef float f32v __attribute__((vector_size(64)));
typedef int32_t i32v __attribute__((vector_size(64)));
typedef uint32_t u32v __attribute__((vector_size(64)));

struct bf16 {
    uint16_t bits;
};

enum DType : int64_t { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

// One weight matrix as Python hands it over (`weights.InputMajor`).
struct Weights {
    const void* data;
    const float* scale;  // [d_in], multiplies payloads
    int64_t d_in, d_out, stride, dtype;
};

// The channels that fired: their numbers and coefficients payload * scale.
struct Events {
    int32_t* index;
    float* coefficient;
    int64_t count;
};

inline f32v load(const float* p) {
    f32v v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline f32v load(const bf16* p) {
    // The 16 bits are the upper half of a float.
    typedef uint16_t u16v __attribute__((vector_size(32)));
    u16v raw;
    std::memcpy(&raw, p, sizeof raw);
#ifdef __AVX512F__  // GCC 12 widens in many steps where one instruction does
    return (f32v)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)raw), 16);
#else
    return (f32v)(__builtin_convertvector(raw, u32v) << 16);
#endif
}

inline f32v load(const int8_t* p) {
    typedef int8_t i8v __attribute__((vector_size(16)));
    i8v raw;
    std::memcpy(&raw, p, sizeof raw);
#ifdef __AVX512F__
    return (f32v)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)raw));
#else
    return __builtin_convertvector(__builtin_convertvector(raw, i32v), f32v);
#endif
}

inline void store(float* p, f32v v) { std::memcpy(p, &v, sizeof v); }

inline float widen(float w) { return w; }
inline float widen(int8_t w) { return w; }
inline float widen(bf16 w) {
    const uint32_t bits = uint32_t(w.bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Adds R weighted rows to `out` in one pass, so that an output is read and written once per R rows.
template <int R, class W>
inline void add_rows(const W* const* rows, const float* c, float* out, int64_t n) {
    f32v coefficient[R];
    for (int r = 0; r < R; ++r) coefficient[r] = f32v{} + c[r];
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        f32v sum = load(out + j);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum += coefficient[r] * load(rows[r] + j);
        store(out + j, sum);
    }
    for (; j < n; ++j)
        for (int r = 0; r < R; ++r) out[j] += c[r] * widen(rows[r][j]);
}

// The last, incomplete pass: one row at a time would wait for memory once per row.
template <class W>
inline void add_rest(const W* const* rows, const float* c, int64_t count, float* out, int64_t n) {
    switch (count) {
        case 1: return add_rows<1>(rows, c, out, n);
        case 2: return add_rows<2>(rows, c, out, n);
        case 3: return add_rows<3>(rows, c, out, n);
        case 4: return add_rows<4>(rows, c, out, n);
        case 5: return add_rows<5>(rows, c, out, n);
        case 6: return add_rows<6>(rows, c, out, n);
        case 7: return add_rows<7>(rows, c, out, n);
    }
}

constexpr int64_t ROWS = 8;     // rows per pass
constexpr int64_t TILE = 2048;  // outputs per pass: 8 KB, which stay in the first-level cache
constexpr int64_t LINE = 64;    // bytes
constexpr int64_t AHEAD = 16;   // lines of each next row: 8 KB for a whole pass

// The hardware follows a row once it is being read, but cannot guess where the next rows start.
template <class W>
inline void prefetch(const W* row, int64_t n) {
    const int64_t bytes = std::min<int64_t>(n * int64_t(sizeof(W)), AHEAD * LINE);
    const char* p = reinterpret_cast<const char*>(row);
    for (int64_t b = 0; b < bytes; b += LINE) __builtin_prefetch(p + b);
}

template <class W>
inline void accumulate(const Weights& w, const Events& e, float* y) {
    const W* data = static_cast<const W*>(w.data);
    for (int64_t start = 0; start < w.d_out; start += TILE) {
        const int64_t n = std::min(TILE, w.d_out - start);
        const W* tile = data + start;
        const W* rows[ROWS];
        for (int64_t i = 0; i < e.count; i += ROWS) {
            const int64_t here = std::min(ROWS, e.count - i), ahead = std::min(e.count, i + 2 * ROWS);
            for (int64_t r = 0; r < here; ++r) rows[r] = tile + e.index[i + r] * w.stride;
            for (int64_t a = i + ROWS; a < ahead; ++a) prefetch(tile + e.index[a] * w.stride, n);
            if (here == ROWS)
                add_rows<ROWS>(rows, e.coefficient + i, y + start, n);
            else
                add_rest(rows, e.coefficient + i, here, y + start, n);
        }
    }
}

// y[0 : d_out] += sum of the fired rows. One thread: the product is bound by memory traffic.
inline void add_events(const Weights& w, const Events& e, float* y) {
    switch (w.dtype) {
        case FLOAT32: return accumulate<float>(w, e, y);
        case BFLOAT16: return accumulate<bf16>(w, e, y);
        case INT8: return accumulate<int8_t>(w, e, y);
    }
}

// The same from 0.
inline void event_matvec(const Weights& w, const Events& e, float* y) {
    std::memset(y, 0, sizeof(float) * w.d_out);
    add_events(w, e, y);
}

// y[0 : n] = sum of all rows, the next row `stride` behind the last.
inline void add_all(const float* rows, int64_t stride, const float* c, int64_t count, float* y,
                    int64_t n) {
    std::memset(y, 0, sizeof(float) * n);
    const float* pass[ROWS];
    for (int64_t i = 0; i < count; i += ROWS) {
        const int64_t here = std::min(ROWS, count - i);
        for (int64_t r = 0; r < here; ++r) pass[r] = rows + (i + r) * stride;
        if (here == ROWS)
            add_rows<ROWS>(pass, c + i, y, n);
        else
            add_rest(pass, c + i, here, y, n);
    }
}

// Lists the non-zero payloads without a branch (spikes are unpredictable).
inline void gather(const float* payload, const float* scale, int64_t d_in, Events& e) {
    int64_t n = 0, i = 0;
#ifdef __AVX512F__
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; i + LANES <= d_in; i += LANES) {
        const __m512 p = _mm512_loadu_ps(payload + i);
        const __mmask16 fires = _mm512_cmp_ps_mask(p, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        const __m512 c = _mm512_mul_ps(p, _mm512_loadu_ps(scale + i));
        const __m512i index = _mm512_add_epi32(lane, _mm512_set1_epi32(int32_t(i)));
        // Whole vectors are stored, since n <= i: what is too much is overwritten by the next.
        _mm512_storeu_ps(e.coefficient + n, _mm512_maskz_compress_ps(fires, c));
        _mm512_storeu_si512(e.index + n, _mm512_maskz_compress_epi32(fires, index));
        n += __builtin_popcount(fires);
    }
#endif
    for (; i < d_in; ++i) {
        e.index[n] = int32_t(i);
        e.coefficient[n] = payload[i] * scale[i];
        n += payload[i] != 0.0f;
    }
    e.count = n;
}

// Lists every channel: a dense product.
inline void take_all(const float* payload, const float* scale, int64_t d_in, Events& e) {
    for (int64_t i = 0; i < d_in; ++i) {
        e.index[i] = int32_t(i);
        e.coefficient[i] = payload[i] * scale[i];
    }
    e.count = d_in;
}

}  // namespace spikeloom
