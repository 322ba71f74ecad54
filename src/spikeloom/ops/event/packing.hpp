// From a linear layer's weight [d_out, d_in] to input-major rows in float, bfloat16 or int8.
//
// The result is that of `packing.py`, to the bit. A strip of outputs is read once as long lines,
// turned around inside the first-level cache, and written as short pieces of rows: a model of 125 M
// weights loads about as fast as its file can be read.
#pragma once

#include "matvec.hpp"

#include <cmath>
#include <vector>

namespace spikeloom {

constexpr int64_t SIDE = 64;  // outputs of a strip
constexpr int64_t DEEP = 32;  // inputs turned at a time: 8 KB

inline void narrow(const float* values, float, int64_t n, float* row) {
    std::copy(values, values + n, row);
}

// To the nearest, half to even; NaN stays NaN.
inline void narrow(const float* values, float, int64_t n, bf16* row) {
    for (int64_t j = 0; j < n; ++j) {
        uint32_t bits;
        std::memcpy(&bits, values + j, sizeof bits);
        const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        row[j].bits = uint16_t(values[j] == values[j] ? rounded : 0x7fc0);
    }
}

inline void narrow(const float* values, float quantum, int64_t n, int8_t* row) {
    for (int64_t j = 0; j < n; ++j) row[j] = int8_t(int32_t(std::rint(values[j] / quantum)));
}

template <class W>
void turn_around(const float* weight, int64_t d_out, int64_t d_in, const float* quanta,
                 int64_t stride, W* data) {
    alignas(64) float turned[DEEP][SIDE];
    for (int64_t out = 0; out < d_out; out += SIDE) {
        const int64_t n = std::min(SIDE, d_out - out);
        for (int64_t in = 0; in < d_in; in += DEEP) {
            const int64_t deep = std::min(DEEP, d_in - in);
            for (int64_t j = 0; j < n; ++j)
                for (int64_t i = 0; i < deep; ++i) turned[i][j] = weight[(out + j) * d_in + in + i];
            for (int64_t i = 0; i < deep; ++i) {
                const float quantum = quanta ? quanta[in + i] : 1.0f;
                narrow(turned[i], quantum, n, data + (in + i) * stride + out);
            }
        }
    }
}

// Largest size of a weight per input, as the step of 127 levels.
inline void find_quanta(const float* weight, int64_t d_out, int64_t d_in, float* quanta) {
    std::fill(quanta, quanta + d_in, 0.0f);
    for (int64_t j = 0; j < d_out; ++j) {
        const float* line = weight + j * d_in;
        for (int64_t i = 0; i < d_in; ++i) quanta[i] = std::max(quanta[i], std::fabs(line[i]));
    }
    for (int64_t i = 0; i < d_in; ++i) quanta[i] = std::max(quanta[i], 1e-30f) / 127.0f;
}

}  // namespace spikeloom
