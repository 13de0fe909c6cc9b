// The noise prologue for one thread: four coordinates of one draw, from the words to memory.
// Plain C++ that the host's compiler takes, too, so that index map and values are tested without a
// device. Every float step is a single IEEE operation in the order of cpu/noise_kernels.h (fused
// only where `fmaf` is written; compile with -fmad=false or -ffp-contract=off), so the noise has
// the bits that the CPU engine's has.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "pixeldp/noise.h"
#include "pixeldp/philox.h"

namespace pixeldp {

// What one launch computes. Row r is draw first_draw + (rest + r) % n of example
// `example` + (rest + r) / n; rows beyond the last example repeat it.
struct NoiseLaunch {
  const float* center;          // [examples, channels * pixels], in C order of [C, H, W]
  const std::int64_t* address;  // [examples]: the examples' words in the counter
  void* out;                    // [rows, pixels, channels]
  const float* scales;          // [channels], or null with shifts
  const float* shifts;
  std::uint64_t seed;
  std::int64_t rest, example, n, last_example, rows, pixels;
  std::uint32_t purpose, first_draw;
  std::int32_t channels;
  float noise_scale, slope;  // slope: 1 the identity, 0 ReLU
};

PIXELDP_HOST_DEVICE inline std::uint32_t to_bits(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

PIXELDP_HOST_DEVICE inline float from_bits(std::uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

PIXELDP_HOST_DEVICE inline float flip_sign(float x, std::uint32_t sign) {
  return from_bits(to_bits(x) ^ (sign & 0x80000000u));
}

// ln u, u = (w + 1/2) 2^-bits, worked from the nearer end.
template <int kBits>
PIXELDP_HOST_DEVICE inline float log_uniform(std::uint32_t w) {
  constexpr std::uint32_t kTop = kBits == 32 ? 0xFFFFFFFFu : 0x7FFFFFFFu;
  constexpr std::uint32_t kRoot = kBits == 32 ? 0xB504F333u : 0x5A827999u;  // u = sqrt(1/2)
  constexpr float kUnit = kBits == 32 ? 0x1p-32f : 0x1p-31f;
  const bool near_one = w > kRoot;
  const float x = static_cast<float>(near_one ? w ^ kTop : w) + 0.5f;  // in [1/2, 2^bits]
  const std::uint32_t shifted = to_bits(x) - 0x3F3504F3u;  // sqrt(1/2) starts an octave
  const std::int32_t octave = static_cast<std::int32_t>(shifted) >> 23;
  const float mantissa = from_bits(to_bits(x) - (static_cast<std::uint32_t>(octave) << 23));
  const float f = near_one ? x * -kUnit : mantissa - 1.0f;
  const float e = near_one ? 0.0f : static_cast<float>(octave) - static_cast<float>(kBits);
  float p = 7.0376836292e-2f;
  p = fmaf(p, f, -1.1514610310e-1f);
  p = fmaf(p, f, 1.1676998740e-1f);
  p = fmaf(p, f, -1.2420140846e-1f);
  p = fmaf(p, f, 1.4249322787e-1f);
  p = fmaf(p, f, -1.6668057665e-1f);
  p = fmaf(p, f, 2.0000714765e-1f);
  p = fmaf(p, f, -2.4999993993e-1f);
  p = fmaf(p, f, 3.3333331174e-1f);
  const float square = f * f;
  float log = p * f * square;
  log = fmaf(e, -2.12194440e-4f, log);
  log = fmaf(square, -0.5f, log);
  log = log + f;
  return fmaf(e, 0.693359375f, log);
}

// cos and sin of 2 pi u, u = (w + 1/2) 2^-32.
PIXELDP_HOST_DEVICE inline void turn(std::uint32_t w, float& cosine, float& sine) {
  const std::uint32_t t = w + 0x20000000u;
  const std::uint32_t rest = (t & 0x3FFFFFFFu) - 0x20000000u;
  const float phi =
      (static_cast<float>(static_cast<std::int32_t>(rest)) + 0.5f) * 1.46291807926715968e-9f;
  const float z = phi * phi;
  float s = -1.9515295891e-4f;
  s = fmaf(s, z, 8.3321608736e-3f);
  s = fmaf(s, z, -1.6666654611e-1f);
  s = fmaf(s * z, phi, phi);
  float c = 2.443315711809948e-5f;
  c = fmaf(c, z, -1.388731625493765e-3f);
  c = fmaf(c, z, 4.166664568298827e-2f);
  c = fmaf(c * z, z, fmaf(z, -0.5f, 1.0f));
  const bool odd = (t & 0x40000000u) != 0;
  cosine = flip_sign(odd ? s : c, t ^ (t + t));
  sine = flip_sign(odd ? c : s, t);
}

// The noise of one block of four words, in coordinate order.
template <Law kLaw>
PIXELDP_HOST_DEVICE inline void noise_of(const Block& words, float scale, float (&noise)[4]) {
  if constexpr (kLaw == Law::gaussian) {
    for (int i = 0; i < 4; i += 2) {
      const float radius = scale * sqrtf(log_uniform<32>(words.w[i]) * -2.0f);
      float cosine, sine;
      turn(words.w[i + 1], cosine, sine);
      noise[i] = radius * cosine;
      noise[i + 1] = radius * sine;
    }
  } else if constexpr (kLaw == Law::laplace) {
    for (int i = 0; i < 4; ++i) {
      const float log = log_uniform<31>(words.w[i] & 0x7FFFFFFFu);
      noise[i] = scale * flip_sign(log, words.w[i] ^ 0x80000000u);
    }
  } else {
    for (int i = 0; i < 4; ++i) {
      const std::int32_t centred = static_cast<std::int32_t>(words.w[i] ^ 0x80000000u);
      noise[i] = scale * ((static_cast<float>(centred) + 0.5f) * 0x1p-31f);
    }
  }
}

// Blocks of four coordinates per row.
PIXELDP_HOST_DEVICE inline std::int64_t blocks_of(const NoiseLaunch& a) {
  return (a.channels * a.pixels + 3) / 4;
}

// Block `at` of row `row`. Where blocks do not cross channels, neighbouring `at` are neighbouring
// channels, so that a warp's stores are dense in [pixels, channels].
template <Law kLaw, class Out, class Convert>
PIXELDP_HOST_DEVICE inline void noise_block(const NoiseLaunch& a, std::int64_t row, std::int64_t at,
                                            Convert convert) {
  const std::int64_t coordinates = a.channels * a.pixels;
  const std::int64_t turn_of = a.rest + row;
  std::int64_t skipped = 0;
  if (turn_of >= a.n) skipped = turn_of / a.n;
  const std::uint32_t draw = a.first_draw + static_cast<std::uint32_t>(turn_of - skipped * a.n);
  std::int64_t example = a.example + skipped;
  if (example > a.last_example) example = a.last_example;

  const bool whole = a.pixels % 4 == 0;
  const std::uint32_t place = static_cast<std::uint32_t>(at), width = a.channels;
  const std::int64_t first =
      whole ? place % width * a.pixels + 4 * static_cast<std::int64_t>(place / width) : 4 * at;
  const Block words = philox({{static_cast<std::uint32_t>(first / 4), draw,
                               static_cast<std::uint32_t>(a.address[example]), a.purpose}},
                             static_cast<std::uint32_t>(a.seed),
                             static_cast<std::uint32_t>(a.seed >> 32));
  float noise[4];
  noise_of<kLaw>(words, a.noise_scale, noise);
  for (int i = 0; i < 4; ++i) {
    const std::int64_t j = first + i;
    if (j >= coordinates) return;
    const std::int64_t channel = whole ? place % width : j / a.pixels;
    const std::int64_t pixel = j - channel * a.pixels;
    float x = a.center[example * coordinates + j] + noise[i];
    if (a.scales) x = fmaf(x, a.scales[channel], a.shifts[channel]);
    x = x > 0.0f ? x : a.slope * x;  // NaN stays NaN
    static_cast<Out*>(a.out)[row * coordinates + pixel * a.channels + channel] = convert(x);
  }
}

}  // namespace pixeldp
