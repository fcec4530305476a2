// The operations between the large products: gates, norms, and conversions of spectra.
#pragma once

#include <memory>

#include "simd.h"

// (lines, positions, 2 C) -> (lines, positions, C), the output's lines `pitch` apart. An embedding
// (positions, C) is added unless it is null.
template <class T>
void glu(const T* x, int64_t lines, int64_t positions, int64_t channels, const float* embedding,
         T* y, int64_t pitch) {
    constexpr int64_t PIECE = 128;
    const int64_t pieces = (positions + PIECE - 1) / PIECE;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t line = 0; line < lines; line++)
        for (int64_t piece = 0; piece < pieces; piece++) {
            const int64_t last = piece + 1 < pieces ? (piece + 1) * PIECE : positions;
            for (int64_t i = piece * PIECE; i < last; i++) {
                const T* from = x + (line * positions + i) * 2 * channels;
                T* to = y + line * pitch + i * channels;
                for (int64_t c = 0; c < channels; c += LANES) {
                    Vector z = load(from + c) * sigmoid<T>(load(from + channels + c));
                    if (embedding) z += load(embedding + i * channels + c);
                    store(to + c, z);
                }
            }
        }
}

// y = norm over each token's channels
template <class T>
void layer_norm(const float* x, int64_t tokens, int64_t channels, const float* gain,
                const float* offset, T* y) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < tokens; i++) {
        const float* row = x + i * channels;
        Vector total{};
        for (int64_t c = 0; c < channels; c += LANES) total += load(row + c);
        const float mean = sum(total) / channels;
        Vector squares{};
        for (int64_t c = 0; c < channels; c += LANES) {
            const Vector d = load(row + c) - mean;
            squares += d * d;
        }
        const float scale = inverse_deviation(sum(squares) / channels);
        for (int64_t c = 0; c < channels; c += LANES)
            store(y + i * channels + c, (load(row + c) - mean) * scale * load(gain + c) + load(offset + c));
    }
}

// x += y; `count` is a multiple of 16
template <class T> void add(float* x, const T* y, int64_t count) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += LANES) store(x + i, load(x + i) + load(y + i));
}

// x = norm over all tokens together of x + y
template <class T>
void add_and_norm(float* x, const T* y, int64_t tokens, int64_t channels, const float* gain,
                  const float* offset) {
    constexpr int64_t PIECE = 64;
    const int64_t pieces = (tokens + PIECE - 1) / PIECE;
    std::unique_ptr<Moments[]> moments(new Moments[pieces]);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < pieces; k++) {
        const int64_t last = k + 1 < pieces ? (k + 1) * PIECE : tokens;
        for (int64_t t = k * PIECE; t < last; t++) {
            const float pivot = x[t * channels] + to_float(y[t * channels]);
            Vector sums{}, squares{};
            for (int64_t i = t * channels; i < (t + 1) * channels; i += LANES) {
                const Vector z = load(x + i) + load(y + i);
                store(x + i, z);
                sums += z - pivot;
                squares += (z - pivot) * (z - pivot);
            }
            moments[k].add(sums, squares, channels, pivot);
        }
    }
    Moments whole;
    for (int64_t k = 0; k < pieces; k++) whole.add(moments[k]);
    float scale, shift;
    whole.normalise((double)tokens * channels, scale, shift);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t c = 0; c < channels; c += LANES) {
            float* at = x + t * channels + c;
            store(at, (load(at) * scale + shift) * load(gain + c) + load(offset + c));
        }
}

// A complex spectrum (channels, frames, bins + 1) -> (frames, margin + bins + margin, 2 channels)
// without its Nyquist bin, at zero mean and unit deviation, with silent margins. Writes the earlier
// mean and deviation to `moments`.
template <class T>
void pack_spectrum(const float* spectrum, int64_t channels, int64_t frames, int64_t bins,
                   float* moments, T* y, int64_t margin) {
    const int64_t lines = channels * frames, numbers = 2 * bins;
    std::unique_ptr<Moments[]> sums(new Moments[lines]);
#pragma omp parallel for schedule(static)
    for (int64_t line = 0; line < lines; line++) {
        const float* from = spectrum + line * (numbers + 2);
        Vector total{}, squares{};
        for (int64_t i = 0; i < numbers; i += LANES) {
            const Vector x = load(from + i);
            total += x;
            squares += x * x;
        }
        sums[line].add(total, squares);
    }
    Moments whole;
    for (int64_t line = 0; line < lines; line++) whole.add(sums[line]);
    const double count = (double)lines * numbers, mean = whole.sum / count;
    const double deviation = sqrt(std::max(whole.square - count * mean * mean, 0.0) / (count - 1));
    moments[0] = (float)mean;
    moments[1] = (float)deviation;
    const float scale = (float)(1 / (1e-5 + deviation)), shift = (float)-mean * scale;
    const int64_t width = 2 * channels, line_length = (bins + 2 * margin) * width;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < frames; t++) {
        T* line = y + t * line_length;
        memset((void*)line, 0, margin * width * sizeof(T));
        memset((void*)(line + (margin + bins) * width), 0, margin * width * sizeof(T));
        T* to = line + margin * width;
        float block[2 * LANES * 8];
        for (int64_t f = 0; f < bins; f += LANES) {  // LANES bins: 2 * LANES * channels numbers
            for (int64_t c = 0; c < channels; c++) {
                const float* from = spectrum + (c * frames + t) * (numbers + 2) + 2 * f;
                for (int64_t i = 0; i < LANES; i++) {
                    block[i * width + 2 * c] = from[2 * i] * scale + shift;
                    block[i * width + 2 * c + 1] = from[2 * i + 1] * scale + shift;
                }
            }
            for (int64_t i = 0; i < LANES * width; i += LANES) store(to + f * width + i, load(block + i));
        }
    }
}

// (frames, bins, 2 signals), lines `pitch` apart -> complex spectra (signals, frames, bins + 1),
// times scale plus shift, with a silent Nyquist bin.
template <class T>
void unpack_spectrum(const T* x, int64_t pitch, int64_t signals, int64_t frames, int64_t bins,
                     float scale, float shift, float* y) {
    const int64_t width = 2 * signals, numbers = 2 * (bins + 1);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < frames; t++) {
        const T* line = x + t * pitch;
        for (int64_t s = 0; s < signals; s++) {
            float* to = y + (s * frames + t) * numbers;
            for (int64_t f = 0; f < bins; f++) {
                to[2 * f] = to_float(line[f * width + 2 * s]) * scale + shift;
                to[2 * f + 1] = to_float(line[f * width + 2 * s + 1]) * scale + shift;
            }
            to[2 * bins] = to[2 * bins + 1] = 0;
        }
    }
}

// Frames (signals, count, 4 hop) of an inverse FFT, multiplied by `window` and added up, plus the
// time branch's (length, signals) times scale plus shift -> (signals, length). Each sample lies
// under four frames; those outside the signal are silent.
template <class T>
void overlap_add(const float* frames, const float* window, int64_t signals, int64_t count,
                 int64_t hop, const T* time, float scale, float shift, float* y, int64_t length) {
    const int64_t edge = 3 * hop / 2, blocks = (length + edge + hop - 1) / hop;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t s = 0; s < signals; s++) {
            const int64_t start = block * hop - edge;  // of the block, in samples of the output
            const int64_t first = start < 0 ? -start : 0;
            const int64_t last = start + hop > length ? length - start : hop;
            float* to = y + s * length + start;
            for (int64_t i = first; i < last; i++)
                to[i] = to_float(time[(start + i) * signals + s]) * scale + shift;
            for (int64_t q = 0; q < 4; q++) {
                const int64_t frame = block - q;
                if (frame < 0 || frame >= count) continue;
                const float* from = frames + ((s * count + frame) * 4 + q) * hop;
                const float* by = window + q * hop;
                for (int64_t i = first; i < last; i++) to[i] += from[i] * by[i];
            }
        }
}
