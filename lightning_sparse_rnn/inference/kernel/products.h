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
#include <type_traits>

#include "lanes.h"

namespace {

// So many bytes ahead of what is read, values are fetched from memory.
constexpr int AHEAD = 1024;
// Of many vectors: so many columns are expanded at once, into at most 24 KB; so many groups one after the other are
// multiplied with the same part of x, of at most so many vectors, and their sums take 256 KB. Every thread has memory of
// this size, and all together have one for the vectors.
constexpr int64_t COLUMNS = 192, BLOCK = 16, VECTORS = 256;

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
void few(const float* x, const Group<T>& weight, const int64_t* starts, const Shape& shape, const Output& output,
         int threads) {
  std::unique_ptr<float[]> turned;
  if (WIDTH > 1) {
    turned.reset(new float[WIDTH * shape.columns]);
    turn<WIDTH>(x, shape.columns, int(shape.vectors), shape.columns, turned.get());
    x = turned.get();
  }
  const int64_t groups = shape.groups();
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t group = 0; group < groups; ++group) {
    const Group<T> here{weight.values + starts[group], weight.masks + group * shape.columns};
    few_of<WIDTH>(here, x, shape.columns, output, group, shape.vectors);
  }
}

// Many vectors. They are turned, tile by tile. Some columns of a panel, which is a few groups, are multiplied with one tile
// after the other, and meanwhile expanded into the processor's cache by the first one.

// A length in even parts, at least one: each as long as the next one, or one shorter.
struct Parts {
  int64_t length, longest, count = std::max<int64_t>(1, (length + longest - 1) / longest);
  int64_t first(int64_t nth) const { return length * nth / count; }
  int64_t size(int64_t nth) const { return first(nth + 1) - first(nth); }
};

// Vectors in a tile.
constexpr int TILE = WIDEST / GROUPS;

// Calls use with a number that the compiler knows.
template <int W = TILE, class Use>
INLINE void with_width(int64_t width, const Use& use) {
  if constexpr (W > 0) {
    if (width < W) return with_width<W - 1>(width, use);
    use(std::integral_constant<int, W>());
  }
}

// Where a tile's sums come from and go to.
struct Sums {
  float* memory;         // (GROUPS, WIDTH, 16)
  bool first;            // they begin with nothing, otherwise with what is in memory
  const Output* output;  // where they go to in the end; nothing if they go back to memory
  int64_t group, vector;
  const float* next;  // where the next vectors' sums go to, 16 for each group; they are fetched meanwhile
  int64_t apart;      // from one of these vectors to the one after it
};

// sums += weights (columns, GROUPS, 16) times x (columns, WIDTH). The weights of one column after the other are what `next`
// fills in.
template <int WIDTH, class Next>
INLINE void tile(Next next, const float* x, int64_t columns, const Sums& sums) {
  Lanes sum[GROUPS][WIDTH];
  UNROLLED for (int g = 0; g < GROUPS; ++g) {
    UNROLLED for (int i = 0; i < WIDTH; ++i) sum[g][i] = load(sums.first ? NONE : sums.memory + (g * WIDTH + i) * LANES);
  }
  const auto add_column = [&]() __attribute__((always_inline)) {
    Lanes of_column[GROUPS];
    next(of_column);
    UNROLLED for (int i = 0; i < WIDTH; ++i) {
      UNROLLED for (int g = 0; g < GROUPS; ++g) sum[g][i] = multiply_add(of_column[g], x[i], sum[g][i]);
    }
    x += WIDTH;
  };
  int64_t column = 0;
  for (; column < std::min<int64_t>(columns, GROUPS * WIDTH); ++column) {
    __builtin_prefetch(sums.next + column / GROUPS * sums.apart + column % GROUPS * LANES, 1);
    add_column();
  }
  for (; column < columns; ++column) add_column();
  UNROLLED for (int g = 0; g < GROUPS; ++g) {
    if (sums.output) {
      UNROLLED for (int i = 0; i < WIDTH; ++i) sums.output->write_whole(sums.group + g, sums.vector + i, sum[g][i]);
    } else {
      UNROLLED for (int i = 0; i < WIDTH; ++i) store(sums.memory + (g * WIDTH + i) * LANES, sum[g][i]);
    }
  }
}

// With weights that were expanded before.
template <int WIDTH>
void tile_of_expanded(const float* weights, const float* x, int64_t columns, const Sums& sums) {
  tile<WIDTH>(
      [&](Lanes(&to)[GROUPS]) __attribute__((always_inline)) {
        UNROLLED for (int g = 0; g < GROUPS; ++g) to[g] = load(weights + g * LANES);
        weights += GROUPS * LANES;
      },
      x, columns, sums);
}

// Expands the weights meanwhile, for the tiles after this one.
template <int WIDTH, class T>
void tile_and_expand(Group<T> (&groups)[GROUPS], float* expanded, const float* x, int64_t columns, const Sums& sums) {
  Group<T> here[GROUPS];
  std::copy_n(groups, GROUPS, here);
  tile<WIDTH>(
      [&](Lanes(&to)[GROUPS]) __attribute__((always_inline)) {
        UNROLLED for (int g = 0; g < GROUPS; ++g) store(expanded + g * LANES, to[g] = here[g].one());
        expanded += GROUPS * LANES;
      },
      x, columns, sums);
  std::copy_n(here, GROUPS, groups);
}

// Numbers that begin with a line of the cache, which holds 16.
struct Free {
  void operator()(float* numbers) const { ::operator delete[](numbers, std::align_val_t(64)); }
};
using Numbers = std::unique_ptr<float[], Free>;
Numbers numbers(int64_t count) {
  return Numbers(static_cast<float*>(::operator new[](count * sizeof(float), std::align_val_t(64))));
}

// One panel of GROUPS groups with all tiles of one strip of columns.
template <class T>
struct Panel {
  Group<T> groups[GROUPS];
  int64_t first, count;  // the first group, and how many there are: the last panel may have fewer

  // Whether all its rows are there to be written.
  bool whole(const Output& output) const { return count == GROUPS && (first + count) * LANES <= output.rows; }
  // Not inlined, for the sake of its registers.
  __attribute__((noinline)) void write(const float* sums, Output output, int64_t vector, int64_t width) const {
    const int64_t from = first, to = first + count;
    for (int64_t i = 0; i < width; ++i)
      for (int64_t g = from; g < to; ++g)
        output.write(g, vector + i, load(sums + ((g - from) * width + i) * LANES));
  }
};

// The groups from `begin` to `end`. x has strip after strip, in each tile after tile. `expanded` and `sums` are memory to
// work in.
template <class T>
void many_of(const float* x, const Group<T>& weight, const int64_t* starts, const Shape& shape, int64_t begin,
             int64_t end, float* expanded, float* sums, const Output& output) {
  const Parts strips{shape.columns, COLUMNS}, tiles{shape.vectors, TILE};
  const int64_t count = (end - begin + GROUPS - 1) / GROUPS;
  Panel<T> panels[BLOCK / GROUPS];
  for (int64_t p = 0; p < count; ++p) {
    const int64_t first = begin + p * GROUPS;
    panels[p].first = first;
    panels[p].count = std::min<int64_t>(GROUPS, end - first);
    for (int64_t g = 0; g < GROUPS; ++g) {
      const int64_t there = std::min(first + g, end - 1);
      panels[p].groups[g] = {weight.values + starts[there], weight.masks + there * shape.columns};
    }
  }
  for (int64_t strip = 0; strip < strips.count; ++strip) {
    const int64_t columns = strips.size(strip);
    const bool first = strip == 0, last = strip == strips.count - 1;
    for (int64_t p = 0; p < count; ++p) {
      for (int64_t t = 0; t < tiles.count; ++t) {
        const int64_t vector = tiles.first(t), width = tiles.size(t), after = vector + width;
        const float* of_x = x + strips.first(strip) * shape.vectors + vector * columns;
        float* memory = sums + (p * shape.vectors + vector) * GROUPS * LANES;
        Sums to{memory, first, nullptr, panels[p].first, vector, memory + GROUPS * width * LANES, GROUPS * LANES};
        if (last && panels[p].whole(output)) {
          to.output = &output;
          to.next = after < shape.vectors ? output.y + after * output.rows + panels[p].first * LANES
                                          : output.y + (panels[p].first + GROUPS) * LANES;
          to.apart = output.rows;
        }
        with_width(width, [&](auto w) {
          if (t == 0)
            tile_and_expand<w>(panels[p].groups, expanded, of_x, columns, to);
          else
            tile_of_expanded<w>(expanded, of_x, columns, to);
        });
        if (last && !to.output) panels[p].write(memory, output, vector, width);
      }
    }
  }
}

template <class T>
void many(const float* x, const Group<T>& weight, const int64_t* starts, const Shape& shape, const Output& output,
          int threads) {
  const int64_t groups = shape.groups();
  const Parts parts{shape.vectors, VECTORS}, strips{shape.columns, COLUMNS};
  const int64_t most = (shape.vectors + parts.count - 1) / parts.count;
  // Every thread gets some, and whole panels.
  const int64_t block = std::min(BLOCK, (groups / threads + GROUPS) / GROUPS * GROUPS);
  const Numbers turned = numbers(most * shape.columns);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const Numbers expanded = numbers(GROUPS * LANES * COLUMNS), sums = numbers(BLOCK * LANES * most);
    for (int64_t part = 0; part < parts.count; ++part) {
      const int64_t first = parts.first(part);
      const Shape here{parts.size(part), shape.rows, shape.columns};
      const Output to{output.y + first * shape.rows, shape.rows, output.scales, output.bias};
      const Parts tiles{here.vectors, TILE};
#pragma omp for schedule(static)
      for (int64_t t = 0; t < tiles.count; ++t)
        for (int64_t strip = 0; strip < strips.count; ++strip) {
          const int64_t column = strips.first(strip), columns = strips.size(strip);
          with_width(tiles.size(t), [&](auto w) {
            turn<w>(x + (first + tiles.first(t)) * shape.columns + column, shape.columns, w, columns,
                    turned.get() + column * here.vectors + tiles.first(t) * columns);
          });
        }
#pragma omp for schedule(static)
      for (int64_t begin = 0; begin < groups; begin += block)
        many_of(turned.get(), weight, starts, here, begin, std::min(begin + block, groups), expanded.get(), sums.get(),
                to);
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
