// Products, recurrences and lookups with packed weights. Built by build.py, once for each set of instructions, and called
// through ctypes.

#include "activations.h"
#include "products.h"

namespace {

// How a cell's state follows from gates (its product with the state), inputs (the input's share of the gates, biases
// included) and the state before; rows of the gates in torch's order. h may not be written before it is read.

struct Lstm {
  static constexpr int GATES = 4;
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
  static void step(const float* gates, const float* inputs, const float*, float*, float* after, int64_t size) {
#pragma omp simd
    for (int64_t j = 0; j < size; ++j) after[j] = tangent(gates[j] + inputs[j]);
  }
};

struct Relu {
  static constexpr int GATES = 1;
  static void step(const float* gates, const float* inputs, const float*, float*, float* after, int64_t size) {
#pragma omp simd
    for (int64_t j = 0; j < size; ++j) {
      const float sum = gates[j] + inputs[j];
      after[j] = sum < 0.0f ? 0.0f : sum;
    }
  }
};

struct Steps {
  const float* inputs;   // (steps, vectors, gates · size)
  const float* h;        // (vectors, size), before the first step
  float* c;              // the same, or nothing; written over
  float* outputs;        // (steps, vectors, size)
  int64_t steps, vectors, size;
  int reversed;          // whether the last step comes first
};

template <class Cell, class T>
void recurrence(const Steps& all, const Group<T>& weight, const int64_t* starts, const float* scales, const float* bias,
                int threads) {
  const int64_t size = all.size, rows = Cell::GATES * size;
  std::unique_ptr<float[]> gates(new float[all.vectors * rows]);
  const Shape shape{all.vectors, rows, size};
  const Output output{gates.get(), rows, scales, bias};
  const float* before = all.h;
  for (int64_t step = 0; step < all.steps; ++step) {
    const int64_t at = (all.reversed ? all.steps - 1 - step : step) * all.vectors;
    linear(before, weight, starts, shape, output, threads);
    for (int64_t v = 0; v < all.vectors; ++v)
      Cell::step(gates.get() + v * rows, all.inputs + (at + v) * rows, before + v * size,
                 all.c ? all.c + v * size : nullptr, all.outputs + (at + v) * size, size);
    before = all.outputs + at * size;
  }
}

// One row of the weight.
template <class T>
void row_of(int64_t row, const uint16_t* masks, const T* values, const int64_t* starts, const float* scales,
            int64_t columns, float* to) {
  const int64_t group = row / LANES;
  const int lane = row % LANES;
  const float scale = scales ? scales[row] : 1.0f;
  const T* next = values + starts[group];
  masks += group * columns;
  for (int64_t column = 0; column < columns; ++column) {
    const uint32_t mask = masks[column];
    const float value = widen(next[__builtin_popcount(mask & ((1u << lane) - 1))]);
    to[column] = (mask >> lane & 1) ? value * scale : 0.0f;
    next += __builtin_popcount(mask);
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
void rows_of(const int64_t* indices, const Group<T>& weight, const int64_t* starts, const float* scales, int64_t count,
             int64_t columns, float* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < count; i += LANES) {
    const int64_t end = std::min<int64_t>(i + LANES, count), group = indices[i] / LANES;
    int64_t same = i;
    while (same < end && indices[same] == group * LANES + same - i) ++same;
    if (same == i + LANES) {
      const Group<T> here{weight.values + starts[group], weight.masks + group * columns};
      group_of(here, scales ? scales + group * LANES : nullptr, columns, out + i * columns);
      continue;
    }
    for (int64_t each = i; each < end; ++each)
      row_of(indices[each], weight.masks, weight.values, starts, scales, columns, out + each * columns);
  }
}

}  // namespace

// kind: 0 float32, 1 bfloat16, 2 int8.
extern "C" void packed_linear(const float* x, const uint16_t* masks, const void* values, const int64_t* starts,
                              const float* scales, const float* bias, float* y, int kind, int64_t vectors,
                              int64_t rows, int64_t columns, int threads) {
  const Shape shape{vectors, rows, columns};
  const Output output{y, rows, scales, bias};
#define OF(T) linear(x, Group<T>{static_cast<const T*>(values), masks}, starts, shape, output, threads)
  kind == 0 ? OF(float) : kind == 1 ? OF(Bfloat16) : OF(int8_t);
#undef OF
}

// mode: 0 LSTM, 1 GRU, 2 RNN with tanh, 3 RNN with ReLU.
extern "C" void packed_recurrence(const float* inputs, const float* h, float* c, const uint16_t* masks,
                                  const void* values, const int64_t* starts, const float* scales, const float* bias,
                                  float* outputs, int mode, int reversed, int kind, int64_t steps, int64_t vectors,
                                  int64_t size, int threads) {
  const Steps all{inputs, h, c, outputs, steps, vectors, size, reversed};
#define OF(CELL, T) recurrence<CELL>(all, Group<T>{static_cast<const T*>(values), masks}, starts, scales, bias, threads)
#define BY(CELL) kind == 0 ? OF(CELL, float) : kind == 1 ? OF(CELL, Bfloat16) : OF(CELL, int8_t)
  mode == 0 ? BY(Lstm) : mode == 1 ? BY(Gru) : mode == 2 ? BY(Tanh) : BY(Relu);
#undef BY
#undef OF
}

extern "C" void packed_rows(const int64_t* indices, const uint16_t* masks, const void* values, const int64_t* starts,
                            const float* scales, float* out, int kind, int64_t count, int64_t columns, int threads) {
#define OF(T) rows_of(indices, Group<T>{static_cast<const T*>(values), masks}, starts, scales, count, columns, out, threads)
  kind == 0 ? OF(float) : kind == 1 ? OF(Bfloat16) : OF(int8_t);
#undef OF
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
