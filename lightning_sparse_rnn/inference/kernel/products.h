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

#include "lanes.h"

namespace {

// So many bytes ahead of what is read, values are fetched from memory.
constexpr int AHEAD = 1024;

// Reads a group's weights, column by column or four columns at a time. Where the four begin is counted from one word of
// 64 bits, so that none has to wait for the one before.
template <class T>
struct Group {
  const T* values;
  const uint16_t* masks;

  INLINE Lanes one() {
    const uint32_t mask = *masks++;
    __builtin_prefetch(values + AHEAD / sizeof(T));
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
};

// What is written of a group's sums for one vector: sum · scale + bias.
struct Output {
  float* y;
  int64_t rows;
  const float* scales;
  const float* bias;

  // A group of 16 rows.
  INLINE void write_whole(int64_t group, int64_t vector, Lanes sum) const {
    const int64_t row = group * LANES;
    if (scales) sum = multiply(sum, load(scales + row));
    if (bias) sum = add(sum, load(bias + row));
    store(y + vector * rows + row, sum);
  }
  INLINE void write(int64_t group, int64_t vector, Lanes sum) const {
    const int64_t row = group * LANES, live = rows - row;
    if (live >= LANES) return write_whole(group, vector, sum);
    float* to = y + vector * rows + row;
    float each[LANES];
    store(each, sum);
    for (int64_t i = 0; i < live; ++i) to[i] = each[i] * (scales ? scales[row + i] : 1) + (bias ? bias[row + i] : 0);
  }
};

// What is multiplied with what: x (vectors, columns) with a weight (rows, columns), rows one after the other scaled.
template <class T>
struct Product {
  const float* x;
  Group<T> weight;
  const int64_t* starts;
  const float* scales;
  int64_t columns;

  Group<T> group(int64_t nth) const { return {weight.values + starts[nth], weight.masks + nth * columns}; }
};

inline int64_t groups_of(int64_t rows) { return (rows + LANES - 1) / LANES; }

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

// to (columns, WIDTH): the numbers of WIDTH vectors side by side, which in x are `apart` from one vector to the next.
// Where there are fewer, the last one stands for the others.
template <int WIDTH>
void turn(const float* x, int64_t apart, int vectors, int64_t columns, float* to) {
  const float* from[WIDTH];
  UNROLLED for (int i = 0; i < WIDTH; ++i) from[i] = x + std::min(i, vectors - 1) * apart;
  int64_t column = 0;
  if (TRANSPOSES && WIDTH > 1)
    for (; column + LANES <= columns; column += LANES)
      UNROLLED for (int first = 0; first < WIDTH; first += LANES) {
        Lanes all[LANES];
        UNROLLED for (int i = 0; i < LANES; ++i) all[i] = load(first + i < WIDTH ? from[first + i] + column : NONE);
        transpose(all);
        UNROLLED for (int i = 0; i < LANES; ++i) store_some(to + (column + i) * WIDTH + first, all[i], WIDTH - first);
      }
  for (to += column * WIDTH; column < columns; ++column, to += WIDTH) {
    UNROLLED for (int i = 0; i < WIDTH; ++i) to[i] = from[i][column];
  }
}

template <int WIDTH, class T>
void few(const Product<T>& product, int64_t vectors, const Output& output, int threads) {
  std::unique_ptr<float[]> turned;
  const float* x = product.x;
  if (WIDTH > 1) {
    turned.reset(new float[WIDTH * product.columns]);
    turn<WIDTH>(x, product.columns, int(vectors), product.columns, turned.get());
    x = turned.get();
  }
  const int64_t groups = groups_of(output.rows);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t group = 0; group < groups; ++group)
    few_of<WIDTH>(product.group(group), x, product.columns, output, group, vectors);
}

}  // namespace
