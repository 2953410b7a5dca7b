// 16 numbers at once, by each set of instructions. The compiler's options say which one it is.
//
//   Lanes                          16 numbers
//   load, store                    16 that stand together in memory
//   store_some(to, v, count)       the first `count` of them, or all
//   multiply_add(v, x, sum)        v · x + sum for each of the 16
//   multiply(a, b), add(a, b)
//   expand(values, mask)           the next values at the set bits of the mask, 0 at the others; reads up to 16 values
//   expand_four(values, bits, to)  the same for four columns, where there are instructions for it; reads up to 64
//   transpose(all)                 16 times 16 numbers: the first of each, then the second of each, and so on
//   TRANSPOSES                     whether that is faster than number by number
//   WIDEST                         of how many vectors the sums fit into registers
//   GROUPS                         how many groups of 16 rows a tile has

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(PORTABLE)
#elif defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 32")

constexpr int LANES = 16;
constexpr float NONE[LANES] = {};

struct Bfloat16 {
  uint16_t bits;
};

INLINE float widen(float value) { return value; }
INLINE float widen(int8_t value) { return value; }
INLINE float widen(Bfloat16 value) {
  uint32_t bits = uint32_t(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

#if defined(PORTABLE)

constexpr int WIDEST = 4, GROUPS = 1;
struct Lanes {
  float at[LANES];
};
INLINE Lanes load(const float* from) {
  Lanes result;
  std::memcpy(result.at, from, sizeof result.at);
  return result;
}
INLINE void store(float* to, const Lanes& v) { std::memcpy(to, v.at, sizeof v.at); }
INLINE Lanes multiply_add(const Lanes& v, float x, Lanes sum) {
  for (int i = 0; i < LANES; ++i) sum.at[i] += v.at[i] * x;
  return sum;
}
INLINE Lanes multiply(Lanes a, const Lanes& b) {
  for (int i = 0; i < LANES; ++i) a.at[i] *= b.at[i];
  return a;
}
INLINE Lanes add(Lanes a, const Lanes& b) {
  for (int i = 0; i < LANES; ++i) a.at[i] += b.at[i];
  return a;
}
template <class T>
INLINE Lanes expand(const T* values, uint32_t mask) {
  Lanes result;
  for (int i = 0; i < LANES; ++i) result.at[i] = (mask >> i & 1) ? widen(*values++) : 0.0f;
  return result;
}

#elif defined(__AVX512F__)

constexpr int WIDEST = 28, GROUPS = 2;
constexpr bool TRANSPOSES = true;
using Lanes = __m512;
INLINE Lanes load(const float* from) { return _mm512_loadu_ps(from); }
INLINE void store(float* to, Lanes v) { _mm512_storeu_ps(to, v); }
INLINE void store_some(float* to, Lanes v, int count) {
  count < LANES ? _mm512_mask_storeu_ps(to, __mmask16((1 << count) - 1), v) : store(to, v);
}
INLINE Lanes multiply_add(Lanes v, float x, Lanes sum) { return _mm512_fmadd_ps(v, _mm512_set1_ps(x), sum); }
INLINE Lanes multiply(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }
INLINE Lanes add(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
INLINE Lanes expand(const float* values, uint32_t mask) {
  return _mm512_maskz_expand_ps(__mmask16(mask), _mm512_loadu_ps(values));
}
INLINE Lanes expand(const Bfloat16* values, uint32_t mask) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)));
  return _mm512_maskz_expand_ps(__mmask16(mask), _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)));
}
INLINE Lanes expand(const int8_t* values, uint32_t mask) {
  __m512i wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
  return _mm512_cvtepi32_ps(_mm512_maskz_expand_epi32(__mmask16(mask), wide));
}

// In four steps: numbers of two rows side by side, of four, then blocks of four numbers of two rows, and of four.
INLINE void transpose(Lanes (&all)[LANES]) {
  Lanes by[LANES];
  UNROLLED for (int i = 0; i < LANES; i += 2) {
    by[i] = _mm512_unpacklo_ps(all[i], all[i + 1]);
    by[i + 1] = _mm512_unpackhi_ps(all[i], all[i + 1]);
  }
  const auto low = [](Lanes a, Lanes b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto high = [](Lanes a, Lanes b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  UNROLLED for (int i = 0; i < LANES; i += 4) {
    all[i] = low(by[i], by[i + 2]);
    all[i + 1] = high(by[i], by[i + 2]);
    all[i + 2] = low(by[i + 1], by[i + 3]);
    all[i + 3] = high(by[i + 1], by[i + 3]);
  }
  constexpr int EVEN = 0x88, ODD = 0xdd;  // which blocks of the first one, and of the second
  UNROLLED for (int i = 0; i < 4; ++i) {
    by[i] = _mm512_shuffle_f32x4(all[i], all[i + 4], EVEN);
    by[i + 4] = _mm512_shuffle_f32x4(all[i], all[i + 4], ODD);
    by[i + 8] = _mm512_shuffle_f32x4(all[i + 8], all[i + 12], EVEN);
    by[i + 12] = _mm512_shuffle_f32x4(all[i + 8], all[i + 12], ODD);
  }
  UNROLLED for (int i = 0; i < 8; ++i) {
    all[i] = _mm512_shuffle_f32x4(by[i], by[i + 8], EVEN);
    all[i + 8] = _mm512_shuffle_f32x4(by[i], by[i + 8], ODD);
  }
}

#ifdef __AVX512VBMI2__
// Values of one or two bytes are expanded four columns, or two, at a time.
INLINE void expand_four(const int8_t* values, uint64_t bits, Lanes (&to)[4]) {
  const __m512i all = _mm512_maskz_expand_epi8(bits, _mm512_loadu_si512(values));
  to[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm512_castsi512_si128(all)));
  to[1] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm512_extracti32x4_epi32(all, 1)));
  to[2] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm512_extracti32x4_epi32(all, 2)));
  to[3] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm512_extracti32x4_epi32(all, 3)));
}
INLINE Lanes widened(__m256i values) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
}
INLINE void expand_four(const Bfloat16* values, uint64_t bits, Lanes (&to)[4]) {
  const uint32_t first = uint32_t(bits), last = uint32_t(bits >> 32);
  const __m512i low = _mm512_maskz_expand_epi16(first, _mm512_loadu_si512(values));
  const __m512i high = _mm512_maskz_expand_epi16(last, _mm512_loadu_si512(values + __builtin_popcount(first)));
  to[0] = widened(_mm512_castsi512_si256(low));
  to[1] = widened(_mm512_extracti64x4_epi64(low, 1));
  to[2] = widened(_mm512_castsi512_si256(high));
  to[3] = widened(_mm512_extracti64x4_epi64(high, 1));
}
#endif

#elif defined(__AVX2__)

// AVX2 cannot expand: for each 8 bits there is a permutation, whose highest bits say what is kept.
struct Permutations {
  alignas(32) int32_t of[256][8];
  constexpr Permutations() : of() {
    for (int mask = 0; mask < 256; ++mask)
      for (int i = 0, next = 0; i < 8; ++i) of[mask][i] = (mask >> i & 1) ? int32_t(0x80000000u | next++) : 0;
  }
};
constexpr Permutations PERMUTATIONS;

constexpr int WIDEST = 6, GROUPS = 1;
struct Lanes {
  __m256 low, high;
};
INLINE Lanes load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
INLINE void store(float* to, Lanes v) {
  _mm256_storeu_ps(to, v.low);
  _mm256_storeu_ps(to + 8, v.high);
}
INLINE Lanes multiply_add(Lanes v, float x, Lanes sum) {
  __m256 all = _mm256_set1_ps(x);
  return {_mm256_fmadd_ps(v.low, all, sum.low), _mm256_fmadd_ps(v.high, all, sum.high)};
}
INLINE Lanes multiply(Lanes a, Lanes b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
INLINE Lanes add(Lanes a, Lanes b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
INLINE __m256 eight(const float* values) { return _mm256_loadu_ps(values); }
INLINE __m256 eight(const Bfloat16* values) {
  __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
INLINE __m256 eight(const int8_t* values) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(values))));
}
INLINE __m256 permuted(__m256 values, uint32_t mask) {
  __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(PERMUTATIONS.of[mask]));
  return _mm256_blendv_ps(_mm256_setzero_ps(), _mm256_permutevar8x32_ps(values, order), _mm256_castsi256_ps(order));
}
template <class T>
INLINE Lanes expand(const T* values, uint32_t mask) {
  uint32_t low = mask & 0xff;
  return {permuted(eight(values), low), permuted(eight(values + __builtin_popcount(low)), mask >> 8)};
}

#elif defined(__ARM_NEON)

// A table lookup of bytes gives 0 where the index is beyond the table.
struct Lookups {
  alignas(16) uint8_t of[16][16];
  constexpr Lookups() : of() {
    for (int mask = 0; mask < 16; ++mask)
      for (int i = 0, next = 0; i < 4; ++i) {
        bool live = mask >> i & 1;
        for (int byte = 0; byte < 4; ++byte) of[mask][4 * i + byte] = live ? uint8_t(4 * next + byte) : 255;
        next += live;
      }
  }
};
constexpr Lookups LOOKUPS;

constexpr int WIDEST = 4, GROUPS = 1;
struct Lanes {
  float32x4_t at[4];
};
INLINE Lanes load(const float* from) {
  return {{vld1q_f32(from), vld1q_f32(from + 4), vld1q_f32(from + 8), vld1q_f32(from + 12)}};
}
INLINE void store(float* to, const Lanes& v) {
  for (int i = 0; i < 4; ++i) vst1q_f32(to + 4 * i, v.at[i]);
}
INLINE Lanes multiply_add(const Lanes& v, float x, Lanes sum) {
  for (int i = 0; i < 4; ++i) sum.at[i] = vfmaq_n_f32(sum.at[i], v.at[i], x);
  return sum;
}
INLINE Lanes multiply(Lanes a, const Lanes& b) {
  for (int i = 0; i < 4; ++i) a.at[i] = vmulq_f32(a.at[i], b.at[i]);
  return a;
}
INLINE Lanes add(Lanes a, const Lanes& b) {
  for (int i = 0; i < 4; ++i) a.at[i] = vaddq_f32(a.at[i], b.at[i]);
  return a;
}
INLINE float32x4_t four(const float* values) { return vld1q_f32(values); }
INLINE float32x4_t four(const Bfloat16* values) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(values)), 16));
}
INLINE float32x4_t four(const int8_t* values) {
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vld1_s8(values)))));
}
template <class T>
INLINE Lanes expand(const T* values, uint32_t mask) {
  Lanes result;
  for (int i = 0; i < 4; ++i) {
    uint32_t part = mask >> (4 * i) & 15;
    uint8x16_t bytes = vqtbl1q_u8(vreinterpretq_u8_f32(four(values)), vld1q_u8(LOOKUPS.of[part]));
    result.at[i] = vreinterpretq_f32_u8(bytes);
    values += __builtin_popcount(part);
  }
  return result;
}

#else
#error "These instructions are not known: give -DPORTABLE."
#endif

#if defined(PORTABLE) || !defined(__AVX512F__)
constexpr bool TRANSPOSES = false;
INLINE void store_some(float* to, Lanes v, int count) {
  float all[LANES];
  store(all, v);
  for (int i = 0; i < std::min(count, LANES); ++i) to[i] = all[i];
}
INLINE void transpose(Lanes (&all)[LANES]) {
  float before[LANES * LANES], after[LANES];
  for (int i = 0; i < LANES; ++i) store(before + i * LANES, all[i]);
  for (int i = 0; i < LANES; ++i) {
    for (int j = 0; j < LANES; ++j) after[j] = before[j * LANES + i];
    all[i] = load(after);
  }
}
#endif
