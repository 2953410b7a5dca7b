// Products, recurrences and lookups with packed weights. Built by build.py, once for each set of instructions, and called
// through ctypes.

#include "activations.h"
#include "many.h"

namespace {

// How a cell's state follows from gates (its product with the state), inputs (the input's share of the gates, biases
// included) and the state before; rows of the gates in torch's order. h may not be written before it is read. ADDS: both
// are only added.

struct Lstm {
  static constexpr int GATES = 4;
  static constexpr bool ADDS = true;
  static void step(const float* gates, const float* inputs, const float*, float* c, float* after, int64_t size) {
#pragma omp simd
    for (int64_t j = 0; j < size; ++j) {
      const float f = sigmoid(gates[size + j] + inputs[size + j]);
      c[j] = f * c[j] + gated_tangent(gates[j] + inputs[j], gates[2 * size + j] + inputs[2 * size + j]);
      after[j] = gated_tangent(gates[3 * size + j] + inputs[3 * size + j], c[j]);
    }
  }
};

struct Gru {
  static constexpr int GATES = 3;
  static constexpr bool ADDS = false;
  static void step(const float* gates, const float* inputs, const float* h, float*, float* after, int64_t size) {
#pragma omp simd
    for (int64_t j = 0; j < size; ++j) {
      const float r = sigmoid(gates[j] + inputs[j]), z = sigmoid(gates[size + j] + inputs[size + j]);
      const float n = tangent(inputs[2 * size + j] + r * gates[2 * size + j]);
      after[j] = n + z * (h[j] - n);
    }
  }
};

struct Tanh {
  static constexpr int GATES = 1;
  static constexpr bool ADDS = true;
  static void step(const float* gates, const float* inputs, const float*, float*, float* after, int64_t size) {
#pragma omp simd
    for (int64_t j = 0; j < size; ++j) after[j] = tangent(gates[j] + inputs[j]);
  }
};

struct Relu {
  static constexpr int GATES = 1;
  static constexpr bool ADDS = true;
  static void step(const float* gates, const float* inputs, const float*, float*, float* after, int64_t size) {
#pragma omp simd
    for (int64_t j = 0; j < size; ++j) {
      const float sum = gates[j] + inputs[j];
      after[j] = sum < 0.0f ? 0.0f : sum;
    }
  }
};

struct Steps {
  const float* h;        // (vectors, size), before the first step
  float* c;              // the same, or nothing; written over
  float* outputs;        // (steps, vectors, size)
  int64_t steps, vectors, size;
  int reversed;          // whether the last step comes first

  // Calls use with each step's first row in (steps, vectors, …), and the outputs of the step before.
  template <class Use>
  void each(Use use) const {
    const float* before = h;
    for (int64_t step = 0; step < steps; ++step) {
      const int64_t at = (reversed ? steps - 1 - step : step) * vectors;
      use(at, before);
      before = outputs + at * size;
    }
  }
  // `inputs`: the first vector's, and how many numbers further the next one's begin.
  template <class Cell>
  void step(int64_t at, const float* before, const float* gates, const float* inputs, int64_t apart) const {
    for (int64_t v = 0; v < vectors; ++v)
      Cell::step(gates + v * Cell::GATES * size, inputs + v * apart, before + v * size, c ? c + v * size : nullptr,
                 outputs + (at + v) * size, size);
  }
};

// inputs (steps, vectors, gates · size): the input's share of the gates.
template <class Cell, class T>
void recurrence(const Steps& all, const float* inputs, Product<T> hidden, const float* bias, int threads) {
  const int64_t rows = Cell::GATES * all.size;
  std::unique_ptr<float[]> gates(new float[all.vectors * rows]);
  all.each([&](int64_t at, const float* before) {
    hidden.x = before;
    linear(hidden, all.vectors, Output{gates.get(), rows, hidden.scales, bias}, threads);
    all.step<Cell>(at, before, gates.get(), inputs + at * rows, rows);
  });
}

// Of a step's input and the state before at once, where a cell adds their products: no step's gates go through memory.
template <class Cell, class T>
void sequence(const Steps& all, Product<T> input, Product<T> hidden, const float* bias, int threads) {
  const int64_t rows = Cell::GATES * all.size;
  std::unique_ptr<float[]> gates(new float[all.vectors * rows]), nothing(new float[rows]());
  const float* x = input.x;
  all.each([&](int64_t at, const float* before) {
    input.x = x + at * input.columns;
    hidden.x = before;
    const Product<T> both[] = {input, hidden};
    many(both, 2, all.vectors, Output{gates.get(), rows, nullptr, bias}, threads);
    all.step<Cell>(at, before, gates.get(), nothing.get(), 0);
  });
}

// One row of the weight.
template <class T>
void row_of(int64_t row, const Product<T>& all, float* to) {
  Group<T> group = all.group(row / LANES);
  const int lane = row % LANES;
  const float scale = all.scales ? all.scales[row] : 1.0f;
  for (int64_t column = 0; column < all.columns; ++column) {
    const uint32_t mask = *group.masks++;
    const float value = widen(group.values[__builtin_popcount(mask & ((1u << lane) - 1))]);
    to[column] = (mask >> lane & 1) ? value * scale : 0.0f;
    group.values += __builtin_popcount(mask);
  }
}

// A whole group, 16 columns at a time, which are turned into rows.
template <class T>
void group_of(Group<T> group, const float* scales, int64_t columns, float* to) {
  for (int64_t column = 0; column < columns; column += LANES, to += LANES) {
    const int64_t count = std::min<int64_t>(LANES, columns - column);
    Lanes all[LANES];
    if (count == LANES) {
      UNROLLED for (int i = 0; i < LANES; i += 4)
        group.four([&](int nth, const Lanes& weights) __attribute__((always_inline)) { all[i + nth] = weights; });
    } else {
      for (int i = 0; i < LANES; ++i) all[i] = i < count ? group.one() : load(NONE);
    }
    transpose(all);
    UNROLLED for (int lane = 0; lane < LANES; ++lane) {
      const Lanes row = scales ? multiply_add(all[lane], scales[lane], load(NONE)) : all[lane];
      float* here = to + lane * columns;
      if (count == LANES) {
        store(here, row);
      } else {
        float some[LANES];
        store(some, row);
        std::copy_n(some, count, here);
      }
    }
  }
}

// Rows by their indices. Where 16 indices in a row name a whole group, as for a whole weight, it is expanded at once.
template <class T>
void rows_of(const int64_t* indices, const Product<T>& all, int64_t count, float* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < count; i += LANES) {
    const int64_t end = std::min<int64_t>(i + LANES, count), group = indices[i] / LANES;
    int64_t same = i;
    while (same < end && indices[same] == group * LANES + same - i) ++same;
    if (same == i + LANES) {
      group_of(all.group(group), all.scales ? all.scales + group * LANES : nullptr, all.columns, out + i * all.columns);
      continue;
    }
    for (int64_t each = i; each < end; ++each) row_of(indices[each], all, out + each * all.columns);
  }
}

// Calls use with a number of the kind that values are of: 0 float32, 1 bfloat16, 2 int8.
template <class Use>
void with_kind(int kind, const Use& use) {
  kind == 0 ? use(float()) : kind == 1 ? use(Bfloat16()) : use(int8_t());
}

// Calls use with a cell: 0 LSTM, 1 GRU, 2 RNN with tanh, 3 RNN with ReLU.
template <class Use>
void with_cell(int mode, const Use& use) {
  mode == 0 ? use(Lstm()) : mode == 1 ? use(Gru()) : mode == 2 ? use(Tanh()) : use(Relu());
}

// The product of a weight with x.
template <class T>
Product<T> product(const float* x, const uint16_t* masks, const void* values, const int64_t* starts, const float* scales,
                   int64_t columns) {
  return {x, {static_cast<const T*>(values), masks}, starts, scales, columns};
}

}  // namespace

extern "C" void packed_linear(const float* x, const uint16_t* masks, const void* values, const int64_t* starts,
                              const float* scales, const float* bias, float* y, int kind, int64_t vectors,
                              int64_t rows, int64_t columns, int threads) {
  with_kind(kind, [&](auto number) {
    const auto all = product<decltype(number)>(x, masks, values, starts, scales, columns);
    linear(all, vectors, {y, rows, scales, bias}, threads);
  });
}

extern "C" void packed_recurrence(const float* inputs, const float* h, float* c, const uint16_t* masks,
                                  const void* values, const int64_t* starts, const float* scales, const float* bias,
                                  float* outputs, int mode, int reversed, int kind, int64_t steps, int64_t vectors,
                                  int64_t size, int threads) {
  with_kind(kind, [&](auto number) {
    const auto hidden = product<decltype(number)>(nullptr, masks, values, starts, scales, size);
    with_cell(mode, [&](auto cell) {
      const Steps all{h, c, outputs, steps, vectors, size, reversed};
      recurrence<decltype(cell)>(all, inputs, hidden, bias, threads);
    });
  });
}

// As packed_recurrence, of x (steps, vectors, columns) and its weight, which is named first. Both are of one kind.
extern "C" void packed_sequence(const float* x, const float* h, float* c, const uint16_t* x_masks, const void* x_values,
                                const int64_t* x_starts, const float* x_scales, const uint16_t* masks,
                                const void* values, const int64_t* starts, const float* scales, const float* bias,
                                float* outputs, int mode, int reversed, int kind, int64_t steps, int64_t vectors,
                                int64_t columns, int64_t size, int threads) {
  with_kind(kind, [&](auto number) {
    const auto input = product<decltype(number)>(x, x_masks, x_values, x_starts, x_scales, columns);
    const auto hidden = product<decltype(number)>(nullptr, masks, values, starts, scales, size);
    with_cell(mode, [&](auto cell) {
      const Steps all{h, c, outputs, steps, vectors, size, reversed};
      if constexpr (decltype(cell)::ADDS) sequence<decltype(cell)>(all, input, hidden, bias, threads);
    });
  });
}

extern "C" void packed_rows(const int64_t* indices, const uint16_t* masks, const void* values, const int64_t* starts,
                            const float* scales, float* out, int kind, int64_t count, int64_t columns, int threads) {
  with_kind(kind, [&](auto number) {
    rows_of(indices, product<decltype(number)>(nullptr, masks, values, starts, scales, columns), count, out, threads);
  });
}

// Fills masks and, as float32, values, which has room for one more than there are.
extern "C" void pack_weight(const float* weight, int64_t rows, int64_t columns, uint16_t* masks, float* values) {
  for (int64_t row = 0; row < rows; row += LANES) {
    const int64_t live = std::min<int64_t>(LANES, rows - row);
    for (int64_t column = 0; column < columns; ++column) {
      uint32_t mask = 0;
      for (int64_t lane = 0; lane < live; ++lane) {
        const float value = weight[(row + lane) * columns + column];
        *values = value;
        values += value != 0;
        mask |= uint32_t(value != 0) << lane;
      }
      *masks++ = uint16_t(mask);
    }
  }
}
