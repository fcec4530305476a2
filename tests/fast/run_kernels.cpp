// Runs every kernel on small inputs of many sizes, without Python: for valgrind, and for emulators of
// other processors. Exits with 1 if a result is not finite, or is finite although an input is NaN.
#include <cstdio>
#include <vector>

#include "kernels.cpp"

static uint32_t state = 1;

static float noise() {  // from -1 to 1
    state = state * 1664525 + 1013904223;
    return (int32_t)state / 2147483648.0f;
}

template <class T> T from_float(float x);
template <> inline float from_float(float x) { return x; }
#ifdef __AVX512BF16__
template <> inline bfloat16 from_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return {(uint16_t)(bits >> 16)};
}
#endif

template <class T> std::vector<T> random_numbers(int64_t count) {
    std::vector<T> numbers(count);
    for (T& x : numbers) x = from_float<T>(noise());
    return numbers;
}

static int faults = 0;

template <class T> void check(const char* kernel, const std::vector<T>& result, bool damaged) {
    bool finite = true;
    for (const T& x : result) finite &= std::isfinite(to_float(x));
    if (finite != damaged) return;
    printf("%s: the result is %sfinite\n", kernel, finite ? "" : "not ");
    faults++;
}

// A DConv of random parameters, in the arrays that htdemucs.fast.layers packs.
template <class T> struct DConv {
    std::vector<std::vector<float>> floats;
    std::vector<std::vector<T>> products;
    std::vector<DConvLayer> layers;

    const float* vector(int64_t count) { return floats.emplace_back(random_numbers<float>(count)).data(); }
    const float* padded(int64_t count, int64_t pitch) {
        auto& x = floats.emplace_back(random_numbers<float>(count));
        x.resize(pitch);
        return x.data();
    }

    DConv(int64_t channels, int64_t hidden, int64_t depth) {
        const int64_t pitch = rounded_up(hidden, 16), taps_pitch = rounded_up(3 * hidden, 16);
        for (int64_t i = 0; i < depth; i++) {
            DConvLayer p{};
            p.squeeze = products.emplace_back(random_numbers<T>(channels * taps_pitch)).data();
            p.squeeze_bias = padded(hidden, pitch);
            p.squeeze_gain = padded(hidden, pitch);
            p.squeeze_offset = padded(hidden, pitch);
            p.expand = products.emplace_back(random_numbers<T>(pitch * 2 * channels)).data();
            p.expand_bias = vector(2 * channels);
            p.expand_gain = vector(2 * channels);
            p.expand_offset = vector(2 * channels);
            p.layer_scale = vector(channels);
            p.weight_sum = padded(hidden, pitch);
            p.weight_bias = padded(hidden, pitch);
            p.weight_product = vector(hidden * pitch);
            p.bias_square = 1;
            p.channels = channels, p.hidden = hidden, p.pitch = pitch, p.taps_pitch = taps_pitch;
            p.dilation = 1 << i;
            layers.push_back(p);
        }
    }
};

template <class T> void run(int type, bool damaged) {
    const float nan = damaged ? NAN : 0;  // added to one number of each input
    auto input = [&](int64_t count) {
        auto x = random_numbers<T>(count);
        x[count / 2] = from_float<T>(to_float(x[count / 2]) + nan);
        return x;
    };
    auto floats = [&](int64_t count) {
        auto x = random_numbers<float>(count);
        x[count / 2] += nan;
        return x;
    };
    for (int64_t length : {1, 33, 1100}) {  // the last fills a piece of DConv with its neighbours
        for (int64_t hidden : {1, 5, 16, 19}) {
            DConv<T> dconv(16, hidden, 6);
            auto x = input(length * 16);
            htdemucs_dconv_line(type, dconv.layers.data(), 6, x.data(), length);
            check("dconv_line", x, damaged);
            for (int glu : {0, 1}) {
                auto rows = input(2 * length * 3 * 16 * (1 + glu));
                std::vector<T> y(2 * length * 3 * 16);
                htdemucs_dconv_rows(type, dconv.layers.data(), 6, rows.data(), glu, y.data(), 2, length, 3, 16);
                check("dconv_rows", y, damaged);
            }
        }
        for (int64_t size : {16, 48, 80}) {
            const int64_t keys = length / 2 + 1, heads = 2, width = heads * size;
            auto q = random_numbers<T>(length * width), k = input(keys * width), v = random_numbers<T>(keys * width);
            const Tokens tokens[] = {{q.data(), length, width}, {k.data(), keys, width}, {v.data(), keys, width}};
            std::vector<T> y(length * width);
            htdemucs_attention(type, &tokens[0], &tokens[1], &tokens[2], y.data(), 1, heads, size);
            check("attention", y, damaged);
        }
        const auto gain = random_numbers<float>(48), offset = random_numbers<float>(48);
        auto x = random_numbers<T>(2 * length * 96);
        x[48] = from_float<T>(nan);  // a gate
        const auto table = random_numbers<float>(length * 48);
        std::vector<T> y(2 * length * 48);
        htdemucs_glu(type, x.data(), 2, length, 48, table.data(), y.data(), length * 48);
        check("glu", y, damaged);
        auto total = floats(length * 48);
        htdemucs_layer_norm(type, total.data(), length, 48, gain.data(), offset.data(), y.data());
        check("layer_norm", std::vector<T>(y.begin(), y.begin() + length * 48), damaged);
        x = random_numbers<T>(length * 48);
        htdemucs_add(type, total.data(), x.data(), length * 48);
        check("add", total, damaged);
        htdemucs_add_and_norm(type, total.data(), x.data(), length, 48, gain.data(), offset.data());
        check("add_and_norm", total, damaged);

        const int64_t bins = 48, hop = 24, frames = (length + hop - 1) / hop;
        auto spectrum = floats(2 * frames * 2 * (bins + 1));
        spectrum[4] += nan;  // the one in the middle may be of the bin that is dropped
        float moments[2];
        y.resize(frames * (bins + 4) * 4);
        htdemucs_pack_spectrum(type, spectrum.data(), 2, frames, bins, moments, y.data(), 2);
        check("pack_spectrum", y, damaged);
        std::vector<float> unpacked(2 * frames * 2 * (bins + 1));
        htdemucs_unpack_spectrum(type, y.data() + 8, (bins + 4) * 4, 2, frames, bins, 1, 0, unpacked.data());
        check("unpack_spectrum", unpacked, damaged);
        const auto parts = floats(2 * frames * 4 * hop), window = random_numbers<float>(4 * hop);
        const auto time = input(length * 2);
        std::vector<float> samples(2 * length);
        htdemucs_overlap_add(type, parts.data(), window.data(), 2, frames, hop, time.data(), 1, 0,
                             samples.data(), length);
        check("overlap_add", samples, damaged);
    }
}

int main() {
    for (bool damaged : {false, true}) {
        run<float>(0, damaged);
#ifdef __AVX512BF16__
        run<bfloat16>(1, damaged);
#endif
    }
    return faults > 0;
}
