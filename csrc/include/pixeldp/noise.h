// Noise addressed by (seed, purpose, example, draw, coordinate): raw pointers, no framework.
#pragma once
#include <cstdint>

namespace pixeldp {

enum class Law : int { gaussian = 0, laplace = 1, uniform = 2 };

// A stretch of noise: one example, one draw, coordinates [first, first + coordinates).
struct Row {
  std::uint64_t seed;
  std::uint32_t purpose, example, draw;
  std::int64_t coordinates;
  std::int64_t first = 0;  // a multiple of 4: whole Philox blocks
};

// out[j] = center[j] + scale * noise(row, row.first + j), float32, for j in [0, row.coordinates).
using AddNoise = void (*)(Law law, float scale, const Row& row, const float* center, float* out);

// Noise in steps of 1/levels from a uniform 64-bit word: -reach + (thresholds <= word). Integers
// only, so that it is the same on every machine; see pixeldp_fast/noise/lattice.py for the table.
struct Lattice {
  const std::uint64_t* thresholds;  // [2 reach], ascending
  const std::uint32_t* guide;       // [cells + 1]: thresholds below all words of a cell
  int shift;                        // a word's cell: its high half without this many bits
  std::int32_t reach, levels;
};

constexpr std::int32_t kFarthest = 1 << 23;  // steps from 0 of a centre; sums are exact in float32

// out[j] = float32(center[j] + noise)/levels, the sum in integers; the centres are whole numbers.
using AddLattice = void (*)(const Lattice& lattice, const Row& row, const float* center,
                            float* out);

// What is drawn: floats of a law and scale, or steps of a lattice.
struct Noise {
  Law law;
  float scale;
  const Lattice* lattice = nullptr;  // null: floats
};

// Rows [0, examples * draws) of a [examples, draws, coordinates] block, on up to `threads` threads.
struct Request {
  Noise noise;
  std::uint64_t seed;
  std::uint32_t purpose, first_draw;
  const std::uint32_t* index;  // [examples]
  std::int64_t examples, draws, coordinates;
  const float* center;  // [examples, coordinates]
  float* out;           // [examples, draws, coordinates]
};

struct Kernels;
void add_noise(const Kernels& kernels, const Request& request, int threads);

}  // namespace pixeldp
