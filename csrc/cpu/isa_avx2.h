// AVX2 and FMA: four blocks, eight float lanes.
#pragma once
#include <immintrin.h>
#include <cstdint>

namespace pixeldp {
namespace {

struct Isa {
  static constexpr int kBlocks = 4;
  static constexpr int kLanes = 2 * kBlocks;
  static constexpr int kGaussianGroup = 16;
  static constexpr int kRows = 4;  // of a register tile: 4 x 3 sums, 3 columns and a weight fill all 16
  using U = __m256i;
  using W = __m256i;
  using F = __m256;
  using Mask = __m256;

  static U iota(std::uint64_t first) {
    return _mm256_add_epi64(_mm256_set1_epi64x(static_cast<long long>(first)),
                            _mm256_setr_epi64x(0, 1, 2, 3));
  }
  static U broadcast(std::uint32_t x) { return _mm256_set1_epi64x(x); }
  static U mul_low_halves(U a, U b) { return _mm256_mul_epu32(a, b); }
  static U shift_right_32(U a) { return _mm256_srli_epi64(a, 32); }
  static U xor3(U a, U b, U c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
  static W join(U low, U high) { return _mm256_blend_epi32(low, _mm256_slli_epi64(high, 32), 0xAA); }

  static void store_bits(std::uint32_t* p, W a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a);
  }
  static W splat_bits(std::uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static W xor_bits(W a, W b) { return _mm256_xor_si256(a, b); }
  static W and_bits(W a, W b) { return _mm256_and_si256(a, b); }
  static W add_bits(W a, W b) { return _mm256_add_epi32(a, b); }
  static W sub_bits(W a, W b) { return _mm256_sub_epi32(a, b); }
  static Mask above(W a, W b) {  // unsigned, by moving both ranges to the signed one
    const W top = splat_bits(0x80000000u);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(xor_bits(a, top), xor_bits(b, top)));
  }
  static Mask bit(W a, std::uint32_t b) {
    const W mask = splat_bits(b);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(and_bits(a, mask), mask));
  }
  static W select_bits(Mask m, W a, W b) {
    return _mm256_blendv_epi8(b, a, _mm256_castps_si256(m));
  }

  static F splat(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F a) { _mm256_storeu_ps(p, a); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F mac(F a, F b, F c) { return fma(a, b, c); }
  static F sqrt(F a) { return _mm256_sqrt_ps(a); }
  static Mask greater(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
  static Mask is_nan(F a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
  static F max_or_second(F a, F b) { return _mm256_max_ps(a, b); }
  static F select(Mask m, F a, F b) { return _mm256_blendv_ps(b, a, m); }
  static F flip_sign(F a, W sign) {
    return _mm256_xor_ps(a, _mm256_castsi256_ps(and_bits(sign, splat_bits(0x80000000u))));
  }
  static F from_signed(W a) { return _mm256_cvtepi32_ps(a); }
  static F from_unsigned(W a) {  // both halves are exact, so the fused sum rounds once
    const F high = _mm256_cvtepi32_ps(_mm256_srli_epi32(a, 16));
    const F low = _mm256_cvtepi32_ps(and_bits(a, splat_bits(0xFFFFu)));
    return _mm256_fmadd_ps(high, splat(65536.0f), low);
  }
  static void split(F x, F& mantissa, F& exponent) {
    const W bits = _mm256_castps_si256(x);
    const W octave = _mm256_srai_epi32(sub_bits(bits, splat_bits(0x3F3504F3u)), 23);
    exponent = _mm256_cvtepi32_ps(octave);
    mantissa = _mm256_castsi256_ps(sub_bits(bits, _mm256_slli_epi32(octave, 23)));
  }
  static void interleave_32(F a, F b, F& first, F& second) {
    const F low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
    first = _mm256_permute2f128_ps(low, high, 0x20);
    second = _mm256_permute2f128_ps(low, high, 0x31);
  }
  static void interleave_64(F a, F b, F& first, F& second) {
    const __m256d x = _mm256_castps_pd(a), y = _mm256_castps_pd(b);
    const F low = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
    const F high = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
    first = _mm256_permute2f128_ps(low, high, 0x20);
    second = _mm256_permute2f128_ps(low, high, 0x31);
  }
  static void transpose(F* r) {
    F t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {  // u[i + k], half h: column 4 h + k of rows i to i + 3
      u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
      u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
      u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
    for (int k = 0; k < 4; ++k) {
      r[k] = _mm256_permute2f128_ps(u[k], u[4 + k], 0x20);
      r[4 + k] = _mm256_permute2f128_ps(u[k], u[4 + k], 0x31);
    }
  }
};

}  // namespace
}  // namespace pixeldp
