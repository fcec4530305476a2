// Vectors of floats, and the functions that the kernels share. GNU vector extensions: GCC and Clang.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>

constexpr int LANES = 16;   // floats in a vector
constexpr int COLUMNS = 4;  // vectors side by side in a tile of a matrix product
#else
constexpr int LANES = 8;
constexpr int COLUMNS = 2;
#endif
template <class T> constexpr int ROWS = 6;  // of such a tile

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
struct bfloat16 { uint16_t bits; };

inline Vector splat(float x) { return x - Vector{}; }

inline Vector select(Integers mask, Vector yes, Vector no) {
    return (Vector)(((Integers)yes & mask) | ((Integers)no & ~mask));
}

// x in the first `count` lanes, zero in the others
inline Vector first_lanes(Vector x, int64_t count) {
    Integers lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return select(lane < (int32_t)count, x, Vector{});
}

// `join` over all lanes, by halves
template <class Join> inline float fold(Vector x, Join join) {
    typedef float Four __attribute__((vector_size(16)));
    Four part[LANES / 4];
    memcpy(part, &x, sizeof x);
    for (int n = LANES / 8; n; n /= 2)
        for (int i = 0; i < n; i++) part[i] = join(part[i], part[i + n]);
    return join(join(part[0][0], part[0][1]), join(part[0][2], part[0][3]));
}

inline float sum(Vector x) { return fold(x, [](auto a, auto b) { return a + b; }); }
inline float largest(Vector x) { return fold(x, [](auto a, auto b) { return a > b ? a : b; }); }

inline Vector load(const float* p) { return *(const Unaligned*)p; }
inline void store(float* p, Vector x) { *(Unaligned*)p = x; }
inline float to_float(float x) { return x; }

// A product's operand holds STEP consecutive numbers of the summed axis side by side, as the
// instruction that adds their products expects them: 1 float, or 2 bfloat16.
template <class T> constexpr int STEP = 1;

inline Vector spread(const float* p) { return splat(*p); }
inline Vector operand(const float* p) { return load(p); }
inline void multiply_add(Vector& total, Vector a, Vector b) { total += a * b; }

#ifdef __AVX512BF16__
template <> constexpr int STEP<bfloat16> = 2;

inline Vector load(const bfloat16* p) {
    return (Vector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
}
inline void store(bfloat16* p, Vector x) {
    _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh((__m512)x));
}
inline float to_float(bfloat16 x) {
    uint32_t bits = (uint32_t)x.bits << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline __m512bh spread(const bfloat16* p) {
    int32_t pair;
    memcpy(&pair, p, 4);
    return (__m512bh)_mm512_set1_epi32(pair);
}
inline __m512bh operand(const bfloat16* p) { return (__m512bh)_mm512_loadu_si512(p); }
inline void multiply_add(Vector& total, __m512bh a, __m512bh b) {
    total = (Vector)_mm512_dpbf16_ps((__m512)total, a, b);
}
#endif

// Numbers that are not finite must stay so in every function here: NaN and infinity in a result show
// that weights are damaged. `maximum` returns b where either is NaN.
#ifdef __AVX512F__
inline Vector maximum(Vector a, Vector b) { return (Vector)_mm512_max_ps((__m512)a, (__m512)b); }

template <class T> inline Vector reciprocal(Vector x) {
    const Vector y = (Vector)_mm512_rcp14_ps((__m512)x);  // right to 14 bits
    return sizeof(T) == 2 ? y : y * (2.0f - x * y);       // Newton's step doubles them
}

inline Vector split(Vector x, Vector& whole) {
    whole = (Vector)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return x - whole;
}
inline Vector scale(Vector x, Vector power) { return (Vector)_mm512_scalef_ps((__m512)x, (__m512)power); }
#else
inline Vector maximum(Vector a, Vector b) { return a > b ? a : b; }
template <class T> inline Vector reciprocal(Vector x) { return 1.0f / x; }

inline Vector split(Vector x, Vector& whole) {
    const Vector magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to whole numbers
    whole = x + magic;
    return x - (whole - magic);
}
inline Vector scale(Vector x, Vector whole) {  // `whole` still has the magic number in it
    return x * (Vector)(((Integers)whole << 23) + (127 << 23));  // a product: NaN times any bits is NaN
}
#endif

// x, or `least` where that is larger
inline Vector at_least(Vector x, float least) { return maximum(splat(least), x); }

// 2 to the power of x, for x up to 127, as exactly as T needs: relative error 2e-7, or 8e-5 for
// bfloat16, whose own steps are 8e-3.
template <class T> inline Vector exp2(Vector x) {
    Vector whole;
    x = at_least(x, -125.0f);  // products with subnormal numbers are a hundred times as slow
    const Vector fraction = split(x, whole);
    Vector y;
    if constexpr (sizeof(T) == 2) {
        y = splat(0.0551716685f);
        y = y * fraction + 0.2426111549f;
        y = y * fraction + 0.6932609677f;
        y = y * fraction + 0.9999280572f;
    } else {
        y = splat(1.534581243e-4f);
        y = y * fraction + 1.339993207e-3f;
        y = y * fraction + 9.618489072e-3f;
        y = y * fraction + 5.550328642e-2f;
        y = y * fraction + 2.402264625e-1f;
        y = y * fraction + 6.931471825e-1f;
        y = y * fraction + 1.0f;
    }
    return scale(y, whole);
}

constexpr float LOG2_E = 1.4426950408889634f;

template <class T> inline Vector sigmoid(Vector x) {
    return reciprocal<T>(1.0f + exp2<T>(at_least(x, -80.0f) * -LOG2_E));
}

// x * P(N <= x), the error function by Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7).
template <class T> inline Vector gelu(Vector x) {
    const Vector z = x * 0.70710678f;
    const Vector size = maximum(z, -z);
    const Vector t = reciprocal<T>(1.0f + 0.3275911f * size);
    Vector y = splat(1.061405429f);
    y = y * t - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    const Vector tail = y * t * exp2<T>(at_least(size * size * -LOG2_E, -100.0f));
    const Vector erf = select(z < Vector{}, tail - 1.0f, 1.0f - tail);
    return 0.5f * x * (1.0f + erf);
}

// 1 / sqrt(variance + epsilon). If squares have overflowed it is NaN instead of 0, which would make
// all numbers finite.
template <class Float> inline Float inverse_deviation(Float variance) {
    return std::isfinite(variance) ? 1 / std::sqrt(variance + (Float)1e-5) : (Float)NAN;
}

// Accumulates the mean and variance of numbers in any number of pieces.
struct Moments {
    double sum = 0, square = 0;

    // Adds `count` numbers by the sums of their differences from `pivot`, and of the squares of these.
    // If the pivot is one of the numbers, these sums in float32 stay exact however large the mean is.
    void add(Vector sums, Vector squares, int64_t count = 0, double pivot = 0) {
        const double differences = ::sum(sums);
        sum += differences + count * pivot;
        square += ::sum(squares) + (2 * differences + count * pivot) * pivot;
    }
    void add(const Moments& other) { sum += other.sum, square += other.square; }

    // (x - mean) / sqrt(variance + epsilon), as x * scale + shift
    void normalise(double count, float& scale, float& shift) const {
        const double mean = sum / count;
        const double variance = std::max(square / count - mean * mean, 0.0);  // NaN stays NaN
        scale = (float)inverse_deviation(variance);
        shift = (float)(-mean * scale);
    }
};
