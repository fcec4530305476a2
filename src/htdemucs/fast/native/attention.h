// Multi-head attention whose scores never leave the cache.
//
// Keys and values are first copied into the order that products of matrices need. A block of queries
// is then processed with one chunk of keys at a time: scores, powers of two relative to the largest
// score so far, and the product of these weights with the values.
#pragma once

#include <algorithm>
#include <memory>

#include "product.h"

// Tokens are rows of `pitch` numbers, items of the batch `tokens * pitch` apart; a head takes
// `size` neighbouring numbers (a multiple of 16).
struct Tokens {
    const void* data;
    int64_t tokens, pitch;

    template <class T> const T* row(int64_t item, int64_t token, int64_t head, int64_t size) const {
        return (const T*)data + (item * tokens + token) * pitch + head * size;
    }
};

constexpr int64_t KEYS = COLUMNS * LANES;  // in a tile
constexpr int64_t CHUNK = 384;             // keys; they and their values stay in the cache
constexpr int64_t BLOCK = 48;              // queries: a multiple of ROWS of either type

inline int64_t rounded_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// tile[c / STEP][key][STEP]; copies of the last key fill the rest
template <class T>
void pack_keys(const Tokens& keys, int64_t item, int64_t head, int64_t size, int64_t first, T* tile) {
    for (int64_t j = 0; j < KEYS; j++) {
        const T* key = keys.row<T>(item, std::min(first + j, keys.tokens - 1), head, size);
        for (int64_t c = 0; c < size; c++)
            tile[(c / STEP<T> * KEYS + j) * STEP<T> + c % STEP<T>] = key[c];
    }
}

// Channels in panels as wide as a tile: packed[panel][key / STEP][c][STEP], for the KEYS values from
// `first` on; `pitch` counts the keys of all tiles.
template <class T>
void pack_values(const Tokens& values, int64_t item, int64_t head, int64_t size, int64_t first,
                 int64_t pitch, T* packed) {
    for (int64_t c = 0; c < size; c += KEYS) {
        const int64_t width = std::min(KEYS, size - c);
        T* panel = packed + c * pitch + first * width;
        for (int64_t j = 0; j < KEYS; j++) {
            const bool exists = first + j < values.tokens;
            const T* value = exists ? values.row<T>(item, first + j, head, size) + c : nullptr;
            for (int64_t i = 0; i < width; i++)
                panel[(j / STEP<T> * width + i) * STEP<T> + j % STEP<T>] = exists ? value[i] : T{};
        }
    }
}

// The keys and values of one head, packed; `pitch` counts its keys with padding.
template <class T> struct Head {
    const T *keys, *values;
    int64_t tokens, pitch, size;
};

// A thread's memory for a block of queries: the queries, their scores and weights for a chunk of
// keys, and their outputs so far (`gathered`).
template <class T> struct Block {
    std::unique_ptr<T[]> queries, weights;
    std::unique_ptr<float[]> scores, gathered;
    float most[BLOCK];    // of each query's scores
    Vector total[BLOCK];  // of its weights, in each lane

    explicit Block(int64_t size)
        : queries(new T[BLOCK * size]()), weights(new T[BLOCK * CHUNK]), scores(new float[BLOCK * CHUNK]),
          gathered(new float[BLOCK * size]) {}
};

// Turns one query's scores for `count` keys into weights, in units of the largest score so far, and
// scales its output so far to the same unit. That score is subtracted before anything is multiplied:
// no rounding then makes an exponent larger than 0, however large the scores are.
template <class T>
void weigh(float* scores, int64_t count, float unit, T* weights, float& most, Vector& total, float* gathered,
           int64_t size) {
    Vector top = load(scores);
    for (int64_t j = LANES; j < count; j += LANES) top = maximum(top, load(scores + j));
    const float before = most, now = fmaxf(before, largest(top));
    Vector sums{};
    for (int64_t j = 0; j < count; j += LANES) {
        const Vector weight = exp2<T>((load(scores + j) - now) * unit);
        store(weights + j, weight);
        sums += weight;
    }
    if (now > before) {
        const Vector factor = exp2<float>(splat((before - now) * unit));
        total *= factor;
        for (int64_t c = 0; c < size; c += LANES) store(gathered + c, load(gathered + c) * factor);
    }
    most = now;
    total += sums;
}

// gathered[i] += sum over keys of weight[i][key] * value[key], for V vectors of channels
template <class T, int V>
void gather(const T* weights, int64_t queries, int64_t count, const T* panel, float* gathered, int64_t size) {
    for (int64_t i = 0; i < queries; i += ROWS<T>)
        product<T, ROWS<T>, V, true>({weights + i * CHUNK, CHUNK}, count, {panel, V * LANES},
                                     {gathered + i * size, size});
}

template <class T> void attend(const Head<T>& head, int64_t queries, Block<T>& block) {
    const float unit = LOG2_E / sqrtf((float)head.size);  // softmax(scores / sqrt(size)), as powers of two
    const int64_t size = head.size;
    float *scores = block.scores.get(), *gathered = block.gathered.get();
    T* weights = block.weights.get();
    std::fill_n(gathered, BLOCK * size, 0.0f);
    std::fill_n(block.most, BLOCK, -INFINITY);
    std::fill_n(block.total, BLOCK, Vector{});
    for (int64_t first = 0; first < head.pitch; first += CHUNK) {
        const int64_t count = std::min(CHUNK, head.pitch - first);
        for (int64_t j = 0; j < count; j += KEYS)
            for (int64_t i = 0; i < queries; i += ROWS<T>)
                product<T, ROWS<T>, COLUMNS>({&block.queries[i * size], size}, size,
                                             {head.keys + (first + j) * size, KEYS},
                                             {scores + i * CHUNK + j, CHUNK});
        for (int64_t i = 0; i < queries; i++) {
            float* row = scores + i * CHUNK;
            for (int64_t j = std::max(head.tokens - first, (int64_t)0); j < count; j++) row[j] = -INFINITY;
            weigh(row, count, unit, weights + i * CHUNK, block.most[i], block.total[i], gathered + i * size, size);
        }
        for (int64_t c = 0; c < size; c += KEYS) {
            const int64_t vectors = std::min(KEYS, size - c) / LANES;
            const T* panel = head.values + c * head.pitch + first * vectors * LANES;
            if (vectors == 1) gather<T, 1>(weights, queries, count, panel, gathered + c, size);
            if (vectors == 2) gather<T, 2>(weights, queries, count, panel, gathered + c, size);
            if (vectors == 3) gather<T, 3>(weights, queries, count, panel, gathered + c, size);
            if (vectors == 4) gather<T, 4>(weights, queries, count, panel, gathered + c, size);
        }
    }
}

// y (batch, queries, heads * size)
template <class T>
void attention(const Tokens& queries, const Tokens& keys, const Tokens& values, T* y, int64_t batch,
               int64_t heads, int64_t size) {
    const int64_t pitch = rounded_up(keys.tokens, KEYS);
    const int64_t slots = batch * heads, width = heads * size;
    std::unique_ptr<T[]> packed_keys(new T[slots * pitch * size]);
    std::unique_ptr<T[]> packed_values(new T[slots * pitch * size]);
#pragma omp parallel for schedule(dynamic) collapse(2)
    for (int64_t slot = 0; slot < slots; slot++)
        for (int64_t j = 0; j < pitch; j += KEYS) {
            const int64_t at = slot * pitch + j;
            pack_keys(keys, slot / heads, slot % heads, size, j, &packed_keys[at * size]);
            pack_values(values, slot / heads, slot % heads, size, j, pitch, &packed_values[slot * pitch * size]);
        }

    const int64_t pieces = (queries.tokens + BLOCK - 1) / BLOCK;
    ForEachThread<Block<T>> blocks(size);
#pragma omp parallel
    {
        [[maybe_unused]] const Tiles tiles;
        Block<T>& block = blocks.own();
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < slots * pieces; task++) {
            const int64_t slot = task / pieces, first = task % pieces * BLOCK;
            const int64_t item = slot / heads, head = slot % heads;
            const int64_t count = std::min(BLOCK, queries.tokens - first);
            for (int64_t i = 0; i < count; i++)
                memcpy((void*)&block.queries[i * size], queries.row<T>(item, first + i, head, size), size * sizeof(T));
            attend(Head<T>{&packed_keys[slot * pitch * size], &packed_values[slot * pitch * size], keys.tokens,
                           pitch, size}, count, block);
            for (int64_t i = 0; i < count; i++) {
                const float inverse = 1 / sum(block.total[i]);
                for (int64_t c = 0; c < size; c += LANES)
                    store(y + (item * queries.tokens + first + i) * width + head * size + c,
                          load(&block.gathered[i * size + c]) * inverse);
            }
        }
    }
}
