// One token through a decoder, in one thread: `torch_step.py` is the specification.
//
// The structs mirror those of `native_step.py`: every field is 8 bytes wide, so there is no padding
// to disagree about. All pointers belong to Python.
#include "vectors.hpp"

#include <cmath>
#include <vector>

using spikeloom::Events;
using spikeloom::LANES;
using spikeloom::Weights;
using spikeloom::exp16;
using spikeloom::f32v;
using spikeloom::rms_norm;
using spikeloom::sum;

namespace {

enum NeuronKind : int64_t { WIRE = 0, GRADED = 1, LIF = 2 };
enum MixerKind : int64_t { ATTENTION = 0, SDSA = 1 };
enum MLPKind : int64_t { NO_MLP = 0, SPIKING = 1, RELU2 = 2, SWIGLU = 3 };

// The gain of a neuron (`neurons/gain.py`): V and U transposed, [rank, size].
struct Gain {
    Weights narrow, widen;
    const float* bias;  // c; null where there is no gain
};

struct Neuron {
    int64_t kind, size, index, is_signed, hard_reset;
    int64_t membrane;  // where its membrane starts in State::membranes
    double levels, fire_level, v_threshold, v_reset, clip;  // clip: infinity where there is none
    const float *bias, *theta, *beta;                       // beta: null without memory
    Gain gain;
};

struct Layer {
    int64_t mixer, mlp;
    int64_t window;  // 0: all tokens
    int64_t gated;   // sdsa: the decay depends on the token
    // Null where the config leaves them out.
    const float *norm, *q_norm, *k_norm, *raw_decay, *wavelengths, *output_norm, *mlp_norm;
    Neuron input, output, mlp_input, mlp_hidden;
    Weights qkv, o, up, down;
};

struct Model {
    int64_t D, H, KV, K, F, V, T, num_layers;  // KV heads of keys and values, F hidden, T steps
    int64_t R;                                 // the largest rank of a gain
    double eps;
    const float *embedding, *norm;
    const Layer* layers;
    Neuron head_neuron;
    Weights head;
};

struct Memory {
    float *state, *keys, *values;  // [T,H,K,K]; [T,KV,K,capacity]; [T,KV,capacity,K]
    int64_t capacity;
};

struct State {
    int64_t position;
    float* membranes;
    int64_t num_membranes;
    int64_t* counters;  // [neurons, 2]: rows read, rows there were
    const Memory* memories;
};

// Buffers of one thread; they only grow.
struct Scratch {
    std::vector<float> x, normed, payload, mean, fed, mixed, hidden, out, scores, turn, coefficient;
    std::vector<float> scaled, context;
    std::vector<int32_t> index;

    void fit(const Model& m, int64_t longest) {
        const int64_t widest = std::max({m.D, m.F, m.R});
        x.resize(m.T * m.D);
        normed.resize(m.D);
        payload.resize(widest);
        scaled.resize(widest);
        context.resize(m.R);
        mean.resize(m.D);
        fed.resize((m.H + 2 * m.KV) * m.K + m.H);
        mixed.resize(m.D);
        hidden.resize(2 * m.F);
        out.resize(m.D);
        turn.resize(m.K);
        scores.resize(std::max<int64_t>(scores.size(), longest));
        coefficient.resize(std::max<int64_t>(widest, coefficient.size()));
        index.resize(widest);
    }
};

// What a token step works on.
struct Step {
    const Model& m;
    State& state;
    Scratch& s;
};

// Payload of a graded neuron: an integer, 0 inside the dead zone.
inline float graded(float v, float theta, float lowest, float levels, float fire_level) {
    const float k = std::rint(v / theta);  // half to even, as torch rounds
    const float size = lowest < 0 ? std::fabs(k) : k;
    const float clipped = k < lowest ? lowest : (k > levels ? levels : k);
    return size >= fire_level ? clipped : 0.0f;
}

// y = 2 sigmoid(U V x + c) * x.
void scale_by_context(const Gain& g, Scratch& s, const float* x, float* y) {
    const int64_t size = g.widen.d_out;
    Events all{s.index.data(), s.coefficient.data(), 0};
    spikeloom::dots(g.narrow, x, s.context.data());
    spikeloom::take_all(s.context.data(), g.widen.scale, g.widen.d_in, all);
    std::copy(g.bias, g.bias + size, y);
    spikeloom::add_events(g.widen, all, y);
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        const f32v gain = 2.0f / (1.0f + exp16(-spikeloom::load(y + i)));
        spikeloom::store(y + i, spikeloom::load(x + i) * gain);
    }
    for (; i < size; ++i) y[i] = x[i] * (2.0f / (1.0f + std::exp(-y[i])));
}

// Membrane before firing, left in `v`.
void integrate(const Neuron& n, const float* x, const float* membrane, float* v) {
    const float clip = float(n.clip);
    if (membrane)
        for (int64_t i = 0; i < n.size; ++i) v[i] = n.beta[i] * membrane[i] + (x[i] + n.bias[i]);
    else
        for (int64_t i = 0; i < n.size; ++i) v[i] = x[i] + n.bias[i];
    for (int64_t i = 0; i < n.size; ++i) v[i] = std::min(std::max(v[i], -clip), clip);
}

// Membrane after firing; s are payloads, `theta` is null for unit steps of v_threshold.
void reset_membrane(const Neuron& n, const float* v, const float* s, float* membrane) {
    const float v_reset = float(n.v_reset), v_threshold = float(n.v_threshold);
    for (int64_t i = 0; i < n.size; ++i) {
        const float step = n.theta ? n.theta[i] : v_threshold;
        membrane[i] = n.hard_reset ? (s[i] != 0 ? v_reset : v[i]) : v[i] - step * s[i];
    }
}

// Payloads of one step, from input currents x to s.
void fire(const Neuron& n, Step& step, const float* x, float* s) {
    if (n.kind == WIRE) {
        std::copy(x, x + n.size, s);
        return;
    }
    if (n.gain.bias) {
        scale_by_context(n.gain, step.s, x, step.s.scaled.data());
        x = step.s.scaled.data();
    }
    float* membrane = n.beta ? step.state.membranes + n.membrane : nullptr;
    static thread_local std::vector<float> room;
    room.resize(std::max<int64_t>(room.size(), n.size));
    float* __restrict v = room.data();
    integrate(n, x, membrane, v);
    if (n.kind == LIF) {
        for (int64_t i = 0; i < n.size; ++i) s[i] = v[i] >= float(n.v_threshold) ? 1.0f : 0.0f;
    } else {
        const float levels = float(n.levels), lowest = n.is_signed ? -levels : 0.0f;
        const float fire_level = float(n.fire_level);
        for (int64_t i = 0; i < n.size; ++i)
            s[i] = graded(v[i], n.theta[i], lowest, levels, fire_level);
    }
    if (membrane) reset_membrane(n, v, s, membrane);
}

// y = payload times weights; only rows of channels that fired are read, all rows behind a wire.
void product(const Neuron& n, const Weights& w, Step& step, const float* payload, float* y) {
    Events events{step.s.index.data(), step.s.coefficient.data(), 0};
    if (n.kind == WIRE)
        spikeloom::take_all(payload, w.scale, w.d_in, events);
    else
        spikeloom::gather(payload, w.scale, w.d_in, events);
    step.state.counters[2 * n.index] += events.count;
    step.state.counters[2 * n.index + 1] += w.d_in;
    spikeloom::event_matvec(w, events, y);
}

void add(const float* y, int64_t n, float* x) {
    for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

// Rotary positions, halves rotated as in Llama, for `heads` heads in place.
void turn(float* x, int64_t heads, int64_t K, const float* cos_sin) {
    const int64_t half = K / 2;
    const float *cosine = cos_sin, *sine = cos_sin + half;
    for (int64_t h = 0; h < heads; ++h) {
        float *a = x + h * K, *b = a + half;
        for (int64_t i = 0; i < half; ++i) {
            const float first = a[i], second = b[i];
            a[i] = first * cosine[i] - second * sine[i];
            b[i] = second * cosine[i] + first * sine[i];
        }
    }
}

void angles(const float* wavelengths, int64_t position, int64_t half, float* cos_sin) {
    for (int64_t i = 0; i < half; ++i) {
        const float angle = float(position) * wavelengths[i];
        cos_sin[i] = std::cos(angle);
        cos_sin[half + i] = std::sin(angle);
    }
}

// Turns the first n scores into weights that sum to 1; behind them, up to a whole vector, is room.
void softmax(float* scores, int64_t n) {
    const float highest = *std::max_element(scores, scores + n);
    const int64_t whole = (n + LANES - 1) / LANES * LANES;
    std::fill(scores + n, scores + whole, -INFINITY);
    f32v total{};
    for (int64_t i = 0; i < whole; i += LANES) {
        const f32v shifted = spikeloom::load(scores + i) - highest;
        const f32v e = shifted < -87.0f ? f32v{} : exp16(shifted);
        spikeloom::store(scores + i, e);
        total += e;
    }
    const float scale = 1.0f / sum(total);
    for (int64_t i = 0; i < n; ++i) scores[i] *= scale;
}

// Softmax attention of the newest token over those remembered: two sums of weighted rows.
void attention(const Layer& l, const Memory& memory, Step& step, int64_t t) {
    const Model& m = step.m;
    const int64_t K = m.K, position = step.state.position, capacity = memory.capacity;
    const int64_t slot = l.window ? position % l.window : position;  // a ring: the oldest goes
    const int64_t n = l.window ? std::min(position + 1, l.window) : position + 1;
    float *q = step.s.fed.data(), *k = q + m.H * K, *v = k + m.KV * K;
    angles(l.wavelengths, position, K / 2, step.s.turn.data());
    turn(q, m.H, K, step.s.turn.data());
    turn(k, m.KV, K, step.s.turn.data());
    float* keys = memory.keys + t * m.KV * K * capacity;
    float* values = memory.values + t * m.KV * K * capacity;
    for (int64_t h = 0; h < m.KV; ++h) {
        for (int64_t i = 0; i < K; ++i) keys[(h * K + i) * capacity + slot] = k[h * K + i];
        std::copy(v + h * K, v + (h + 1) * K, values + (h * capacity + slot) * K);
    }
    const float scale = 1.0f / std::sqrt(float(K));
    for (int64_t i = 0; i < m.H * K; ++i) q[i] *= scale;
    const int64_t whole = (n + LANES - 1) / LANES * LANES;
    float* scores = step.s.scores.data();
    for (int64_t h = 0; h < m.H; ++h) {
        const int64_t group = h / (m.H / m.KV);
        spikeloom::add_all(keys + group * K * capacity, capacity, q + h * K, K, scores, whole);
        softmax(scores, n);
        spikeloom::add_all(values + group * capacity * K, K, scores, n, &step.s.mixed[h * K], K);
    }
}

float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

// Spike-driven attention: per head, M = decay * M + k v^T, then read by q. The products that make
// q, k and v are event-driven; they themselves are dense values by design, so no row of M is skipped.
void sdsa(const Layer& l, const Memory& memory, Step& step, int64_t t) {
    const Model& m = step.m;
    const int64_t K = m.K;
    const float *q = step.s.fed.data(), *k = q + m.H * K, *v = k + m.KV * K, *gate = v + m.KV * K;
    const float scale = 1.0f / std::sqrt(float(K));
    for (int64_t h = 0; h < m.H; ++h) {
        const int64_t group = h / (m.H / m.KV);
        const float raw = l.raw_decay[h] + (l.gated ? gate[h] : 0.0f);
        const float decay = std::exp(-softplus(raw));
        float* __restrict out = &step.s.mixed[h * K];
        const float* __restrict value = v + group * K;
        std::fill(out, out + K, 0.0f);
        for (int64_t i = 0; i < K; ++i) {
            float* __restrict row = memory.state + ((t * m.H + h) * K + i) * K;
            const float key = k[group * K + i], query = q[h * K + i] * scale;
            for (int64_t j = 0; j < K; ++j) {
                row[j] = decay * row[j] + key * value[j];
                out[j] += query * row[j];
            }
        }
    }
}

void norm_heads(float* x, const float* weight, int64_t heads, const Model& m) {
    if (!weight) return;
    for (int64_t h = 0; h < heads; ++h) rms_norm(x + h * m.K, weight, m.K, m.eps, x + h * m.K);
}

void mixer_block(const Layer& l, const Memory& memory, Step& step, float* x, int64_t t) {
    const Model& m = step.m;
    Scratch& s = step.s;
    rms_norm(x, l.norm, m.D, m.eps, s.normed.data());
    fire(l.input, step, s.normed.data(), s.payload.data());
    product(l.input, l.qkv, step, s.payload.data(), s.fed.data());
    norm_heads(s.fed.data(), l.q_norm, m.H, m);
    norm_heads(s.fed.data() + m.H * m.K, l.k_norm, m.KV, m);
    if (l.mixer == ATTENTION)
        attention(l, memory, step, t);
    else
        sdsa(l, memory, step, t);
    if (l.output_norm) rms_norm(s.mixed.data(), l.output_norm, m.D, m.eps, s.mixed.data());
    fire(l.output, step, s.mixed.data(), s.payload.data());
    product(l.output, l.o, step, s.payload.data(), s.out.data());
    add(s.out.data(), m.D, x);
}

// What stands between the two products; swiglu has its gates behind the values.
void activate(int64_t kind, float* hidden, int64_t F) {
    if (kind == RELU2)
        for (int64_t i = 0; i < F; ++i) {
            const float kept = hidden[i] > 0 ? hidden[i] : 0.0f;
            hidden[i] = kept * kept;
        }
    if (kind != SWIGLU) return;
    int64_t i = 0;
    for (; i + LANES <= F; i += LANES) {
        const f32v gate = spikeloom::load(hidden + F + i);
        const f32v open = gate / (1.0f + exp16(-gate));
        spikeloom::store(hidden + i, spikeloom::load(hidden + i) * open);
    }
    for (; i < F; ++i) hidden[i] *= hidden[F + i] / (1.0f + std::exp(-hidden[F + i]));
}

void mlp_block(const Layer& l, Step& step, float* x) {
    const Model& m = step.m;
    Scratch& s = step.s;
    rms_norm(x, l.mlp_norm, m.D, m.eps, s.normed.data());
    fire(l.mlp_input, step, s.normed.data(), s.payload.data());
    product(l.mlp_input, l.up, step, s.payload.data(), s.hidden.data());
    activate(l.mlp, s.hidden.data(), m.F);
    fire(l.mlp_hidden, step, s.hidden.data(), s.payload.data());
    product(l.mlp_hidden, l.down, step, s.payload.data(), s.out.data());
    add(s.out.data(), m.D, x);
}

// The head reads the mean payload of all steps (one, on the token clock).
void head_block(Step& step, float* logits) {
    const Model& m = step.m;
    Scratch& s = step.s;
    std::fill(s.mean.begin(), s.mean.end(), 0.0f);
    for (int64_t t = 0; t < m.T; ++t) {
        rms_norm(&s.x[t * m.D], m.norm, m.D, m.eps, s.normed.data());
        fire(m.head_neuron, step, s.normed.data(), s.payload.data());
        for (int64_t i = 0; i < m.D; ++i) s.mean[i] += s.payload[i] / float(m.T);
    }
    if (logits) product(m.head_neuron, m.head, step, s.mean.data(), logits);
}

void decode_token(Step& step, int64_t token, float* logits) {
    const Model& m = step.m;
    State& state = step.state;
    // On the step clock, membranes live through the steps of one token.
    if (m.T > 1) std::fill(state.membranes, state.membranes + state.num_membranes, 0.0f);
    const float* embedded = m.embedding + token * m.D;
    for (int64_t t = 0; t < m.T; ++t) std::copy(embedded, embedded + m.D, &step.s.x[t * m.D]);
    for (int64_t i = 0; i < m.num_layers; ++i) {
        const Layer& layer = m.layers[i];
        for (int64_t t = 0; t < m.T; ++t) {
            mixer_block(layer, state.memories[i], step, &step.s.x[t * m.D], t);
            if (layer.mlp != NO_MLP) mlp_block(layer, step, &step.s.x[t * m.D]);
        }
    }
    head_block(step, logits);
    ++state.position;
}

}  // namespace

extern "C" {

// Sizes of the structs, for `native_step.py` to compare with its own.
int64_t spikeloom_struct_size(int64_t which) {
    const int64_t sizes[] = {sizeof(Neuron), sizeof(Weights), sizeof(Layer),
                             sizeof(Model),  sizeof(Memory),  sizeof(State)};
    return which < 6 ? sizes[which] : 0;
}

// Reads `count` tokens; `logits` [V] receives those after the last (null: none are computed).
void spikeloom_decode(const Model* m, State* state, const int64_t* tokens, int64_t count,
                      float* logits) {
    static thread_local Scratch scratch;
    int64_t longest = LANES;
    for (int64_t i = 0; i < m->num_layers; ++i)
        longest = std::max(longest, state->memories[i].capacity);
    scratch.fit(*m, longest);
    Step step{*m, *state, scratch};
    for (int64_t i = 0; i < count; ++i)
        decode_token(step, tokens[i], i + 1 == count ? logits : nullptr);
}

}  // extern "C"
