// Which kernels this machine runs, and rows of noise shared out between threads.
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "pixeldp/kernels.h"

namespace pixeldp {
namespace {

constexpr std::int64_t kWorthAThread = 1 << 16;  // coordinates; starting a thread costs about 30 us

void add_noise_rows(const Kernels& kernels, const Request& r, std::int64_t first,
                    std::int64_t last) {
  for (std::int64_t row = first; row < last; ++row) {
    const std::int64_t example = row / r.draws, draw = row % r.draws;
    const Row address = {r.seed, r.purpose, r.index[example],
                         r.first_draw + static_cast<std::uint32_t>(draw), r.coordinates};
    const float* center = r.center + example * r.coordinates;
    float* out = r.out + row * r.coordinates;
    if (r.noise.lattice != nullptr) {
      kernels.add_lattice(*r.noise.lattice, address, center, out);
    } else {
      kernels.add_noise(r.noise.law, r.noise.scale, address, center, out);
    }
  }
}

bool machine_has(const char* isa) {
#ifdef PIXELDP_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (std::strcmp(isa, "avx2") == 0) return avx2;
  if (std::strcmp(isa, "avx512") == 0) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  }
#endif
  return std::strcmp(isa, "portable") == 0;
}

}  // namespace

Kernels select_kernels(const char* widest) {
  const bool any = widest[0] == '\0';
#ifdef PIXELDP_X86
  if ((any || std::strcmp(widest, "avx512") == 0) && machine_has("avx512")) return kernels_avx512();
  if ((any || std::strcmp(widest, "avx2") == 0) && machine_has("avx2")) return kernels_avx2();
#endif
  if (any || std::strcmp(widest, "portable") == 0) return kernels_portable();
  return {};
}

void add_noise(const Kernels& kernels, const Request& r, int threads) {
  const std::int64_t rows = r.examples * r.draws;
  const std::int64_t useful = rows * r.coordinates / kWorthAThread;
  const std::int64_t wanted = threads < useful ? threads : useful;
  const std::int64_t workers = wanted < rows ? (wanted < 1 ? 1 : wanted) : rows;
  std::vector<std::thread> pool;
  pool.reserve(static_cast<std::size_t>(workers));
  std::int64_t last = rows;  // threads take their shares from the end
  for (std::int64_t i = workers - 1; i > 0; --i) {
    const std::int64_t first = rows * i / workers;
    try {
      pool.emplace_back([&, first, last] { add_noise_rows(kernels, r, first, last); });
    } catch (const std::system_error&) {  // no thread to be had: this one does the rest
      break;
    }
    last = first;
  }
  add_noise_rows(kernels, r, 0, last);
  for (std::thread& worker : pool) worker.join();
}

}  // namespace pixeldp
