// Portable C++: plain loops over four blocks. `std::fma` is exact on every machine, in software
// where the hardware has none, so the bits agree with the vector units'.
#pragma once
#include <cmath>
#include <cstring>
#include <cstdint>

namespace pixeldp {
namespace {

struct Isa {
  static constexpr int kBlocks = 4;
  static constexpr int kLanes = 2 * kBlocks;
  static constexpr int kGaussianGroup = 1;
  static constexpr int kRows = 2;  // of a register tile
  struct U { std::uint64_t v[kBlocks]; };
  struct W { std::uint32_t v[kLanes]; };
  struct F { float v[kLanes]; };
  struct Mask { bool v[kLanes]; };

  template <class R, class Fn>
  static R each(Fn fn) {
    R r;
    for (int i = 0; i < static_cast<int>(sizeof(r.v) / sizeof(r.v[0])); ++i) r.v[i] = fn(i);
    return r;
  }

  static U iota(std::uint64_t first) { return each<U>([=](int i) { return first + i; }); }
  static U broadcast(std::uint32_t x) { return each<U>([=](int) { return x; }); }
  static U mul_low_halves(U a, U b) {
    return each<U>([&](int i) { return (a.v[i] & 0xFFFFFFFFu) * (b.v[i] & 0xFFFFFFFFu); });
  }
  static U shift_right_32(U a) { return each<U>([&](int i) { return a.v[i] >> 32; }); }
  static U xor3(U a, U b, U c) { return each<U>([&](int i) { return a.v[i] ^ b.v[i] ^ c.v[i]; }); }
  static W join(U low, U high) {
    return each<W>([&](int i) {
      return static_cast<std::uint32_t>(i % 2 ? high.v[i / 2] : low.v[i / 2]);
    });
  }

  static void store_bits(std::uint32_t* p, W a) { std::memcpy(p, a.v, sizeof a.v); }
  static W splat_bits(std::uint32_t x) { return each<W>([=](int) { return x; }); }
  static W xor_bits(W a, W b) { return each<W>([&](int i) { return a.v[i] ^ b.v[i]; }); }
  static W and_bits(W a, W b) { return each<W>([&](int i) { return a.v[i] & b.v[i]; }); }
  static W add_bits(W a, W b) { return each<W>([&](int i) { return a.v[i] + b.v[i]; }); }
  static W sub_bits(W a, W b) { return each<W>([&](int i) { return a.v[i] - b.v[i]; }); }
  static Mask above(W a, W b) { return each<Mask>([&](int i) { return a.v[i] > b.v[i]; }); }
  static Mask bit(W a, std::uint32_t b) { return each<Mask>([&](int i) { return (a.v[i] & b) != 0; }); }
  static W select_bits(Mask m, W a, W b) { return each<W>([&](int i) { return m.v[i] ? a.v[i] : b.v[i]; }); }

  static F splat(float x) { return each<F>([=](int) { return x; }); }
  static F load(const float* p) { return each<F>([=](int i) { return p[i]; }); }
  static void store(float* p, F a) { std::memcpy(p, a.v, sizeof a.v); }
  static F add(F a, F b) { return each<F>([&](int i) { return a.v[i] + b.v[i]; }); }
  static F sub(F a, F b) { return each<F>([&](int i) { return a.v[i] - b.v[i]; }); }
  static F mul(F a, F b) { return each<F>([&](int i) { return a.v[i] * b.v[i]; }); }
  static F fma(F a, F b, F c) { return each<F>([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); }); }
  static F div(F a, F b) { return each<F>([&](int i) { return a.v[i] / b.v[i]; }); }
  // Not fused: in networks a fused product in software would cost a function call each.
  static F mac(F a, F b, F c) { return each<F>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; }); }
  static F sqrt(F a) { return each<F>([&](int i) { return std::sqrt(a.v[i]); }); }
  static Mask greater(F a, F b) { return each<Mask>([&](int i) { return a.v[i] > b.v[i]; }); }
  static Mask is_nan(F a) { return each<Mask>([&](int i) { return a.v[i] != a.v[i]; }); }
  static F max_or_second(F a, F b) {
    return each<F>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F select(Mask m, F a, F b) { return each<F>([&](int i) { return m.v[i] ? a.v[i] : b.v[i]; }); }
  static F flip_sign(F a, W sign) {
    return each<F>([&](int i) { return from_bits(to_bits(a.v[i]) ^ (sign.v[i] & 0x80000000u)); });
  }
  static F from_unsigned(W a) { return each<F>([&](int i) { return static_cast<float>(a.v[i]); }); }
  static F from_signed(W a) {
    return each<F>([&](int i) { return static_cast<float>(static_cast<std::int32_t>(a.v[i])); });
  }
  static void split(F x, F& mantissa, F& exponent) {
    for (int i = 0; i < kLanes; ++i) {
      const std::uint32_t shifted = to_bits(x.v[i]) - 0x3F3504F3u;  // sqrt(1/2) starts an octave
      const std::uint32_t octave = static_cast<std::uint32_t>(static_cast<std::int32_t>(shifted) >> 23);
      exponent.v[i] = static_cast<float>(static_cast<std::int32_t>(octave));
      mantissa.v[i] = from_bits(to_bits(x.v[i]) - (octave << 23));
    }
  }
  static void interleave_32(F a, F b, F& first, F& second) {
    for (int i = 0; i < kLanes; ++i) {
      F& out = i < kBlocks ? first : second;
      out.v[2 * (i % kBlocks)] = a.v[i];
      out.v[2 * (i % kBlocks) + 1] = b.v[i];
    }
  }
  static void interleave_64(F a, F b, F& first, F& second) {
    for (int i = 0; i < kBlocks; ++i) {
      F& out = i < kBlocks / 2 ? first : second;
      const int at = 4 * (i % (kBlocks / 2));
      out.v[at] = a.v[2 * i];
      out.v[at + 1] = a.v[2 * i + 1];
      out.v[at + 2] = b.v[2 * i];
      out.v[at + 3] = b.v[2 * i + 1];
    }
  }
  static void transpose(F* r) {
    for (int i = 0; i < kLanes; ++i) {
      for (int j = 0; j < i; ++j) {
        const float moved = r[i].v[j];
        r[i].v[j] = r[j].v[i];
        r[j].v[i] = moved;
      }
    }
  }

 private:
  static std::uint32_t to_bits(float x) {
    std::uint32_t u;
    std::memcpy(&u, &x, sizeof u);
    return u;
  }
  static float from_bits(std::uint32_t u) {
    float x;
    std::memcpy(&x, &u, sizeof x);
    return x;
  }
};

}  // namespace
}  // namespace pixeldp
