// Sigmoid and tanh, written so that a compiler computes many of them at once. Their errors are those of rounding.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

// e^x = power · (1 + rest), by Cephes' polynomial: x = n · ln 2 + r, and n goes into the exponent. Adding 1.5 · 2^23 rounds
// to whole numbers. |x| is at most 87, so that neither e^x nor e^-x leaves the range of float32.
struct Exponential {
  float power, rest;
  explicit Exponential(float x) {
    const float magic = 12582912.0f, shifted = x * 1.44269504f + magic, n = shifted - magic;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    rest = p * (r * r) + r;
    int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = int32_t((uint32_t(bits) << 23) + 0x3f800000u);
    std::memcpy(&power, &bits, sizeof power);
  }
  // e^x + 1, and e^x - 1 without the loss of digits that there is near 0.
  float plus_one() const { return power * rest + (power + 1.0f); }
  float minus_one() const { return power * rest + (power - 1.0f); }
};

inline float within(float x, float bound) {
  x = x < -bound ? -bound : x;
  return x > bound ? bound : x;
}

inline Exponential for_sigmoid(float x) { return Exponential(within(-x, 87.0f)); }
inline float sigmoid(float x) { return 1.0f / for_sigmoid(x).plus_one(); }

// From 10 on tanh is 1.
inline Exponential for_tangent(float x) { return Exponential(within(2.0f * x, 20.0f)); }
inline float tangent(float x) {
  const Exponential twice = for_tangent(x);
  return twice.minus_one() / twice.plus_one();
}

// sigmoid(x) · tangent(y), with one division. Where the divisor overflows, sigmoid(x) is below 10^-29, and this is 0.
inline float gated_tangent(float x, float y) {
  const Exponential twice = for_tangent(y);
  return twice.minus_one() / (twice.plus_one() * for_sigmoid(x).plus_one());
}

}  // namespace
