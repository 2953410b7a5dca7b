// Sigmoid and tanh, written so that a compiler makes many at once of them. Their errors are those of rounding.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

// e^x by Cephes' polynomial: x = n · ln 2 + r, and n goes into the exponent. Adding 1.5 · 2^23 rounds to whole numbers.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float magic = 12582912.0f, shifted = x * 1.44269504f + magic, n = shifted - magic;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t exponent, bits;
  std::memcpy(&exponent, &shifted, sizeof bits);
  std::memcpy(&bits, &p, sizeof bits);
  bits += int32_t(uint32_t(exponent) << 23);
  std::memcpy(&p, &bits, sizeof bits);
  return p;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

inline float tangent(float x) {
  const float square = x * x;
  float p = -5.70498872745e-3f;
  p = p * square + 2.06390887954e-2f;
  p = p * square - 5.37397155531e-2f;
  p = p * square + 1.33314422036e-1f;
  p = p * square - 3.33332819422e-1f;
  const float small = p * square * x + x, large = 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f);
  return square < 0.390625f ? small : large;
}

}  // namespace
