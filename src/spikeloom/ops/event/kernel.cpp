// The event-driven product as a plain C function for ctypes (`native.py`).
#include "matvec.hpp"

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

}  // extern "C"
