// The noise kernels, written once over an instruction set. Included by one translation unit per
// instruction set, after its `Isa`. Everything is in an unnamed namespace and no standard template
// is instantiated here: the linker must never share a copy compiled for a wider machine.
//
// Philox words stay in the low halves of 64-bit lanes, one block per lane: a round is two products,
// two shifts and two three-way xors, without packing. All float steps are single IEEE operations in
// a fixed order (fused only where `fma` is written), so that every instruction set gives one result.
#pragma once
#include "pixeldp/noise.h"
#include "pixeldp/philox.h"

namespace pixeldp {
namespace {

using U = Isa::U;  // kBlocks lanes of 64 bits
using W = Isa::W;  // 2 * kBlocks lanes of 32 bits
using F = Isa::F;  // 2 * kBlocks lanes of float32
constexpr int kBlocks = Isa::kBlocks;
constexpr int kStep = 4 * kBlocks;  // coordinates made at once

struct Words {
  U c0, c1, c2, c3;
};

// The round keys of one seed, spread over the lanes once per row.
struct Keys {
  U k0[kPhiloxRounds], k1[kPhiloxRounds];

  explicit Keys(std::uint64_t seed) {
    std::uint32_t low = static_cast<std::uint32_t>(seed);
    std::uint32_t high = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      k0[round] = Isa::broadcast(low);
      k1[round] = Isa::broadcast(high);
      low += kPhiloxW0;
      high += kPhiloxW1;
    }
  }
};

inline Words philox_words(std::uint64_t first_block, const Row& row, const Keys& keys) {
  Words c = {Isa::iota(first_block), Isa::broadcast(row.draw), Isa::broadcast(row.example),
             Isa::broadcast(row.purpose)};
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const U p0 = Isa::mul_low_halves(c.c0, Isa::broadcast(kPhiloxM0));
    const U p1 = Isa::mul_low_halves(c.c2, Isa::broadcast(kPhiloxM1));
    // High halves of c1 and c3 keep rubbish; only low halves are ever read.
    c = {Isa::xor3(Isa::shift_right_32(p1), c.c1, keys.k0[round]), p1,
         Isa::xor3(Isa::shift_right_32(p0), c.c3, keys.k1[round]), p0};
  }
  return c;
}

// ln u, u = (w + 1/2) 2^-bits, worked from the nearer end: full relative precision everywhere.
// Polynomial of degree 9 after Cephes' logf (S. Moshier); below 1.5 units in the last place.
template <int kBits>
inline F log_uniform(W w) {
  constexpr std::uint32_t kTop = kBits == 32 ? 0xFFFFFFFFu : 0x7FFFFFFFu;
  constexpr std::uint32_t kRoot = kBits == 32 ? 0xB504F333u : 0x5A827999u;  // u = sqrt(1/2)
  constexpr float kUnit = kBits == 32 ? 0x1p-32f : 0x1p-31f;
  const auto near_one = Isa::above(w, Isa::splat_bits(kRoot));
  const W from_end = Isa::select_bits(near_one, Isa::xor_bits(w, Isa::splat_bits(kTop)), w);
  const F x = Isa::add(Isa::from_unsigned(from_end), Isa::splat(0.5f));  // in [1/2, 2^bits]
  F mantissa, exponent;
  Isa::split(x, mantissa, exponent);  // x = mantissa 2^exponent, mantissa in [sqrt(1/2), sqrt(2))
  const F f = Isa::select(near_one, Isa::mul(x, Isa::splat(-kUnit)),
                          Isa::sub(mantissa, Isa::splat(1.0f)));
  const F e = Isa::select(near_one, Isa::splat(0.0f),
                          Isa::sub(exponent, Isa::splat(static_cast<float>(kBits))));
  F p = Isa::splat(7.0376836292e-2f);
  p = Isa::fma(p, f, Isa::splat(-1.1514610310e-1f));
  p = Isa::fma(p, f, Isa::splat(1.1676998740e-1f));
  p = Isa::fma(p, f, Isa::splat(-1.2420140846e-1f));
  p = Isa::fma(p, f, Isa::splat(1.4249322787e-1f));
  p = Isa::fma(p, f, Isa::splat(-1.6668057665e-1f));
  p = Isa::fma(p, f, Isa::splat(2.0000714765e-1f));
  p = Isa::fma(p, f, Isa::splat(-2.4999993993e-1f));
  p = Isa::fma(p, f, Isa::splat(3.3333331174e-1f));
  const F square = Isa::mul(f, f);
  F log = Isa::mul(Isa::mul(p, f), square);
  log = Isa::fma(e, Isa::splat(-2.12194440e-4f), log);
  log = Isa::fma(square, Isa::splat(-0.5f), log);
  log = Isa::add(log, f);
  return Isa::fma(e, Isa::splat(0.693359375f), log);
}

// cos and sin of 2 pi u, u = (w + 1/2) 2^-32. An eighth of a turn is added, so that the top two
// bits number the nearest quarter and the rest is the way from it; their signs and which of the two
// is which are read off those bits. Polynomials after Cephes' sinf and cosf on [-pi/4, pi/4].
inline void turn(W w, F& cosine, F& sine) {
  const W eighth = Isa::splat_bits(0x20000000u);
  const W t = Isa::add_bits(w, eighth);
  const W rest = Isa::sub_bits(Isa::and_bits(t, Isa::splat_bits(0x3FFFFFFFu)), eighth);
  const F phi = Isa::mul(Isa::add(Isa::from_signed(rest), Isa::splat(0.5f)),
                         Isa::splat(1.46291807926715968e-9f));  // 2 pi 2^-32
  const F z = Isa::mul(phi, phi);
  F s = Isa::splat(-1.9515295891e-4f);
  s = Isa::fma(s, z, Isa::splat(8.3321608736e-3f));
  s = Isa::fma(s, z, Isa::splat(-1.6666654611e-1f));
  s = Isa::fma(Isa::mul(s, z), phi, phi);
  F c = Isa::splat(2.443315711809948e-5f);
  c = Isa::fma(c, z, Isa::splat(-1.388731625493765e-3f));
  c = Isa::fma(c, z, Isa::splat(4.166664568298827e-2f));
  c = Isa::fma(Isa::mul(c, z), z, Isa::fma(z, Isa::splat(-0.5f), Isa::splat(1.0f)));
  const auto odd = Isa::bit(t, 0x40000000u);
  cosine = Isa::flip_sign(Isa::select(odd, s, c), Isa::xor_bits(t, Isa::add_bits(t, t)));
  sine = Isa::flip_sign(Isa::select(odd, c, s), t);
}

// Words 0 and 2 give the radius, 1 and 3 the angle; cosine, then sine, in coordinate order.
inline void gaussian_step(const Words& c, F scale, F& first, F& second) {
  const F log = log_uniform<32>(Isa::join(c.c0, c.c2));
  const F radius = Isa::mul(scale, Isa::sqrt(Isa::mul(log, Isa::splat(-2.0f))));
  F cosine, sine;
  turn(Isa::join(c.c1, c.c3), cosine, sine);
  Isa::interleave_32(Isa::mul(radius, cosine), Isa::mul(radius, sine), first, second);
}

// The top bit is the sign. ln u is negative: it is flipped where that bit is clear.
inline F laplace_unit(W w) {
  const F log = log_uniform<31>(Isa::and_bits(w, Isa::splat_bits(0x7FFFFFFFu)));
  return Isa::flip_sign(log, Isa::xor_bits(w, Isa::splat_bits(0x80000000u)));
}

inline F uniform_unit(W w) {
  const W centred = Isa::xor_bits(w, Isa::splat_bits(0x80000000u));
  return Isa::mul(Isa::add(Isa::from_signed(centred), Isa::splat(0.5f)), Isa::splat(0x1p-31f));
}

template <Law kLaw>
inline void step(const Words& c, F scale, F& first, F& second) {
  if constexpr (kLaw == Law::gaussian) {
    gaussian_step(c, scale, first, second);
  } else {
    const W low = Isa::join(c.c0, c.c1), high = Isa::join(c.c2, c.c3);
    const F a = kLaw == Law::laplace ? laplace_unit(low) : uniform_unit(low);
    const F b = kLaw == Law::laplace ? laplace_unit(high) : uniform_unit(high);
    Isa::interleave_64(Isa::mul(scale, a), Isa::mul(scale, b), first, second);
  }
}

// Steps whose words are made before any of their floats. Apart, each phase is short enough for the
// processor to overlap several steps; chained, it waits on latencies. Measured on Zen 4, groups of
// 1 to 16: AVX2 gains 1.2 times at 16; AVX-512 too, except that Gaussian steps are best at 1.
template <Law kLaw>
constexpr int kGroup = kLaw == Law::gaussian ? Isa::kGaussianGroup : 16;

template <Law kLaw>
void fill_row(float scale_value, const Row& row, const float* center, float* out) {
  const F scale = Isa::splat(scale_value);
  const Keys keys(row.seed);
  Words words[kGroup<kLaw>];
  const std::uint64_t first_block = static_cast<std::uint64_t>(row.first / 4);
  const std::int64_t whole_steps = row.coordinates / kStep;
  for (std::int64_t first_step = 0; first_step < whole_steps; first_step += kGroup<kLaw>) {
    const std::int64_t left = whole_steps - first_step;
    const int steps = left < kGroup<kLaw> ? static_cast<int>(left) : kGroup<kLaw>;
    for (int s = 0; s < steps; ++s) {
      words[s] = philox_words(first_block + static_cast<std::uint64_t>((first_step + s) * kBlocks),
                              row, keys);
    }
    for (int s = 0; s < steps; ++s) {
      const std::int64_t j = (first_step + s) * kStep;
      F first, second;
      step<kLaw>(words[s], scale, first, second);
      Isa::store(out + j, Isa::add(Isa::load(center + j), first));
      Isa::store(out + j + kStep / 2, Isa::add(Isa::load(center + j + kStep / 2), second));
    }
  }
  const std::int64_t j = whole_steps * kStep;
  if (j < row.coordinates) {
    float rest[kStep];
    F first, second;
    const std::uint64_t block = first_block + static_cast<std::uint64_t>(j / 4);
    step<kLaw>(philox_words(block, row, keys), scale, first, second);
    Isa::store(rest, first);
    Isa::store(rest + kStep / 2, second);
    for (std::int64_t i = j; i < row.coordinates; ++i) out[i] = center[i] + rest[i - j];
  }
}

void add_noise_row(Law law, float scale, const Row& row, const float* center, float* out) {
  switch (law) {
    case Law::gaussian: return fill_row<Law::gaussian>(scale, row, center, out);
    case Law::laplace: return fill_row<Law::laplace>(scale, row, center, out);
    case Law::uniform: return fill_row<Law::uniform>(scale, row, center, out);
  }
}

}  // namespace
}  // namespace pixeldp
