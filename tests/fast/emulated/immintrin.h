// The AVX-512 instructions that the kernels use, computed on any processor, for tests. With this folder
// before the compiler's own and -D__AVX512F__, perhaps -D__AVX512BF16__, the kernels have the vectors of
// those builds. What each instruction does is from Intel's manual.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

typedef float __m512 __attribute__((vector_size(64)));
typedef int32_t __m512i __attribute__((vector_size(64)));
typedef uint16_t __m256i __attribute__((vector_size(32), may_alias));
typedef __m512i __m512bh;
typedef __m256i __m256bh;

constexpr int _MM_FROUND_TO_NEAREST_INT = 0, _MM_FROUND_NO_EXC = 8;
constexpr float NOT_A_NUMBER = std::numeric_limits<float>::quiet_NaN();

template <class Result, class Compute> inline Result for_each_lane(Compute compute) {
    Result result{};
    for (int i = 0; i < 16; i++) result[i] = compute(i);
    return result;
}

inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline __m512 _mm512_max_ps(__m512 a, __m512 b) {
    return for_each_lane<__m512>([&](int i) { return a[i] > b[i] ? a[i] : b[i]; });
}
inline __m512 _mm512_rcp14_ps(__m512 x) {  // no more than the 14 bits that are promised
    return for_each_lane<__m512>([&](int i) { return from_bits(bits_of(1 / x[i]) & ~0x1ffu); });
}
inline __m512 _mm512_roundscale_ps(__m512 x, int) {
    return for_each_lane<__m512>([&](int i) { return std::nearbyint(x[i]); });
}
inline __m512 _mm512_scalef_ps(__m512 x, __m512 power) {
    return for_each_lane<__m512>([&](int i) {
        const float infinity_or_zero = std::fmax(power[i], 0.0f);
        if (std::isinf(power[i])) return std::isnan(x[i]) ? infinity_or_zero : x[i] * infinity_or_zero;
        if (std::isnan(power[i])) return NOT_A_NUMBER;
        return std::ldexp(x[i], (int)std::fmax(-999, std::fmin(999, std::floor(power[i]))));
    });
}

inline __m256i _mm256_loadu_si256(const __m256i* p) {
    __m256i x;
    memcpy(&x, p, sizeof x);
    return x;
}
inline void _mm256_storeu_si256(__m256i* p, __m256i x) { memcpy((void*)p, &x, sizeof x); }
inline __m512i _mm512_loadu_si512(const void* p) {
    __m512i x;
    memcpy(&x, p, sizeof x);
    return x;
}
inline __m512i _mm512_set1_epi32(int32_t x) {
    return for_each_lane<__m512i>([&](int) { return x; });
}
inline __m512i _mm512_slli_epi32(__m512i x, unsigned count) {
    return for_each_lane<__m512i>([&](int i) { return (int32_t)((uint32_t)x[i] << count); });
}
inline __m512i _mm512_cvtepu16_epi32(__m256i x) {
    return for_each_lane<__m512i>([&](int i) { return (int32_t)x[i]; });
}

inline __m256bh _mm512_cvtneps_pbh(__m512 x) {
    return for_each_lane<__m256bh>([&](int i) -> uint16_t {
        const uint32_t bits = bits_of(x[i]);
        if (std::isnan(x[i])) return (uint16_t)(bits >> 16 | 0x40);
        if (std::fpclassify(x[i]) == FP_SUBNORMAL) return (uint16_t)(bits >> 16 & 0x8000);
        return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    });
}
inline __m512 _mm512_dpbf16_ps(__m512 total, __m512bh a, __m512bh b) {
    return for_each_lane<__m512>([&](int i) {
        const uint32_t x = (uint32_t)a[i], y = (uint32_t)b[i];
        const float odd = from_bits(x & 0xffff0000) * from_bits(y & 0xffff0000);
        return total[i] + odd + from_bits(x << 16) * from_bits(y << 16);
    });
}
