// Noise addressed by (seed, purpose, example, draw, coordinate): raw pointers, no framework.
#pragma once
#include <cstdint>

namespace pixeldp {

enum class Law : int { gaussian = 0, laplace = 1, uniform = 2 };

// One row of noise: one example, one draw, all coordinates.
struct Row {
  std::uint64_t seed;
  std::uint32_t purpose, example, draw;
  std::int64_t coordinates;
};

// out[j] = center[j] + scale * noise(row, j), float32, for j in [0, coordinates).
using AddNoise = void (*)(Law law, float scale, const Row& row, const float* center, float* out);

// One implementation; all give the same bits.
struct NoiseKernels {
  const char* isa;
  AddNoise add_noise;
};

NoiseKernels noise_portable();
#ifdef PIXELDP_X86
NoiseKernels noise_avx2();
NoiseKernels noise_avx512();
#endif

// The widest kernels that this machine runs, at most `widest` ("portable", "avx2", "avx512" or
// empty for no limit). An unknown name or one that the machine lacks gives isa == nullptr.
NoiseKernels select_noise(const char* widest);

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

void add_noise(const NoiseKernels& kernels, const Request& request, int threads);

}  // namespace pixeldp
