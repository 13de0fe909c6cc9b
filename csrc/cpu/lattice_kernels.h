// Lattice noise added in integers. Included like noise_kernels.h, after it: the words are made by
// this instruction set, the table is looked up in plain C++.
#pragma once
#include "pixeldp/noise.h"

namespace pixeldp {
namespace {

constexpr int kLatticeStep = 2 * kBlocks;  // coordinates made at once: two of a block
constexpr int kLatticeGroup = 16;          // steps whose words are made before any is looked up

inline std::int32_t lattice_noise(const Lattice& lattice, std::uint32_t high, std::uint32_t low) {
  const std::uint64_t word = static_cast<std::uint64_t>(high) << 32 | low;
  const std::uint32_t* cell = lattice.guide + (high >> lattice.shift);
  std::uint32_t i = cell[0];
  while (i < cell[1] && lattice.thresholds[i] <= word) ++i;
  return static_cast<std::int32_t>(i) - lattice.reach;
}

// Block i of the words has coordinates 2 i (words 0 and 1, high first) and 2 i + 1 (2 and 3).
inline void lattice_steps(const Lattice& lattice, const Words& c, std::int32_t* steps) {
  std::uint32_t even[kLatticeStep], odd[kLatticeStep];
  Isa::store_bits(even, Isa::join(c.c1, c.c0));
  Isa::store_bits(odd, Isa::join(c.c3, c.c2));
  for (int i = 0; i < kBlocks; ++i) {
    steps[2 * i] = lattice_noise(lattice, even[2 * i + 1], even[2 * i]);
    steps[2 * i + 1] = lattice_noise(lattice, odd[2 * i + 1], odd[2 * i]);
  }
}

// out[j] = float32(center[j] + noise)/levels; the centres are whole numbers of steps, or not finite
// in an example that is lost whatever is drawn.
void add_lattice_row(const Lattice& lattice, const Row& row, const float* center, float* out) {
  const Keys keys(row.seed);
  const float levels = static_cast<float>(lattice.levels);
  const std::uint64_t first_block = static_cast<std::uint64_t>(row.first / 2);
  std::int32_t noise[kLatticeGroup * kLatticeStep];
  Words words[kLatticeGroup];
  for (std::int64_t j = 0; j < row.coordinates; j += kLatticeGroup * kLatticeStep) {
    const std::int64_t left = row.coordinates - j;
    const std::int64_t count =
        left < kLatticeGroup * kLatticeStep ? left : kLatticeGroup * kLatticeStep;
    const int steps = static_cast<int>((count + kLatticeStep - 1) / kLatticeStep);
    for (int s = 0; s < steps; ++s) {
      const auto block = static_cast<std::uint64_t>(j / 2 + s * kBlocks);
      words[s] = philox_words(first_block + block, row, keys);
    }
    for (int s = 0; s < steps; ++s) lattice_steps(lattice, words[s], noise + s * kLatticeStep);
    for (std::int64_t i = 0; i < count; ++i) {
      const float c = center[j + i];
      const bool whole = c >= -static_cast<float>(kFarthest) && c <= static_cast<float>(kFarthest);
      const std::int32_t sum = (whole ? static_cast<std::int32_t>(c) : 0) + noise[i];
      out[j + i] = static_cast<float>(sum) / levels;
    }
  }
}

}  // namespace
}  // namespace pixeldp
