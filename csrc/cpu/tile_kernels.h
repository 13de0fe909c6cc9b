// From draws in rows to draws in lanes: the noisy features of one block, made and turned around in
// a scratch of a few kilobytes. Included like noise_kernels.h, after lattice_kernels.h.
#pragma once
#include "pixeldp/kernels.h"

namespace pixeldp {
namespace {

constexpr std::int64_t kLanes = Isa::kLanes;
constexpr std::int64_t kStretch = 512;  // coordinates per draw and round: scratch of 16 or 32 KiB

// Max(0, x), slope x below 0, or x; NaN stays NaN.
inline F activated(F x, float slope) {
  if (slope == 1.0f) return x;
  const F zero = Isa::splat(0.0f);
  if (slope == 0.0f) return Isa::max_or_second(zero, x);
  return Isa::select(Isa::greater(x, zero), x, Isa::mul(x, Isa::splat(slope)));
}

// Scratch [lane][kStretch], coordinates [first, first + count) in C order, to y [H][W][C][lane].
inline void turn_around(const Source& source, std::int64_t first, std::int64_t count,
                        const float* scratch, float* y) {
  const std::int64_t pixels = source.shape.h * source.shape.w, channels = source.shape.c;
  std::int64_t channel = first / pixels, pixel = first % pixels;
  for (std::int64_t j = 0; j < count; j += kLanes) {
    F rows[kLanes];
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      rows[lane] = Isa::load(scratch + lane * kStretch + j);
    }
    Isa::transpose(rows);
    const std::int64_t some = count - j < kLanes ? count - j : kLanes;
    for (std::int64_t i = 0; i < some; ++i) {
      Isa::store(y + (pixel * channels + channel) * kLanes, activated(rows[i], source.slope));
      if (++pixel == pixels) {
        pixel = 0;
        ++channel;
      }
    }
  }
}

void noisy_block(const Noise& noise, const Row& first, const Source& source, float* y,
                 float* scratch) {
  const std::int64_t size = source.shape.size();
  for (std::int64_t j = 0; j < size; j += kStretch) {
    const std::int64_t count = size - j < kStretch ? size - j : kStretch;
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      Row row = first;
      row.draw += static_cast<std::uint32_t>(lane);  // past the last draw it may wrap: not counted
      row.first = j;
      row.coordinates = count;
      const float* center = source.center + j;
      float* out = scratch + lane * kStretch;
      if (noise.lattice != nullptr) {
        add_lattice_row(*noise.lattice, row, center, out);
      } else {
        add_noise_row(noise.law, noise.scale, row, center, out);
      }
    }
    turn_around(source, j, count, scratch, y);
  }
}

void given_block(const Source& source, std::int64_t rows, float* y, float* scratch) {
  const std::int64_t size = source.shape.size();
  for (std::int64_t j = 0; j < size; j += kStretch) {
    const std::int64_t count = size - j < kStretch ? size - j : kStretch;
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      for (std::int64_t i = 0; i < count; ++i) {
        scratch[lane * kStretch + i] = lane < rows ? source.center[lane * size + j + i] : 0.0f;
      }
    }
    turn_around(source, j, count, scratch, y);
  }
}

}  // namespace
}  // namespace pixeldp
