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

// Rows [0, examples * draws) of a [examples, draws, coordinates] block, on up to `threads` threads.
struct Request {
  Law law;
  float scale;
  std::uint64_t seed;
  std::uint32_t purpose, first_draw;
  const std::uint32_t* index;  // [examples]
  std::int64_t examples, draws, coordinates;
  const float* center;  // [examples, coordinates]
  float* out;           // [examples, draws, coordinates]
};

void add_noise(AddNoise kernel, const Request& request, int threads);

}  // namespace pixeldp
