// Products of small matrices: the inner loops of attention and DConv, and memory for their threads.
#pragma once

#include <utility>
#include <vector>

#include "simd.h"

// Rows `pitch` numbers apart.
template <class T> struct Rows {
    T* data;
    int64_t pitch;
};

// A matrix with STEP neighbouring rows side by side: data[k / STEP][column][STEP], of `pitch` columns.
// The vectors of columns that a product takes are `apart` columns apart.
template <class T> struct Columns {
    const T* data;
    int64_t pitch, apart = LANES;

    const T* at(int64_t k, int vector) const { return data + k * pitch + vector * apart * STEP<T>; }
};

// c = a * b or, with ADD, c += a * b, for N rows, `depth` numbers long, and V vectors of columns.
// The sums stay in registers.
template <class T, int N, int V, bool ADD>
inline void product_in_registers(Rows<const T> a, int64_t depth, Columns<T> b, Rows<float> c) {
    Vector total[N][V];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < V; j++)
            total[i][j] = ADD ? load(c.data + i * c.pitch + j * LANES) : Vector{};
    int64_t k = 0;
    do {  // at least once, else the compiler keeps the sums in memory
        decltype(operand(b.data)) column[V];
        for (int j = 0; j < V; j++) column[j] = operand(b.at(k, j));
        for (int i = 0; i < N; i++) {
            const auto value = spread(a.data + i * a.pitch + k);
            for (int j = 0; j < V; j++) multiply_add(total[i][j], value, column[j]);
        }
        k += STEP<T>;
    } while (k < depth);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < V; j++) store(c.data + i * c.pitch + j * LANES, total[i][j]);
}

#ifdef __AMX_BF16__
// The processor's unit for matrices has registers of 16 rows of 64 bytes. Here 0 to 3 hold sums, 4
// and 5 the factors, 32 deep, and 6 and 7 the last ones, 16 deep; so zeros must follow a depth that
// is not a multiple of 16. A thread can use these registers while it has a Tiles.
struct Tiles {
    Tiles() {
        struct {
            uint8_t palette = 1, start = 0, unused[14] = {};
            uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 32, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 8};
        } shapes;
        _tile_loadconfig(&shapes);
    }
    ~Tiles() { _tile_release(); }
};

// (The compiler's intrinsics need the number of a register as a literal.)
template <int R> inline void load_tile(const void* rows, int64_t bytes) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(bytes), "i"(R) : "memory");
}
template <int R> inline void store_tile(void* rows, int64_t bytes) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows), "r"(bytes), "i"(R) : "memory");
}
template <int R> inline void clear_tile() { asm volatile("tilezero %%tmm%c0" ::"i"(R)); }
template <int R, int A, int B> inline void multiply_add_tile() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(R), "i"(A), "i"(B));
}

template <bool ADD, int... J>
inline void product_in_tiles(Rows<const bfloat16> a, int64_t depth, Columns<bfloat16> b, Rows<float> c,
                             std::integer_sequence<int, J...>) {
    if constexpr (ADD) (load_tile<J>(c.data + J * LANES, 4 * c.pitch), ...);
    else (clear_tile<J>(), ...);
    int64_t k = 0;
    for (; k + 16 < depth; k += 32) {
        load_tile<4>(a.data + k, 2 * a.pitch);
        ((load_tile<5>(b.at(k, J), 4 * b.pitch), multiply_add_tile<J, 4, 5>()), ...);
    }
    if (k < depth) {
        load_tile<6>(a.data + k, 2 * a.pitch);
        ((load_tile<7>(b.at(k, J), 4 * b.pitch), multiply_add_tile<J, 6, 7>()), ...);
    }
    (store_tile<J>(c.data + J * LANES, 4 * c.pitch), ...);
}

template <> constexpr int ROWS<bfloat16> = 16;
#else
struct Tiles {};
#endif

template <class T, int N, int V, bool ADD = false>
inline void product(Rows<const T> a, int64_t depth, Columns<T> b, Rows<float> c) {
#ifdef __AMX_BF16__
    if constexpr (sizeof(T) == 2 && N == ROWS<T>)
        return product_in_tiles<ADD>(a, depth, b, c, std::make_integer_sequence<int, V>());
#endif
    product_in_registers<T, N, V, ADD>(a, depth, b, c);
}

extern "C" int omp_get_max_threads(void);  // omp.h, which compilers for macOS lack
extern "C" int omp_get_thread_num(void);

// A Scratch for each thread of the next parallel region. An exception must not leave such a region, so
// its memory is allocated before.
template <class Scratch> class ForEachThread {
    std::vector<Scratch> each;

  public:
    template <class... Arguments> explicit ForEachThread(const Arguments&... arguments) {
        const int threads = omp_get_max_threads();
        each.reserve(threads);
        for (int i = 0; i < threads; i++) each.emplace_back(arguments...);
    }
    Scratch& own() { return each[omp_get_thread_num()]; }
};
