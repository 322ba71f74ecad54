// The event-driven product, and the packing of its weights, as plain C functions for ctypes
// (`native.py`).
#include "matvec.hpp"
#include "packing.hpp"

#include <vector>

extern "C" {

// y [d_out] = sum_i payload[i] * scale[i] * W[i, :], reading only rows with payload[i] != 0.
void spikeloom_event_matvec(const spikeloom::Weights* weights, const float* payload, float* y) {
    std::vector<int32_t> index(weights->d_in);
    std::vector<float> coefficient(weights->d_in);
    spikeloom::Events events{index.data(), coefficient.data(), 0};
    spikeloom::gather(payload, weights->scale, weights->d_in, events);
    spikeloom::event_matvec(*weights, events, y);
}

// Fills `packed.data` from `weight` [d_out, d_in], and for int8 `quanta` [d_in].
void spikeloom_pack(const spikeloom::Weights* packed, const float* weight, float* quanta) {
    const auto& p = *packed;
    void* data = const_cast<void*>(p.data);
    switch (p.dtype) {
        case spikeloom::FLOAT32:
            return spikeloom::turn_around(weight, p.d_out, p.d_in, nullptr, p.stride,
                                          static_cast<float*>(data));
        case spikeloom::BFLOAT16:
            return spikeloom::turn_around(weight, p.d_out, p.d_in, nullptr, p.stride,
                                          static_cast<spikeloom::bf16*>(data));
        case spikeloom::INT8:
            spikeloom::find_quanta(weight, p.d_out, p.d_in, quanta);
            return spikeloom::turn_around(weight, p.d_out, p.d_in, quanta, p.stride,
                                          static_cast<int8_t*>(data));
    }
}

}  // extern "C"
