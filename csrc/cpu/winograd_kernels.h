// 3x3 convolutions of stride 1 as F(4x4, 3x3): tiles of 6x6 inputs are transformed, multiplied
// point by point (36 products over the channels) and transformed back to 4x4 outputs. A quarter of
// the multiplications of the direct form (Winograd 1980; Lavin and Gray, CVPR 2016).
#pragma once
#include "pixeldp/kernels.h"

namespace pixeldp {
namespace {

constexpr int kSide = 6, kOutput = 4;

// B^T d for one line of six.
inline void transform_input(const F* d, F* t) {
  const F four = Isa::splat(4.0f), minus_five = Isa::splat(-5.0f), two = Isa::splat(2.0f);
  const F even = Isa::mac(Isa::splat(-4.0f), d[2], d[4]);
  const F odd = Isa::mac(Isa::splat(-4.0f), d[1], d[3]);
  const F near = Isa::sub(d[4], d[2]), far = Isa::sub(d[3], d[1]);
  t[0] = Isa::mac(four, d[0], Isa::mac(minus_five, d[2], d[4]));
  t[1] = Isa::add(even, odd);
  t[2] = Isa::sub(even, odd);
  t[3] = Isa::mac(two, far, near);
  t[4] = Isa::mac(Isa::splat(-2.0f), far, near);
  t[5] = Isa::mac(four, d[1], Isa::mac(minus_five, d[3], d[5]));
}

// A^T m for one line of six.
inline void transform_output(const F* m, F* y) {
  const F sum = Isa::add(m[1], m[2]), difference = Isa::sub(m[1], m[2]);
  const F outer_sum = Isa::add(m[3], m[4]), outer_difference = Isa::sub(m[3], m[4]);
  y[0] = Isa::add(Isa::add(m[0], sum), outer_sum);
  y[1] = Isa::mac(Isa::splat(2.0f), outer_difference, difference);
  y[2] = Isa::mac(Isa::splat(4.0f), outer_sum, sum);
  y[3] = Isa::add(Isa::mac(Isa::splat(8.0f), outer_difference, difference), m[5]);
}

// One tile of the input, all channels: out[36][C][lane], the 36 apart by `stride` floats.
void input_tile(const Winograd& op, std::int64_t top, std::int64_t left, const float* x,
                std::int64_t stride, float* out) {
  const std::int64_t row = op.in.w * op.in.c * kLanes, pixel = op.in.c * kLanes;
  const float* corner = x + top * row + left * pixel;
  bool down[kSide], across[kSide];
  for (int i = 0; i < kSide; ++i) {
    down[i] = top + i >= 0 && top + i < op.in.h;
    across[i] = left + i >= 0 && left + i < op.in.w;
  }
  const F zero = Isa::splat(0.0f);
  for (std::int64_t c = 0; c < op.in.c; ++c) {
    F half[kSide][kSide];
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) {
      F d[kSide], t[kSide];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) {
        d[i] = down[i] && across[j] ? Isa::load(corner + i * row + j * pixel + c * kLanes) : zero;
      }
      transform_input(d, t);
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) half[i][j] = t[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i) {
      F t[kSide];
      transform_input(half[i], t);
#pragma GCC unroll 6
      for (int j = 0; j < kSide; ++j) Isa::store(out + (kSide * i + j) * stride + c * kLanes, t[j]);
    }
  }
}

// One tile of the output, all channels, from m[36][O][lane].
void output_tile(const Winograd& op, std::int64_t top, std::int64_t left, const float* m,
                 std::int64_t stride, const float* residual, float* y) {
  const std::int64_t row = op.out.w * op.out.c * kLanes, pixel = op.out.c * kLanes;
  const std::int64_t corner = top * row + left * pixel;
  const std::int64_t down = op.out.h - top < kOutput ? op.out.h - top : kOutput;
  const std::int64_t across = op.out.w - left < kOutput ? op.out.w - left : kOutput;
  for (std::int64_t o = 0; o < op.out.c; ++o) {
    F half[kOutput][kSide];
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) {
      F column[kSide], t[kOutput];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) {
        column[i] = Isa::load(m + (kSide * i + j) * stride + o * kLanes);
      }
      transform_output(column, t);
#pragma GCC unroll 4
      for (int i = 0; i < kOutput; ++i) half[i][j] = t[i];
    }
    const F bias = Isa::splat(op.bias[o]);
    for (std::int64_t i = 0; i < down; ++i) {
      F t[kOutput];
      transform_output(half[i], t);
      for (std::int64_t j = 0; j < across; ++j) {
        const std::int64_t at = corner + i * row + j * pixel + o * kLanes;
        F value = Isa::add(t[j], bias);
        if (residual) value = Isa::add(value, Isa::load(residual + at));
        Isa::store(y + at, activated(value, op.slope));
      }
    }
  }
}

void winograd(const Winograd& op, std::int64_t blocks, const float* x, const float* residual,
              float* y, float* scratch) {
  const std::int64_t tiles_across = (op.out.w + kOutput - 1) / kOutput;
  const std::int64_t tiles = tiles_across * ((op.out.h + kOutput - 1) / kOutput);
  const std::int64_t x_block = op.in.size() * kLanes, y_block = op.out.size() * kLanes;
  const std::int64_t in_stride = winograd_stride(op.in.c, op, kLanes);
  const std::int64_t out_stride = winograd_stride(op.out.c, op, kLanes);
  float* transformed = scratch;  // [36][tile][C][lane]
  float* products = scratch + kSide * kSide * in_stride;  // [36][tile][O][lane]
  const Run whole = {0, 0, op.in.c};
  for (std::int64_t first = 0; first < blocks * tiles; first += op.group) {
    const std::int64_t left = blocks * tiles - first;
    const std::int64_t group = left < op.group ? left : op.group;
    for (std::int64_t i = 0; i < group; ++i) {
      const std::int64_t tile = (first + i) % tiles, block = (first + i) / tiles;
      input_tile(op, tile / tiles_across * kOutput - op.pad_top,
                 tile % tiles_across * kOutput - op.pad_left, x + block * x_block, in_stride,
                 transformed + i * op.in.c * kLanes);
    }
    for (std::int64_t k = 0; k < kSide * kSide; ++k) {
      const Tile t = {transformed + k * in_stride, op.in.c * kLanes,
                      op.weights + k * op.in.c * op.out.c, &whole, 1, products + k * out_stride,
                      op.out.c * kLanes, op.zeros, nullptr, 1.0f, true};
      stretches(t, op.out.c, op.in.c, group);
    }
    for (std::int64_t i = 0; i < group; ++i) {
      const std::int64_t tile = (first + i) % tiles, block = (first + i) / tiles;
      output_tile(op, tile / tiles_across * kOutput, tile % tiles_across * kOutput,
                  products + i * op.out.c * kLanes, out_stride,
                  residual ? residual + block * y_block : nullptr, y + block * y_block);
    }
  }
}

}  // namespace
}  // namespace pixeldp
