// Products with packed weights.
//
// A weight (rows, columns) is cut into groups of 16 rows, the last one filled up with zeros. For each group and each
// column there are 16 bits, the lowest for the group's first row, that say which of the 16 weights are not zero; these
// stand one after the other in `values`, column by column, and `starts` says where each group's begin. After the last
// value there are 64 more, which are read and not used.
//
// The 16 weights of a column are expanded in registers, and multiplied with one number of each vector.

#pragma once

#include <algorithm>
#include <memory>
#include <new>

#include "lanes.h"

namespace {

// So many bytes ahead of what is read, values are fetched from memory.
constexpr int AHEAD = 1024;
// Of many vectors: so many columns of so many groups are expanded at once, into 256 KB, and multiplied with so many
// vectors, whose sums take 384 KB. Every thread has memory of this size.
constexpr int64_t COLUMNS = 256, BLOCK = 16, VECTORS = 384;

// Reads a group's weights, column by column or four columns at a time. Where the four begin is counted from one word of
// 64 bits, so that none has to wait for the one before.
template <class T>
struct Group {
  const T* values;
  const uint16_t* masks;

  INLINE Lanes one() {
    const uint32_t mask = *masks++;
    const Lanes result = expand(values, mask);
    values += __builtin_popcount(mask);
    return result;
  }
  template <class Use>
  INLINE void four(Use use) {
    uint64_t bits;
    std::memcpy(&bits, masks, sizeof bits);
    __builtin_prefetch(values + AHEAD / sizeof(T));
#ifdef __AVX512VBMI2__
    if constexpr (sizeof(T) < sizeof(float)) {
      Lanes weights[4];
      expand_four(values, bits, weights);
      UNROLLED for (int i = 0; i < 4; ++i) use(i, weights[i]);
      values += __builtin_popcountll(bits);
      masks += 4;
      return;
    }
#endif
    use(0, expand(values, masks[0]));
    use(1, expand(values + __builtin_popcountll(bits & 0xffff), masks[1]));
    use(2, expand(values + __builtin_popcountll(bits & 0xffffffff), masks[2]));
    use(3, expand(values + __builtin_popcountll(bits & 0xffffffffffff), masks[3]));
    values += __builtin_popcountll(bits);
    masks += 4;
  }
  // The next columns, `apart` numbers from one to the next.
  void next(int64_t columns, float* to, int64_t apart) {
    int64_t column = 0;
    for (; column + 4 <= columns; column += 4)
      four([&](int i, const Lanes& weights) __attribute__((always_inline)) { store(to + (column + i) * apart, weights); });
    for (; column < columns; ++column) store(to + column * apart, one());
  }
};

// What is written of a group's sums for one vector: sum · scale + bias.
struct Output {
  float* y;
  int64_t rows;
  const float* scales;
  const float* bias;

  INLINE void write(int64_t group, int64_t vector, Lanes sum) const {
    const int64_t row = group * LANES, live = rows - row;
    float* to = y + vector * rows + row;
    if (live >= LANES) {
      if (scales) sum = multiply(sum, load(scales + row));
      if (bias) sum = add(sum, load(bias + row));
      store(to, sum);
      return;
    }
    float each[LANES];
    store(each, sum);
    for (int64_t i = 0; i < live; ++i) to[i] = each[i] * (scales ? scales[row + i] : 1) + (bias ? bias[row + i] : 0);
  }
};

struct Shape {
  int64_t vectors, rows, columns;
  int64_t groups() const { return (rows + LANES - 1) / LANES; }
};

// A few vectors. Expanded weights are used at once.

// x has the numbers of WIDTH vectors side by side. Where these are few there are several chains of additions, since an
// addition has to wait for the one before.
template <int WIDTH, class T>
void few_of(Group<T> group, const float* x, int64_t columns, const Output& output, int64_t nth, int64_t vectors) {
  constexpr int CHAINS = WIDTH == 1 ? 4 : WIDTH <= WIDEST / 4 ? 2 : 1;
  Lanes sum[CHAINS][WIDTH];
  UNROLLED for (int chain = 0; chain < CHAINS; ++chain) {
    UNROLLED for (int i = 0; i < WIDTH; ++i) sum[chain][i] = load(NONE);
  }
  int64_t column = 0;
  if (WIDTH < 8)
    for (; column + 4 <= columns; column += 4, x += 4 * WIDTH)
      group.four([&](int of_four, const Lanes& weights) __attribute__((always_inline)) {
        Lanes* to = sum[of_four % CHAINS];
        UNROLLED for (int i = 0; i < WIDTH; ++i) to[i] = multiply_add(weights, x[of_four * WIDTH + i], to[i]);
      });
  for (; column < columns; ++column, x += WIDTH) {
    const Lanes weights = group.one();
    UNROLLED for (int i = 0; i < WIDTH; ++i) sum[0][i] = multiply_add(weights, x[i], sum[0][i]);
  }
  UNROLLED for (int i = 0; i < WIDTH; ++i) {
    UNROLLED for (int chain = 1; chain < CHAINS; ++chain) sum[0][i] = add(sum[0][i], sum[chain][i]);
    if (i < vectors) output.write(nth, i, sum[0][i]);
  }
}

// The numbers of the vectors from `first` on side by side, `width` of them, zeros where there are no more.
void turn(const float* x, const Shape& shape, int64_t first, int width, float* to) {
  for (int i = 0; i < width; ++i, ++to) {
    const float* from = x + (first + i) * shape.columns;
    const bool there = first + i < shape.vectors;
    for (int64_t column = 0; column < shape.columns; ++column) to[column * width] = there ? from[column] : 0.0f;
  }
}

template <int WIDTH, class T>
void few(const float* x, const Group<T>& weight, const int64_t* starts, const Shape& shape, const Output& output,
         int threads) {
  std::unique_ptr<float[]> turned;
  if (WIDTH > 1) {
    turned.reset(new float[WIDTH * shape.columns]);
    turn(x, shape, 0, WIDTH, turned.get());
    x = turned.get();
  }
  const int64_t groups = shape.groups();
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t group = 0; group < groups; ++group) {
    const Group<T> here{weight.values + starts[group], weight.masks + group * shape.columns};
    few_of<WIDTH>(here, x, shape.columns, output, group, shape.vectors);
  }
}

// Many vectors. Some columns of some groups are expanded into the processor's cache, once for all vectors, and
// multiplied with one tile of vectors after the other.

// sums (GROUPS, WIDTH, 16) += weights (columns, GROUPS, 16) times WIDTH vectors, `apart` numbers from one to the next.
template <int WIDTH>
INLINE void tile(const float* weights, const float* x, int64_t apart, int64_t columns, float* sums) {
  Lanes sum[GROUPS][WIDTH];
  UNROLLED for (int g = 0; g < GROUPS; ++g) {
    UNROLLED for (int i = 0; i < WIDTH; ++i) sum[g][i] = load(sums + (g * WIDTH + i) * LANES);
  }
  for (int64_t column = 0; column < columns; ++column, weights += GROUPS * LANES, ++x) {
    Lanes of_column[GROUPS];
    UNROLLED for (int g = 0; g < GROUPS; ++g) of_column[g] = load(weights + g * LANES);
    UNROLLED for (int i = 0; i < WIDTH; ++i) {
      const float number = x[i * apart];
      UNROLLED for (int g = 0; g < GROUPS; ++g) sum[g][i] = multiply_add(of_column[g], number, sum[g][i]);
    }
  }
  UNROLLED for (int g = 0; g < GROUPS; ++g) {
    UNROLLED for (int i = 0; i < WIDTH; ++i) store(sums + (g * WIDTH + i) * LANES, sum[g][i]);
  }
}

// Vectors are shared out evenly: a tile has as many as the next one, or one more.
struct Tiles {
  static constexpr int WIDTH = WIDEST / GROUPS;
  int64_t vectors, count = (vectors + WIDTH - 1) / WIDTH;
  int64_t first(int64_t t) const { return vectors * t / count; }
  int width(int64_t t) const { return int(first(t + 1) - first(t)); }
};

// One tile with all panels of expanded weights; its sums stand one panel after the other.
template <int W = Tiles::WIDTH>
void multiply_tile(int width, const float* weights, int64_t panels, const float* x, int64_t apart, int64_t columns,
              float* sums) {
  if constexpr (W > 0) {
    if (width < W) return multiply_tile<W - 1>(width, weights, panels, x, apart, columns, sums);
    for (int64_t p = 0; p < panels; ++p)
      tile<W>(weights + p * COLUMNS * GROUPS * LANES, x, apart, columns, sums + p * GROUPS * W * LANES);
  }
}

// Numbers that begin with a line of the cache, which holds 16.
struct Free {
  void operator()(float* numbers) const { ::operator delete[](numbers, std::align_val_t(64)); }
};
using Numbers = std::unique_ptr<float[], Free>;
Numbers numbers(int64_t count) {
  return Numbers(static_cast<float*>(::operator new[](count * sizeof(float), std::align_val_t(64))));
}

// The groups from `begin` to `end`. `expanded` and `sums` are memory to work in.
template <class T>
void many_of(const float* x, const Group<T>& weight, const int64_t* starts, const Shape& shape, int64_t begin,
             int64_t end, float* expanded, float* sums, const Output& output) {
  const Tiles tiles{shape.vectors};
  const int64_t panels = (end - begin + GROUPS - 1) / GROUPS, of_vector = panels * GROUPS * LANES;
  Group<T> groups[BLOCK];
  for (int64_t g = 0; g < panels * GROUPS; ++g) {
    const int64_t there = std::min(begin + g, end - 1);
    groups[g] = {weight.values + starts[there], weight.masks + there * shape.columns};
  }
  std::fill_n(sums, shape.vectors * of_vector, 0.0f);
  for (int64_t column = 0; column < shape.columns; column += COLUMNS) {
    const int64_t count = std::min(COLUMNS, shape.columns - column);
    for (int64_t g = 0; g < panels * GROUPS; ++g)
      groups[g].next(count, expanded + (g / GROUPS * COLUMNS * GROUPS + g % GROUPS) * LANES, GROUPS * LANES);
    for (int64_t t = 0; t < tiles.count; ++t)
      multiply_tile(tiles.width(t), expanded, panels, x + tiles.first(t) * shape.columns + column, shape.columns, count,
               sums + tiles.first(t) * of_vector);
  }
  for (int64_t t = 0; t < tiles.count; ++t)
    for (int i = 0; i < tiles.width(t); ++i)
      for (int64_t g = 0; begin + g < end; ++g)
        output.write(begin + g, tiles.first(t) + i,
                     load(sums + tiles.first(t) * of_vector + (g * tiles.width(t) + i) * LANES));
}

template <class T>
void many(const float* x, const Group<T>& weight, const int64_t* starts, const Shape& shape, const Output& output,
          int threads) {
  const int64_t groups = shape.groups(), most = std::min(shape.vectors, VECTORS);
  // Every thread gets some, and whole panels.
  const int64_t block = std::min(BLOCK, (groups / threads + GROUPS) / GROUPS * GROUPS);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const Numbers expanded = numbers(BLOCK * LANES * COLUMNS), sums = numbers(BLOCK * LANES * most);
    for (int64_t first = 0; first < shape.vectors; first += VECTORS) {
      const Shape here{std::min(VECTORS, shape.vectors - first), shape.rows, shape.columns};
      const Output to{output.y + first * shape.rows, shape.rows, output.scales, output.bias};
#pragma omp for schedule(static)
      for (int64_t begin = 0; begin < groups; begin += block)
        many_of(x + first * shape.columns, weight, starts, here, begin, std::min(begin + block, groups), expanded.get(),
                sums.get(), to);
    }
  }
}

template <class T>
void linear(const float* x, const Group<T>& weight, const int64_t* starts, const Shape& shape, const Output& output,
            int threads) {
  if (shape.vectors == 0) return;
  // The least of these widths that holds all vectors; those that a processor has no room for are not made.
#define WIDTH(N) \
  if (shape.vectors <= N && N <= WIDEST) return few<(N <= WIDEST ? N : 1)>(x, weight, starts, shape, output, threads);
  WIDTH(1) WIDTH(2) WIDTH(4) WIDTH(6) WIDTH(8) WIDTH(12) WIDTH(16) WIDTH(20) WIDTH(24)
#undef WIDTH
  many(x, weight, starts, shape, output, threads);
}

}  // namespace
