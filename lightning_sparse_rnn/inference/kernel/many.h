// Products of many vectors, and sums of one or two of them, whose columns then follow one another.
//
// Vectors are turned, tile by tile. Some columns of a panel, which is a few groups, are multiplied with one tile after the
// other, and meanwhile expanded into the processor's cache by the first one.

#pragma once

#include <new>
#include <type_traits>

#include "products.h"

namespace {

// So many columns are expanded at once, into at most 32 KB; so many groups one after the other are multiplied with the same
// part of x, of at most so many vectors, and their sums take 512 KB. Every thread has memory of this size, and all together
// have one for the vectors.
constexpr int64_t COLUMNS = 256, BLOCK = 16, VECTORS = 512;

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

// Weights of a few groups, as they are expanded.
template <class T>
struct Panel {
  static constexpr bool SCALED = std::is_same<T, int8_t>::value;
  Group<T> groups[GROUPS];
  float scales[SCALED ? GROUPS * LANES : 1];

  // From the group `first` on. What there is not stands for others, whose sums are not written.
  Panel(const Product<T>& product, int64_t first, int64_t rows) {
    for (int64_t g = 0; g < GROUPS; ++g) groups[g] = product.group(std::min(first + g, groups_of(rows) - 1));
    if constexpr (SCALED)
      for (int64_t i = 0; i < GROUPS * LANES; ++i) scales[i] = product.scales[std::min(first * LANES + i, rows - 1)];
  }
  Panel() = default;

  INLINE void next(Lanes (&to)[GROUPS]) {
    UNROLLED for (int g = 0; g < GROUPS; ++g) {
      to[g] = groups[g].one();
      if constexpr (SCALED) to[g] = multiply(to[g], load(scales + g * LANES));
    }
  }
};

// Expands the weights meanwhile, for the tiles after this one.
template <int WIDTH, class T>
void tile_and_expand(Panel<T>& panel, float* expanded, const float* x, int64_t columns, const Sums& sums) {
  Panel<T> here = panel;  // so that the compiler keeps it in registers
  tile<WIDTH>(
      [&](Lanes(&to)[GROUPS]) __attribute__((always_inline)) {
        here.next(to);
        UNROLLED for (int g = 0; g < GROUPS; ++g) store(expanded + g * LANES, to[g]);
        expanded += GROUPS * LANES;
      },
      x, columns, sums);
  std::copy_n(here.groups, GROUPS, panel.groups);
}

// Numbers that begin with a line of the cache, which holds 16.
struct Free {
  void operator()(float* numbers) const { ::operator delete[](numbers, std::align_val_t(64)); }
};
using Numbers = std::unique_ptr<float[], Free>;
Numbers numbers(int64_t count) {
  return Numbers(static_cast<float*>(::operator new[](count * sizeof(float), std::align_val_t(64))));
}

// Writes the sums of a panel that has rows or groups too few.
__attribute__((noinline)) inline void write_some(const Sums& sums, int64_t width, const Output& output) {
  const int64_t end = std::min<int64_t>(sums.group + GROUPS, groups_of(output.rows));
  for (int64_t i = 0; i < width; ++i)
    for (int64_t g = sums.group; g < end; ++g)
      output.write(g, sums.vector + i, load(sums.memory + ((g - sums.group) * width + i) * LANES));
}

// The groups from `begin` to `end`. x has strip after strip, in each tile after tile. `expanded` and `memory` are to work
// in, the latter for the sums.
template <class T>
void many_of(const float* x, const Product<T>* products, int count, int64_t vectors, int64_t begin, int64_t end,
             float* expanded, float* memory, const Output& output) {
  const Parts tiles{vectors, TILE};
  for (int nth = 0; nth < count; ++nth) {
    const Product<T>& product = products[nth];
    const Parts strips{product.columns, COLUMNS};
    Panel<T> panels[BLOCK / GROUPS];
    for (int64_t group = begin; group < end; group += GROUPS)
      panels[(group - begin) / GROUPS] = Panel<T>(product, group, output.rows);
    for (int64_t strip = 0; strip < strips.count; ++strip) {
      const int64_t columns = strips.size(strip);
      const bool first = nth == 0 && strip == 0, last = nth == count - 1 && strip == strips.count - 1;
      for (int64_t group = begin; group < end; group += GROUPS) {
        const bool at_once = last && (group + GROUPS) * LANES <= output.rows;
        for (int64_t t = 0; t < tiles.count; ++t) {
          const int64_t vector = tiles.first(t), width = tiles.size(t), after = vector + width;
          float* here = memory + ((group - begin) * vectors + vector * GROUPS) * LANES;
          Sums sums{here, first, nullptr, group, vector, here + GROUPS * width * LANES, GROUPS * LANES};
          if (at_once) {
            sums.output = &output;
            sums.next = output.y + (after < vectors ? after * output.rows + group * LANES : (group + GROUPS) * LANES);
            sums.apart = output.rows;
          }
          with_width(width, [&](auto w) {
            if (t == 0)
              tile_and_expand<w>(panels[(group - begin) / GROUPS], expanded, x + vector * columns, columns, sums);
            else
              tile_of_expanded<w>(expanded, x + vector * columns, columns, sums);
          });
          if (last && !at_once) write_some(sums, width, output);
        }
      }
      x += columns * vectors;
    }
  }
}

// Writes x (vectors, columns) strip after strip, in each tile after tile; returns where that ends.
inline float* turned_strips(const float* x, int64_t columns, const Parts& tiles, float* to) {
  const Parts strips{columns, COLUMNS};
#pragma omp for schedule(static)
  for (int64_t t = 0; t < tiles.count; ++t)
    for (int64_t strip = 0; strip < strips.count; ++strip) {
      const int64_t column = strips.first(strip), size = strips.size(strip), vector = tiles.first(t);
      with_width(tiles.size(t), [&](auto w) {
        turn<w>(x + vector * columns + column, columns, w, size, to + column * tiles.length + vector * size);
      });
    }
  return to + columns * tiles.length;
}

template <class T>
void many(const Product<T>* products, int count, int64_t vectors, const Output& output, int threads) {
  const int64_t groups = groups_of(output.rows);
  const Parts parts{vectors, VECTORS};
  const int64_t most = (vectors + parts.count - 1) / parts.count;
  // Blocks of whole panels, about as many for each thread.
  const Parts panels{(groups + GROUPS - 1) / GROUPS, BLOCK / GROUPS};
  const int64_t blocks = (panels.count + threads - 1) / threads * threads;
  const int64_t block = std::max<int64_t>(1, (panels.length + blocks - 1) / blocks) * GROUPS;
  int64_t columns = 0;
  for (int nth = 0; nth < count; ++nth) columns += products[nth].columns;
  const Numbers turned = numbers(most * columns);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const Numbers expanded = numbers(GROUPS * LANES * COLUMNS), memory = numbers(BLOCK * LANES * most);
    for (int64_t part = 0; part < parts.count; ++part) {
      const int64_t first = parts.first(part), size = parts.size(part);
      // Scales are in the expanded weights.
      const Output to{output.y + first * output.rows, output.rows, nullptr, output.bias};
      float* next = turned.get();
      for (int nth = 0; nth < count; ++nth)
        next = turned_strips(products[nth].x + first * products[nth].columns, products[nth].columns, {size, TILE}, next);
#pragma omp for schedule(static)
      for (int64_t begin = 0; begin < groups; begin += block)
        many_of(turned.get(), products, count, size, begin, std::min(begin + block, groups), expanded.get(),
                memory.get(), to);
    }
  }
}

template <class T>
void linear(const Product<T>& product, int64_t vectors, const Output& output, int threads) {
  if (vectors == 0) return;
  // The least of these widths that holds all vectors; those that a processor has no room for are not made.
#define WIDTH(N) \
  if (vectors <= N && N <= WIDEST) return few<(N <= WIDEST ? N : 1)>(product, vectors, output, threads);
  WIDTH(1) WIDTH(2) WIDTH(4) WIDTH(6) WIDTH(8) WIDTH(12) WIDTH(16) WIDTH(20) WIDTH(24) WIDTH(28)
#undef WIDTH
  many(&product, 1, vectors, output, threads);
}

}  // namespace
