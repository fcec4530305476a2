// DConv: residual layers of squeeze -> norm -> GELU -> expand -> norm -> GLU -> scale.
//
// A position is C contiguous channels. The hidden channels are few (C / 8), and only they are stored
// between steps: the norm of `expand`'s outputs follows from the products of the hidden channels, so
// the outputs themselves are computed once, after their norm is known.
#pragma once

#include <memory>

#include "product.h"

// The parameters of one layer, as htdemucs.fast.layers packs them. `pitch` is `hidden` rounded up
// to a multiple of LANES, and `taps_pitch` is 3 * hidden rounded up; the padding is zero.
struct DConvLayer {
    const void* squeeze;  // (channels / STEP, taps_pitch, STEP): all channels of a tap, next tap
    const float* squeeze_bias;  // (pitch), as the next three
    const float* squeeze_gain;  // of the norm
    const float* squeeze_offset;
    const void* expand;  // (pitch / STEP, 2 channels, STEP)
    const float* expand_bias;  // (2 channels), as the next two
    const float* expand_gain;
    const float* expand_offset;
    const float* layer_scale;  // (channels)
    // For the moments of `expand`'s outputs over all channels: the sums of weights (pitch), of
    // weight times bias (pitch), of weight times weight (hidden, pitch), of biases and their squares.
    const float *weight_sum, *weight_bias, *weight_product;
    double bias_sum, bias_square;
    int64_t channels, hidden, pitch, taps_pitch, dilation;
};

template <class T> constexpr int AT_ONCE = ROWS<T> == 6 && LANES == 16 ? 8 : ROWS<T>;  // positions
constexpr int64_t PIECE = 512;                // positions worked on at a time, in the cache

// A thread's memory: the three taps of a piece of positions, with neighbours on each side, and
// products of hidden channels. `squeeze` loads a tap's hidden channels with padding, which at the end
// of the last row of taps lies beyond the row.
struct DConvScratch {
    std::unique_ptr<float[]> taps, products;

    explicit DConvScratch(const DConvLayer& p)
        : taps(new float[(PIECE + 64) * p.taps_pitch + p.pitch]), products(new float[p.hidden * p.pitch]) {}
};

// taps[t] = squeeze * x[t] for COUNT positions
template <class T, int COUNT>
inline void taps_block(const DConvLayer& p, const T* x, float* taps) {
    constexpr int MOST = LANES == 16 ? 3 : 2;  // vectors
    int64_t v = 0;
    auto tile = [&](auto vectors) {
        const T* weight = (const T*)p.squeeze + v * STEP<T>;
        product<T, COUNT, vectors>({x, p.channels}, p.channels, {weight, p.taps_pitch}, {taps + v, p.taps_pitch});
        v += vectors * LANES;
    };
    while (v + MOST * LANES <= p.taps_pitch) tile(std::integral_constant<int, MOST>());
    if (v + 2 * LANES <= p.taps_pitch) tile(std::integral_constant<int, 2>());
    if (v < p.taps_pitch) tile(std::integral_constant<int, 1>());
}

// hidden[t] = squeeze * x around t + bias, for the positions of a piece
template <class T>
Moments squeeze(const DConvLayer& p, const T* x, int64_t length, int64_t from, int64_t to,
                DConvScratch& scratch, float* hidden) {
    const int64_t first = from < p.dilation ? 0 : from - p.dilation;
    const int64_t last = to + p.dilation > length ? length : to + p.dilation;
    float* taps = scratch.taps.get();
    int64_t t = first;
    for (; t + AT_ONCE<T> <= last; t += AT_ONCE<T>)
        taps_block<T, AT_ONCE<T>>(p, x + t * p.channels, taps + (t - first) * p.taps_pitch);
    for (; t < last; t++) taps_block<T, 1>(p, x + t * p.channels, taps + (t - first) * p.taps_pitch);

    auto output = [&](int64_t t, int64_t v) {
        Vector total = load(p.squeeze_bias + v);
        for (int tap = 0; tap < 3; tap++) {
            const int64_t at = t + (tap - 1) * p.dilation;
            if (at >= 0 && at < length)
                total += load(taps + (at - first) * p.taps_pitch + tap * p.hidden + v);
        }
        return total;
    };
    const float pivot = output(from, 0)[0];
    Vector sums{}, squares{};
    for (t = from; t < to; t++)
        for (int64_t v = 0; v < p.pitch; v += LANES) {
            const Vector total = output(t, v);
            store(hidden + t * p.pitch + v, first_lanes(total, p.hidden - v));
            const Vector difference = first_lanes(total - pivot, p.hidden - v);
            sums += difference;
            squares += difference * difference;
        }
    Moments moments;
    moments.add(sums, squares, (to - from) * p.hidden, pivot);
    return moments;
}

// active[t] = GELU(norm(hidden[t]))
template <class T>
void activate(const DConvLayer& p, float scale, float shift, const float* hidden, int64_t from,
              int64_t to, T* active) {
    for (int64_t v = 0; v < p.pitch; v += LANES) {
        const Vector gain = load(p.squeeze_gain + v) * scale;
        const Vector offset = load(p.squeeze_gain + v) * shift + load(p.squeeze_offset + v);
        for (int64_t t = from; t < to; t++)
            store(active + t * p.pitch + v, gelu<T>(load(hidden + t * p.pitch + v) * gain + offset));
    }
}

// products[i] += active[t][i] * active[t] over positions, for COUNT channels from i on and V
// vectors from v on
template <class T, int COUNT, int V>
inline void products_tile(const DConvLayer& p, const T* active, int64_t from, int64_t to, int64_t i,
                          int64_t v, float* products) {
    Vector total[COUNT][V] = {};
    for (int64_t t = from; t < to; t++) {
        const T* at = active + t * p.pitch;
        Vector x[V];
        for (int j = 0; j < V; j++) x[j] = load(at + v + j * LANES);
        for (int k = 0; k < COUNT; k++) {
            const Vector y = splat(to_float(at[i + k]));
            for (int j = 0; j < V; j++) total[k][j] += y * x[j];
        }
    }
    for (int k = 0; k < COUNT; k++)
        for (int j = 0; j < V; j++) store(products + (i + k) * p.pitch + v + j * LANES, total[k][j]);
}

template <class T, int V>
void products_columns(const DConvLayer& p, const T* active, int64_t from, int64_t to, int64_t v,
                      float* products) {
    int64_t i = 0;
    for (; i + 6 <= p.hidden; i += 6) products_tile<T, 6, V>(p, active, from, to, i, v, products);
    for (; i < p.hidden; i++) products_tile<T, 1, V>(p, active, from, to, i, v, products);
}

// The moments of expand * active[t] + bias over positions and channels, from those of active.
template <class T>
Moments expand_moments(const DConvLayer& p, const T* active, int64_t from, int64_t to,
                       DConvScratch& scratch) {
    float* products = scratch.products.get();
    int64_t v = 0;
    for (; v + 2 * LANES <= p.pitch; v += 2 * LANES)
        products_columns<T, 2>(p, active, from, to, v, products);
    if (v < p.pitch) products_columns<T, 1>(p, active, from, to, v, products);

    Moments moments;
    moments.sum = (to - from) * p.bias_sum;
    moments.square = (to - from) * p.bias_square;
    for (v = 0; v < p.pitch; v += LANES) {
        Vector total{}, square{};
        for (int64_t t = from; t < to; t++) total += load(active + t * p.pitch + v);
        for (int64_t i = 0; i < p.hidden; i++)
            square += load(p.weight_product + i * p.pitch + v) * load(products + i * p.pitch + v);
        moments.sum += sum(total * load(p.weight_sum + v));
        moments.square += sum(square) + 2.0 * sum(total * load(p.weight_bias + v));
    }
    return moments;
}

// x[t] += layer_scale * GLU(norm(expand * active[t] + bias)) for COUNT positions
template <class T, int COUNT>
inline void expand_block(const DConvLayer& p, float scale, float shift, const T* active, T* x) {
    const int64_t gates = p.channels;
    float expanded[COUNT * 2 * LANES];  // values, then gates
    for (int64_t v = 0; v < p.channels; v += LANES) {
        const T* weight = (const T*)p.expand + v * STEP<T>;
        product<T, COUNT, 2>({active, p.pitch}, p.hidden, {weight, 2 * p.channels, gates}, {expanded, 2 * LANES});
        const Vector gain = load(p.expand_gain + v), gate_gain = load(p.expand_gain + gates + v);
        const Vector offset =
            (load(p.expand_bias + v) * scale + shift) * gain + load(p.expand_offset + v);
        const Vector gate_offset = (load(p.expand_bias + gates + v) * scale + shift) * gate_gain +
                                   load(p.expand_offset + gates + v);
        const Vector layer_scale = load(p.layer_scale + v);
        for (int i = 0; i < COUNT; i++) {
            T* at = x + i * p.channels + v;
            const float* value = expanded + i * 2 * LANES;
            const Vector left = load(value) * (gain * scale) + offset;
            const Vector right = load(value + LANES) * (gate_gain * scale) + gate_offset;
            store(at, load(at) + layer_scale * left * sigmoid<T>(right));
        }
    }
}

template <class T>
void expand(const DConvLayer& p, float scale, float shift, const T* active, int64_t from,
            int64_t to, T* x) {
    int64_t t = from;
    for (; t + AT_ONCE<T> <= to; t += AT_ONCE<T>)
        expand_block<T, AT_ONCE<T>>(p, scale, shift, active + t * p.pitch, x + t * p.channels);
    for (; t < to; t++) expand_block<T, 1>(p, scale, shift, active + t * p.pitch, x + t * p.channels);
}

template <class T>
inline void glu_position(const T* x, int64_t channels, T* y) {
    for (int64_t v = 0; v < channels; v += LANES)
        store(y + v, load(x + v) * sigmoid<T>(load(x + channels + v)));
}

// A DConv over `length` positions. Moments are added up piece by piece, in order. `each` calls its
// argument with (number, from, to) for every piece, in one thread or several.
template <class T, class Each>
void dconv_layers(const DConvLayer* layers, int64_t depth, T* x, int64_t length, float* hidden,
                  T* active, Moments* moments, Each each) {
    const int64_t pieces = (length + PIECE - 1) / PIECE;
    auto normalise = [&](double count, float& scale, float& shift) {
        Moments whole;
        for (int64_t k = 0; k < pieces; k++) whole.add(moments[k]);
        whole.normalise(count, scale, shift);
    };
    for (int64_t i = 0; i < depth; i++) {
        const DConvLayer& p = layers[i];
        float scale, shift;
        each(pieces, [&](int64_t k, int64_t from, int64_t to, DConvScratch& scratch) {
            moments[k] = squeeze(p, x, length, from, to, scratch, hidden);
        });
        normalise((double)length * p.hidden, scale, shift);
        each(pieces, [&](int64_t k, int64_t from, int64_t to, DConvScratch& scratch) {
            activate(p, scale, shift, hidden, from, to, active);
            moments[k] = expand_moments(p, active, from, to, scratch);
        });
        normalise((double)length * 2 * p.channels, scale, shift);
        each(pieces, [&](int64_t, int64_t from, int64_t to, DConvScratch&) {
            expand(p, scale, shift, active, from, to, x);
        });
    }
}

// A thread's memory for a few rows.
template <class T> struct RowsScratch {
    DConvScratch layer;
    std::unique_ptr<T[]> local, active;
    std::unique_ptr<float[]> hidden;
    std::unique_ptr<Moments[]> moments;

    RowsScratch(const DConvLayer& p, int64_t rows, int64_t frames)
        : layer(p), local(new T[rows * frames * p.channels]), active(new T[frames * p.pitch]),
          hidden(new float[frames * p.pitch]), moments(new Moments[frames / PIECE + 1]) {}
};

// One norm over each frequency row: x (batch, frames, bins, C) or, if a GLU comes first,
// (batch, frames, bins, 2 C) -> y (batch, frames, bins, C). A task is a few neighbouring rows.
template <class T>
void dconv_rows(const DConvLayer* layers, int64_t depth, const T* x, bool glu, T* y, int64_t batch,
                int64_t frames, int64_t bins, int64_t channels) {
    int64_t rows = 1;
    while (rows * 2 * channels <= 256 && bins % (rows * 2) == 0) rows *= 2;
    const int64_t width = glu ? 2 * channels : channels;
    ForEachThread<RowsScratch<T>> scratches(layers[0], rows, frames);
#pragma omp parallel
    {
        [[maybe_unused]] const Tiles tiles;
        RowsScratch<T>& scratch = scratches.own();
        T* local = scratch.local.get();
        auto each = [&](int64_t pieces, auto work) {
            for (int64_t k = 0; k < pieces; k++)
                work(k, k * PIECE, k + 1 < pieces ? (k + 1) * PIECE : frames, scratch.layer);
        };
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
            for (int64_t r = 0; r < rows; r++)
                dconv_layers(layers, depth, &local[r * frames * channels], frames, scratch.hidden.get(),
                             scratch.active.get(), scratch.moments.get(), each);
            for (int64_t t = 0; t < frames; t++)
                for (int64_t r = 0; r < rows; r++)
                    memcpy(y + ((item * frames + t) * bins + first + r) * channels,
                           &local[(r * frames + t) * channels], channels * sizeof(T));
        }
    }
}

// One norm over all positions: x (length, C), in place. Moments are added up in order, so the
// number of threads does not change the result.
template <class T>
void dconv_line(const DConvLayer* layers, int64_t depth, T* x, int64_t length) {
    std::unique_ptr<float[]> hidden(new float[length * layers[0].pitch]);
    std::unique_ptr<T[]> active(new T[length * layers[0].pitch]);
    std::unique_ptr<Moments[]> moments(new Moments[length / PIECE + 1]);
    ForEachThread<DConvScratch> scratches(layers[0]);
    auto each = [&](int64_t pieces, auto work) {
#pragma omp parallel
        {
            [[maybe_unused]] const Tiles tiles;
            DConvScratch& scratch = scratches.own();
#pragma omp for schedule(dynamic)
            for (int64_t k = 0; k < pieces; k++)
                work(k, k * PIECE, k + 1 < pieces ? (k + 1) * PIECE : length, scratch);
        }
    };
    dconv_layers(layers, depth, x, length, hidden.get(), active.get(), moments.get(), each);
}
