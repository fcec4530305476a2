// DConv: residual layers of squeeze -> norm -> GELU -> expand -> norm -> GLU -> scale.
//
// Positions are C contiguous channels each. What is computed for a position is kept in registers;
// the hidden channels of all positions in between are small (an eighth of the channels).
#pragma once

#include <memory>

#include "simd.h"

// The parameters of one layer, as htdemucs.fast.network packs them. `hidden` is a multiple of
// LANES, with zeros in the channels beyond `real_hidden`.
struct DConvLayer {
    const void* squeeze;  // (3, channels / STEP, hidden, STEP)
    const float* squeeze_bias;
    const float* squeeze_gain;  // of the norm
    const float* squeeze_offset;
    const void* expand;  // (hidden / STEP, 2 channels, STEP)
    const float* expand_bias;
    const float* expand_gain;
    const float* expand_offset;
    const float* layer_scale;
    int64_t channels, hidden, real_hidden, dilation;
};

constexpr int AT_ONCE = LANES == 16 ? 8 : 4;  // positions

// hidden[t] = squeeze * x around t + bias, for COUNT positions from t on and V vectors from v on.
template <class T, int COUNT, int V>
inline void squeeze_tile(const DConvLayer& p, const T* x, int64_t length, int64_t t, int64_t v,
                         float* hidden, Vector& sums, Vector& squares) {
    Vector total[COUNT][V];
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < V; j++) total[i][j] = load(p.squeeze_bias + v + j * LANES);
    for (int tap = 0; tap < 3; tap++) {
        const int64_t at = t + (tap - 1) * p.dilation;
        if (at < 0 || at + COUNT > length) continue;  // silent: such a tile has one position
        const T* weight = (const T*)p.squeeze + (tap * p.channels * p.hidden + v * STEP<T>);
        const T* from = x + at * p.channels;
        for (int64_t c = 0; c < p.channels; c += STEP<T>) {
            decltype(spread(x)) value[COUNT];
            for (int i = 0; i < COUNT; i++) value[i] = spread(from + i * p.channels);
            for (int j = 0; j < V; j++) {
                const auto w = operand(weight + j * LANES * STEP<T>);
                for (int i = 0; i < COUNT; i++) multiply_add(total[i][j], value[i], w);
            }
            from += STEP<T>;
            weight += p.hidden * STEP<T>;
        }
    }
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < V; j++) {
            store(hidden + (t + i) * p.hidden + v + j * LANES, total[i][j]);
            sums += total[i][j];
            squares += total[i][j] * total[i][j];
        }
}

template <class T>
Moments squeeze(const DConvLayer& p, const T* x, int64_t length, int64_t from, int64_t to,
                float* hidden) {
    Moments moments;
    for (int64_t t = from; t < to;) {
        Vector sums{}, squares{};
        const bool edge = t < p.dilation || t + AT_ONCE + p.dilation > length;
        if (edge || t + AT_ONCE > to) {
            for (int64_t v = 0; v < p.hidden; v += LANES)
                squeeze_tile<T, 1, 1>(p, x, length, t, v, hidden, sums, squares);
            t++;
        } else {
            int64_t v = 0;
            for (; v + 2 * LANES <= p.hidden; v += 2 * LANES)
                squeeze_tile<T, AT_ONCE, 2>(p, x, length, t, v, hidden, sums, squares);
            if (v < p.hidden)
                squeeze_tile<T, AT_ONCE, 1>(p, x, length, t, v, hidden, sums, squares);
            t += AT_ONCE;
        }
        moments.add(sums, squares);
    }
    return moments;
}

// active[t] = GELU(norm(hidden[t]))
template <class T>
void activate(const DConvLayer& p, float scale, float shift, const float* hidden, int64_t from,
              int64_t to, T* active) {
    for (int64_t t = from; t < to; t++)
        for (int64_t v = 0; v < p.hidden; v += LANES) {
            const Vector gain = load(p.squeeze_gain + v), offset = load(p.squeeze_offset + v);
            const Vector x = load(hidden + t * p.hidden + v) * scale + shift;
            store(active + t * p.hidden + v, gelu(x * gain + offset));
        }
}

// expand * active[t] + bias, for COUNT positions and the vectors at v of both halves of a GLU.
template <class T, int COUNT>
inline void expand_tile(const DConvLayer& p, const T* active, int64_t t, int64_t v,
                        Vector (&value)[COUNT], Vector (&gate)[COUNT]) {
    for (int i = 0; i < COUNT; i++) {
        value[i] = load(p.expand_bias + v);
        gate[i] = load(p.expand_bias + p.channels + v);
    }
    const T* weight = (const T*)p.expand + v * STEP<T>;
    for (int64_t h = 0; h < p.real_hidden; h += STEP<T>) {
        const auto a = operand(weight), b = operand(weight + p.channels * STEP<T>);
        for (int i = 0; i < COUNT; i++) {
            const auto x = spread(active + (t + i) * p.hidden + h);
            multiply_add(value[i], x, a);
            multiply_add(gate[i], x, b);
        }
        weight += 2 * p.channels * STEP<T>;
    }
}

template <class T, int COUNT>
inline void expand_moments_block(const DConvLayer& p, const T* active, int64_t t, Vector& sums,
                                 Vector& squares) {
    for (int64_t v = 0; v < p.channels; v += LANES) {
        Vector value[COUNT], gate[COUNT];
        expand_tile<T, COUNT>(p, active, t, v, value, gate);
        for (int i = 0; i < COUNT; i++) {
            sums += value[i] + gate[i];
            squares += value[i] * value[i] + gate[i] * gate[i];
        }
    }
}

template <class T>
Moments expand_moments(const DConvLayer& p, const T* active, int64_t from, int64_t to) {
    Moments moments;
    for (int64_t t = from; t < to;) {
        Vector sums{}, squares{};
        if (t + AT_ONCE <= to) {
            expand_moments_block<T, AT_ONCE>(p, active, t, sums, squares);
            t += AT_ONCE;
        } else {
            expand_moments_block<T, 1>(p, active, t++, sums, squares);
        }
        moments.add(sums, squares);
    }
    return moments;
}

template <class T, int COUNT>
inline void expand_block(const DConvLayer& p, float scale, float shift, const T* active, int64_t t,
                         T* x) {
    for (int64_t v = 0; v < p.channels; v += LANES) {
        Vector value[COUNT], gate[COUNT];
        expand_tile<T, COUNT>(p, active, t, v, value, gate);
        const Vector gain = load(p.expand_gain + v), offset = load(p.expand_offset + v);
        const Vector gate_gain = load(p.expand_gain + p.channels + v);
        const Vector gate_offset = load(p.expand_offset + p.channels + v);
        const Vector layer_scale = load(p.layer_scale + v);
        for (int i = 0; i < COUNT; i++) {
            T* at = x + (t + i) * p.channels + v;
            const Vector left = (value[i] * scale + shift) * gain + offset;
            const Vector right = (gate[i] * scale + shift) * gate_gain + gate_offset;
            store(at, load(at) + layer_scale * left * sigmoid(right));
        }
    }
}

// x[t] += layer_scale * GLU(norm(expand * active[t] + bias))
template <class T>
void expand(const DConvLayer& p, float scale, float shift, const T* active, int64_t from,
            int64_t to, T* x) {
    int64_t t = from;
    for (; t + AT_ONCE <= to; t += AT_ONCE) expand_block<T, AT_ONCE>(p, scale, shift, active, t, x);
    for (; t < to; t++) expand_block<T, 1>(p, scale, shift, active, t, x);
}

template <class T>
inline void glu_position(const T* x, int64_t channels, T* y) {
    for (int64_t v = 0; v < channels; v += LANES)
        store(y + v, load(x + v) * sigmoid(load(x + channels + v)));
}

// The hidden channels of `length` positions.
template <class T> struct DConvScratch {
    std::unique_ptr<float[]> hidden;
    std::unique_ptr<T[]> active;

    DConvScratch(const DConvLayer& p, int64_t length)
        : hidden(new float[length * p.hidden]), active(new T[length * p.hidden]) {}
};

// One norm over each frequency row: x (batch, frames, bins, C) or, where a GLU comes before,
// (batch, frames, bins, 2 C) -> y (batch, frames, bins, C). A task is a few neighbouring rows.
template <class T>
void dconv_rows(const DConvLayer* layers, int64_t depth, const T* x, bool glu, T* y, int64_t batch,
                int64_t frames, int64_t bins, int64_t channels) {
    int64_t rows = 1;
    while (rows * 2 * channels <= 256 && bins % (rows * 2) == 0) rows *= 2;
    const int64_t width = glu ? 2 * channels : channels;
#pragma omp parallel
    {
        std::unique_ptr<T[]> local(new T[rows * frames * channels]);
        DConvScratch<T> scratch(layers[0], frames);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < batch * bins / rows; task++) {
            const int64_t item = task / (bins / rows), first = task % (bins / rows) * rows;
            for (int64_t t = 0; t < frames; t++)
                for (int64_t r = 0; r < rows; r++) {
                    const T* from = x + ((item * frames + t) * bins + first + r) * width;
                    T* to = &local[(r * frames + t) * channels];
                    if (glu) glu_position(from, channels, to);
                    else memcpy(to, from, channels * sizeof(T));
                }
            for (int64_t r = 0; r < rows; r++) {
                T* row = &local[r * frames * channels];
                for (int64_t i = 0; i < depth; i++) {
                    const DConvLayer& p = layers[i];
                    float scale, shift;
                    squeeze(p, row, frames, 0, frames, scratch.hidden.get())
                        .normalise((double)frames * p.real_hidden, scale, shift);
                    activate(p, scale, shift, scratch.hidden.get(), 0, frames, scratch.active.get());
                    expand_moments(p, scratch.active.get(), 0, frames)
                        .normalise((double)frames * 2 * channels, scale, shift);
                    expand(p, scale, shift, scratch.active.get(), 0, frames, row);
                }
            }
            for (int64_t t = 0; t < frames; t++)
                for (int64_t r = 0; r < rows; r++)
                    memcpy(y + ((item * frames + t) * bins + first + r) * channels,
                           &local[(r * frames + t) * channels], channels * sizeof(T));
        }
    }
}

// One norm over all positions: x (length, C), in place. Tasks are pieces of fixed length, and
// their moments are added up in order, so the number of threads does not change the result.
template <class T>
void dconv_line(const DConvLayer* layers, int64_t depth, T* x, int64_t length) {
    constexpr int64_t PIECE = 512;
    const int64_t pieces = (length + PIECE - 1) / PIECE;
    DConvScratch<T> scratch(layers[0], length);
    std::unique_ptr<Moments[]> moments(new Moments[pieces]);
    for (int64_t i = 0; i < depth; i++) {
        const DConvLayer& p = layers[i];
        float scale, shift;
        auto each = [&](auto work) {
#pragma omp parallel for schedule(dynamic)
            for (int64_t k = 0; k < pieces; k++)
                moments[k] = work(k * PIECE, k + 1 < pieces ? (k + 1) * PIECE : length);
            Moments whole;
            for (int64_t k = 0; k < pieces; k++) whole.add(moments[k]);
            return whole;
        };
        each([&](int64_t from, int64_t to) {
            return squeeze(p, x, length, from, to, scratch.hidden.get());
        }).normalise((double)length * p.real_hidden, scale, shift);
        each([&](int64_t from, int64_t to) {
            activate(p, scale, shift, scratch.hidden.get(), from, to, scratch.active.get());
            return expand_moments(p, scratch.active.get(), from, to);
        }).normalise((double)length * 2 * p.channels, scale, shift);
        each([&](int64_t from, int64_t to) {
            expand(p, scale, shift, scratch.active.get(), from, to, x);
            return Moments();
        });
    }
}
