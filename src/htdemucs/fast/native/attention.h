// Multi-head attention whose scores never leave the cache.
//
// Keys and values are first copied into the tiles that a matrix product needs. Then a few queries
// at a time meet all keys: scores, their softmax, and its product with the values.
#pragma once

#include <algorithm>
#include <memory>

#include "simd.h"

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

inline int64_t rounded_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// tile[c / STEP][key][STEP]; copies of the last key fill the rest, so the largest score is real
template <class T>
void pack_keys(const Tokens& keys, int64_t item, int64_t head, int64_t size, int64_t first, T* tile) {
    for (int64_t j = 0; j < KEYS; j++) {
        const T* key = keys.row<T>(item, std::min(first + j, keys.tokens - 1), head, size);
        for (int64_t c = 0; c < size; c++)
            tile[(c / STEP<T> * KEYS + j) * STEP<T> + c % STEP<T>] = key[c];
    }
}

// packed[key / STEP][c][STEP] for the STEP values from `first` on
template <class T>
void pack_values(const Tokens& values, int64_t item, int64_t head, int64_t size, int64_t first, T* packed) {
    for (int64_t j = 0; j < STEP<T>; j++) {
        const bool exists = first + j < values.tokens;
        const T* value = exists ? values.row<T>(item, first + j, head, size) : nullptr;
        for (int64_t c = 0; c < size; c++) packed[c * STEP<T> + j] = exists ? value[c] : T{};
    }
}

// scores[i][key] = query[i] . key for COUNT queries and the KEYS keys of a tile
template <class T, int COUNT>
inline void score_tile(const T* const* query, int64_t size, const T* tile, float* scores,
                       int64_t pitch, Vector* most) {
    Vector total[COUNT][COLUMNS] = {};
    for (int64_t c = 0; c < size; c += STEP<T>) {
        for (int j = 0; j < COLUMNS; j++) {
            const auto key = operand(tile + j * LANES * STEP<T>);
            for (int i = 0; i < COUNT; i++) multiply_add(total[i][j], spread(query[i] + c), key);
        }
        tile += KEYS * STEP<T>;
    }
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < COLUMNS; j++) {
            store(scores + i * pitch + j * LANES, total[i][j]);
            most[i] = maximum(most[i], total[i][j]);
        }
}

// y[i] = sum over keys of weight[i][key] * value[key], times gain[i], for COUNT queries and the
// V vectors of channels at `values`
template <class T, int COUNT, int V>
inline void mix_tile(const T* weights, int64_t pitch, int64_t keys, const T* values, int64_t size,
                     const float* gain, T* const* y) {
    Vector total[COUNT][V] = {};
    for (int64_t k = 0; k < keys; k += STEP<T>) {
        for (int j = 0; j < V; j++) {
            const auto value = operand(values + j * LANES * STEP<T>);
            for (int i = 0; i < COUNT; i++)
                multiply_add(total[i][j], spread(weights + i * pitch + k), value);
        }
        values += size * STEP<T>;
    }
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < V; j++) store(y[i] + j * LANES, total[i][j] * gain[i]);
}

template <class T, int COUNT>
void mix(const T* weights, int64_t pitch, int64_t keys, const T* values, int64_t size,
         const float* gain, T* const* y) {
    T* at[COUNT];
    for (int64_t c = 0; c < size;) {
        for (int i = 0; i < COUNT; i++) at[i] = y[i] + c;
        const T* from = values + c * STEP<T>;
        const int64_t left = (size - c) / LANES;
        if constexpr (COLUMNS == 4) {
            if (left >= 4) { mix_tile<T, COUNT, 4>(weights, pitch, keys, from, size, gain, at); c += 4 * LANES; continue; }
            if (left == 3) { mix_tile<T, COUNT, 3>(weights, pitch, keys, from, size, gain, at); c += 3 * LANES; continue; }
        }
        if (left >= 2) { mix_tile<T, COUNT, 2>(weights, pitch, keys, from, size, gain, at); c += 2 * LANES; }
        else { mix_tile<T, COUNT, 1>(weights, pitch, keys, from, size, gain, at); c += LANES; }
    }
}

// COUNT queries against all keys. `keys` counts real ones, `pitch` those with padding.
template <class T, int COUNT>
void attend(const T* const* query, int64_t size, const T* packed_keys, const T* packed_values,
            int64_t keys, int64_t pitch, float* scores, T* weights, T* const* y) {
    Vector most[COUNT];
    for (int i = 0; i < COUNT; i++) most[i] = splat(-3e38f);
    for (int64_t j = 0; j < pitch; j += KEYS)
        score_tile<T, COUNT>(query, size, packed_keys + j * size, scores + j, pitch, most);

    // softmax(scores / sqrt(size)), as powers of two
    const float unit = LOG2_E / sqrtf((float)size);
    float gain[COUNT];
    for (int i = 0; i < COUNT; i++) {
        float* row = scores + i * pitch;
        for (int64_t j = keys; j < pitch; j++) row[j] = -3e38f;
        const Vector top = splat(largest(most[i]) * unit);
        Vector total{};
        for (int64_t j = 0; j < pitch; j += LANES) {
            const Vector weight = exp2<T>(load(row + j) * unit - top);
            store(weights + i * pitch + j, weight);
            total += weight;
        }
        gain[i] = 1 / sum(total);
    }
    mix<T, COUNT>(weights, pitch, pitch, packed_values, size, gain, y);
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
            const int64_t at = (slot * pitch + j) * size;
            pack_keys(keys, slot / heads, slot % heads, size, j, &packed_keys[at]);
            for (int64_t k = 0; k < KEYS; k += STEP<T>)
                pack_values(values, slot / heads, slot % heads, size, j + k, &packed_values[at + k * size]);
        }

    constexpr int64_t TASK = 16 * ROWS;  // queries
    const int64_t pieces = (queries.tokens + TASK - 1) / TASK;
#pragma omp parallel
    {
        std::unique_ptr<float[]> scores(new float[ROWS * pitch]);
        std::unique_ptr<T[]> weights(new T[ROWS * pitch]);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < slots * pieces; task++) {
            const int64_t slot = task / pieces, first = task % pieces * TASK;
            const int64_t item = slot / heads, head = slot % heads;
            const int64_t last = first + TASK < queries.tokens ? first + TASK : queries.tokens;
            const T* k = &packed_keys[slot * pitch * size];
            const T* v = &packed_values[slot * pitch * size];
            for (int64_t i = first; i < last;) {
                const T* query[ROWS];
                T* out[ROWS];
                for (int r = 0; r < ROWS && i + r < last; r++) {
                    query[r] = queries.row<T>(item, i + r, head, size);
                    out[r] = y + (item * queries.tokens + i + r) * width + head * size;
                }
                if (i + ROWS <= last) {
                    attend<T, ROWS>(query, size, k, v, keys.tokens, pitch, scores.get(), weights.get(), out);
                    i += ROWS;
                } else {
                    attend<T, 1>(query, size, k, v, keys.tokens, pitch, scores.get(), weights.get(), out);
                    i++;
                }
            }
        }
    }
}
