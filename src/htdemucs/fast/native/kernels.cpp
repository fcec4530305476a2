// The functions that Python calls. TYPE is 0 for float, 1 for bfloat16. They return 0, or 1 if there is
// too little memory.
//
// Compiled once for each instruction set in htdemucs.fast.kernels; see hatch_build.py.
#include "attention.h"
#include "dconv.h"
#include "layers.h"

#include <new>

#ifdef __AVX512BF16__
typedef bfloat16 Second;
#else
typedef float Second;  // the other builds are never called with TYPE 1
#endif

#define FOR_TYPE(type, call) \
    try { \
        if (type) { using T = Second; call; } else { using T = float; call; } \
        return 0; \
    } catch (const std::bad_alloc&) { return 1; }

extern "C" {

int htdemucs_dconv_rows(int type, const DConvLayer* layers, int64_t depth, const void* x, int glu,
                        void* y, int64_t batch, int64_t frames, int64_t bins, int64_t channels) {
    FOR_TYPE(type, dconv_rows<T>(layers, depth, (const T*)x, glu, (T*)y, batch, frames, bins, channels));
}

int htdemucs_dconv_line(int type, const DConvLayer* layers, int64_t depth, void* x, int64_t length) {
    FOR_TYPE(type, dconv_line<T>(layers, depth, (T*)x, length));
}

int htdemucs_attention(int type, const Tokens* queries, const Tokens* keys, const Tokens* values,
                       void* y, int64_t batch, int64_t heads, int64_t size) {
    FOR_TYPE(type, attention<T>(*queries, *keys, *values, (T*)y, batch, heads, size));
}

int htdemucs_glu(int type, const void* x, int64_t lines, int64_t positions, int64_t channels,
                 const float* embedding, void* y, int64_t pitch) {
    FOR_TYPE(type, glu<T>((const T*)x, lines, positions, channels, embedding, (T*)y, pitch));
}

int htdemucs_layer_norm(int type, const float* x, int64_t tokens, int64_t channels,
                        const float* gain, const float* offset, void* y) {
    FOR_TYPE(type, layer_norm<T>(x, tokens, channels, gain, offset, (T*)y));
}

int htdemucs_add(int type, float* x, const void* y, int64_t count) {
    FOR_TYPE(type, add<T>(x, (const T*)y, count));
}

int htdemucs_add_and_norm(int type, float* x, const void* y, int64_t tokens, int64_t channels,
                          const float* gain, const float* offset) {
    FOR_TYPE(type, add_and_norm<T>(x, (const T*)y, tokens, channels, gain, offset));
}

int htdemucs_pack_spectrum(int type, const float* spectrum, int64_t channels, int64_t frames,
                           int64_t bins, float* moments, void* y, int64_t margin) {
    FOR_TYPE(type, pack_spectrum<T>(spectrum, channels, frames, bins, moments, (T*)y, margin));
}

int htdemucs_unpack_spectrum(int type, const void* x, int64_t pitch, int64_t signals,
                             int64_t frames, int64_t bins, float scale, float shift, float* y) {
    FOR_TYPE(type, unpack_spectrum<T>((const T*)x, pitch, signals, frames, bins, scale, shift, y));
}

int htdemucs_overlap_add(int type, const float* frames, const float* window, int64_t signals,
                         int64_t count, int64_t hop, const void* time, float scale, float shift,
                         float* y, int64_t length) {
    FOR_TYPE(type, overlap_add<T>(frames, window, signals, count, hop, (const T*)time, scale, shift,
                                  y, length));
}

}
