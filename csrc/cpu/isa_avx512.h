// AVX-512 (F, DQ, BW, VL): eight blocks, sixteen float lanes.
#pragma once
#include <immintrin.h>
#include <cstdint>

namespace pixeldp {
namespace {

struct Isa {
  static constexpr int kBlocks = 8;
  static constexpr int kLanes = 2 * kBlocks;
  static constexpr int kGaussianGroup = 1;
  static constexpr int kRows = 8;  // of a register tile: 8 x 3 sums, 3 columns and a weight of 32
  using U = __m512i;
  using W = __m512i;
  using F = __m512;
  using Mask = __mmask16;

  static U iota(std::uint64_t first) {
    return _mm512_add_epi64(_mm512_set1_epi64(static_cast<long long>(first)),
                            _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static U broadcast(std::uint32_t x) { return _mm512_set1_epi64(x); }
  static U mul_low_halves(U a, U b) { return _mm512_mul_epu32(a, b); }
  static U shift_right_32(U a) { return _mm512_srli_epi64(a, 32); }
  static U xor3(U a, U b, U c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
  static W join(U low, U high) {
    return _mm512_mask_blend_epi32(0xAAAA, low, _mm512_slli_epi64(high, 32));
  }

  static void store_bits(std::uint32_t* p, W a) { _mm512_storeu_si512(p, a); }
  static W splat_bits(std::uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static W xor_bits(W a, W b) { return _mm512_xor_si512(a, b); }
  static W and_bits(W a, W b) { return _mm512_and_si512(a, b); }
  static W add_bits(W a, W b) { return _mm512_add_epi32(a, b); }
  static W sub_bits(W a, W b) { return _mm512_sub_epi32(a, b); }
  static Mask above(W a, W b) { return _mm512_cmpgt_epu32_mask(a, b); }
  static Mask bit(W a, std::uint32_t b) { return _mm512_test_epi32_mask(a, splat_bits(b)); }
  static W select_bits(Mask m, W a, W b) { return _mm512_mask_blend_epi32(m, b, a); }

  static F splat(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F mac(F a, F b, F c) { return fma(a, b, c); }
  static F sqrt(F a) { return _mm512_sqrt_ps(a); }
  static Mask greater(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static Mask is_nan(F a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
  static F max_or_second(F a, F b) { return _mm512_max_ps(a, b); }
  static F select(Mask m, F a, F b) { return _mm512_mask_blend_ps(m, b, a); }
  static F flip_sign(F a, W sign) {  // a ^ (sign & top bit)
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(a), sign,
                                                         splat_bits(0x80000000u), 0x78));
  }
  static F from_signed(W a) { return _mm512_cvtepi32_ps(a); }
  static F from_unsigned(W a) { return _mm512_cvtepu32_ps(a); }
  static void split(F x, F& mantissa, F& exponent) {
    const W bits = _mm512_castps_si512(x);
    const W octave = _mm512_srai_epi32(sub_bits(bits, splat_bits(0x3F3504F3u)), 23);
    exponent = _mm512_cvtepi32_ps(octave);
    mantissa = _mm512_castsi512_ps(sub_bits(bits, _mm512_slli_epi32(octave, 23)));
  }
  static void interleave_32(F a, F b, F& first, F& second) {
    const W low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const W high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    first = _mm512_permutex2var_ps(a, low, b);
    second = _mm512_permutex2var_ps(a, high, b);
  }
  static void interleave_64(F a, F b, F& first, F& second) {
    const W low = _mm512_setr_epi32(0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23);
    const W high = _mm512_setr_epi32(8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31);
    first = _mm512_permutex2var_ps(a, low, b);
    second = _mm512_permutex2var_ps(a, high, b);
  }
  static void transpose(F* r) {
    F t[16], u[16];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {  // u[i + k], quarter q: column 4 q + k of rows i to i + 3
      u[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
      u[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xEE);
      u[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      u[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
    for (int k = 0; k < 4; ++k) {
      const F even_top = _mm512_shuffle_f32x4(u[k], u[4 + k], 0x88);
      const F even_low = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0x88);
      const F odd_top = _mm512_shuffle_f32x4(u[k], u[4 + k], 0xDD);
      const F odd_low = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0xDD);
      r[k] = _mm512_shuffle_f32x4(even_top, even_low, 0x88);
      r[4 + k] = _mm512_shuffle_f32x4(odd_top, odd_low, 0x88);
      r[8 + k] = _mm512_shuffle_f32x4(even_top, even_low, 0xDD);
      r[12 + k] = _mm512_shuffle_f32x4(odd_top, odd_low, 0xDD);
    }
  }
};

}  // namespace
}  // namespace pixeldp
