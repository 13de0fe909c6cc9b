// The light operations: pooling, scales and shifts, sums, slices.
#pragma once
#include "pixeldp/kernels.h"

namespace pixeldp {
namespace {

// The larger one; NaN if either is.
inline F maximum(F a, F b) { return Isa::select(Isa::is_nan(a), a, Isa::max_or_second(a, b)); }

void pool(const Pool& op, std::int64_t blocks, const float* x, float* y) {
  const std::int64_t vector = op.in.c * kLanes;
  for (std::int64_t block = 0; block < blocks; ++block) {
    for (std::int64_t i = 0; i < op.out.h; ++i) {
      for (std::int64_t j = 0; j < op.out.w; ++j) {
        for (std::int64_t c = 0; c < vector; c += kLanes) {
          F value = Isa::splat(op.divisors ? 0.0f : -__builtin_inff());
          for (std::int64_t row = op.rows[2 * i]; row < op.rows[2 * i + 1]; ++row) {
            for (std::int64_t col = op.columns[2 * j]; col < op.columns[2 * j + 1]; ++col) {
              const F next = Isa::load(x + (row * op.in.w + col) * vector + c);
              value = op.divisors ? Isa::add(value, next) : maximum(value, next);
            }
          }
          if (op.divisors) value = Isa::div(value, Isa::splat(op.divisors[i * op.out.w + j]));
          Isa::store(y + (i * op.out.w + j) * vector + c, value);
        }
      }
    }
    x += op.in.size() * kLanes;
    y += op.out.size() * kLanes;
  }
}

void affine(const Affine& op, std::int64_t blocks, const float* x, float* y) {
  const std::int64_t pixels = blocks * op.shape.h * op.shape.w;
  for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (std::int64_t c = 0; c < op.shape.c; ++c, x += kLanes, y += kLanes) {
      F value = Isa::load(x);
      if (op.scale) value = Isa::mul(value, Isa::splat(op.scale[c]));
      if (op.shift) value = Isa::add(value, Isa::splat(op.shift[c]));
      Isa::store(y, activated(value, op.slope));
    }
  }
}

void add(const Add& op, std::int64_t blocks, const float* a, const float* b, float* y) {
  const std::int64_t end = blocks * op.shape.size() * kLanes;
  for (std::int64_t i = 0; i < end; i += kLanes) {
    Isa::store(y + i, activated(Isa::add(Isa::load(a + i), Isa::load(b + i)), op.slope));
  }
}

void slice_pad(const SlicePad& op, std::int64_t blocks, const float* x, float* y) {
  for (std::int64_t block = 0; block < blocks; ++block) {
    for (std::int64_t i = 0; i < op.out.h; ++i) {
      for (std::int64_t j = 0; j < op.out.w; ++j) {
        const std::int64_t from = i * op.stride_h * op.in.w + j * op.stride_w;
        for (std::int64_t c = 0; c < op.out.c; ++c, y += kLanes) {
          const bool inside = c >= op.low && c < op.low + op.in.c;
          Isa::store(y, inside ? Isa::load(x + (from * op.in.c + c - op.low) * kLanes)
                               : Isa::splat(0.0f));
        }
      }
    }
    x += op.in.size() * kLanes;
  }
}

double fma_burst(std::int64_t steps, float* sink) {
  constexpr int kChains = 12;
  F sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = Isa::splat(sink[i]);
  const F a = Isa::splat(sink[kChains]), b = Isa::splat(sink[kChains + 1]);
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = Isa::mac(sum[i], a, b);
  }
  for (int i = 1; i < kChains; ++i) sum[0] = Isa::add(sum[0], sum[i]);
  float lanes[kLanes];
  Isa::store(lanes, sum[0]);
  sink[0] = lanes[0];
  return 2.0 * static_cast<double>(steps) * kChains * kLanes;
}

}  // namespace
}  // namespace pixeldp
