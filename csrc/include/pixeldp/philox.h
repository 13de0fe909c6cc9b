// Philox4x32-10 (Salmon et al., SC 2011): constants, and the one-block form for known answers.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define PIXELDP_HOST_DEVICE __host__ __device__
#else
#define PIXELDP_HOST_DEVICE
#endif

namespace pixeldp {

constexpr int kPhiloxRounds = 10;
constexpr std::uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;
constexpr std::uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;

struct Block {
  std::uint32_t w[4];
};

// static: every translation unit keeps its own copy, compiled for its own instruction set.
PIXELDP_HOST_DEVICE static inline Block philox(Block c, std::uint32_t k0, std::uint32_t k1) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t p0 = static_cast<std::uint64_t>(kPhiloxM0) * c.w[0];
    const std::uint64_t p1 = static_cast<std::uint64_t>(kPhiloxM1) * c.w[2];
    c = {{static_cast<std::uint32_t>(p1 >> 32) ^ c.w[1] ^ k0, static_cast<std::uint32_t>(p1),
          static_cast<std::uint32_t>(p0 >> 32) ^ c.w[3] ^ k1, static_cast<std::uint32_t>(p0)}};
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  return c;
}

}  // namespace pixeldp
