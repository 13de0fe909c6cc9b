// The noise prologue as a CUDA kernel, and its C entry. Compiled on first use; never run yet.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "cuda/noise.cuh"

namespace {

using pixeldp::Law;
using pixeldp::NoiseLaunch;

constexpr int kThreads = 256;
constexpr unsigned kMostStrips = 65535;  // of a grid's second axis

struct ToFloat {
  __device__ float operator()(float x) const { return x; }
};
struct ToBfloat16 {
  __device__ __nv_bfloat16 operator()(float x) const { return __float2bfloat16_rn(x); }
};
struct ToHalf {
  __device__ __half operator()(float x) const { return __float2half_rn(x); }
};

template <Law kLaw, class Out, class Convert>
__global__ void __launch_bounds__(kThreads) noise_kernel(const NoiseLaunch launch) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= launch.rows) return;
  const std::int64_t blocks = pixeldp::blocks_of(launch);
  const std::int64_t step = static_cast<std::int64_t>(gridDim.y) * blockDim.x;
  std::int64_t at = static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  for (; at < blocks; at += step) {
    pixeldp::noise_block<kLaw, Out>(launch, row, at, Convert());
  }
}

template <class Out, class Convert>
void launch_law(Law law, dim3 grid, dim3 block, const NoiseLaunch& launch, cudaStream_t stream) {
  switch (law) {
    case Law::gaussian:
      noise_kernel<Law::gaussian, Out, Convert><<<grid, block, 0, stream>>>(launch);
      break;
    case Law::laplace:
      noise_kernel<Law::laplace, Out, Convert><<<grid, block, 0, stream>>>(launch);
      break;
    case Law::uniform:
      noise_kernel<Law::uniform, Out, Convert><<<grid, block, 0, stream>>>(launch);
      break;
  }
}

}  // namespace

extern "C" {

// Bytes of a `NoiseLaunch`: the caller compares it with its own description.
int pixeldp_noise_launch_size() { return static_cast<int>(sizeof(NoiseLaunch)); }

// What a returned number means; valid for ever.
const char* pixeldp_error(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

// Puts the launch on `stream` and returns at once, with a cudaError_t. `type`: 0 float32,
// 1 bfloat16, 2 float16, of `out`.
int pixeldp_noise(const NoiseLaunch* launch, int law, int type, int device, void* stream) {
  if (const cudaError_t failed = cudaSetDevice(device)) return failed;
  const std::int64_t blocks = pixeldp::blocks_of(*launch);
  unsigned across = 1;
  while (across < kThreads && across < blocks) across *= 2;
  const unsigned down = kThreads / across;
  const std::int64_t strips = (blocks + across - 1) / across;
  const dim3 grid(static_cast<unsigned>((launch->rows + down - 1) / down),
                  static_cast<unsigned>(strips < kMostStrips ? strips : kMostStrips));
  const dim3 block(across, down);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (type) {
    case 0: launch_law<float, ToFloat>(static_cast<Law>(law), grid, block, *launch, on); break;
    case 1:
      launch_law<__nv_bfloat16, ToBfloat16>(static_cast<Law>(law), grid, block, *launch, on);
      break;
    case 2: launch_law<__half, ToHalf>(static_cast<Law>(law), grid, block, *launch, on); break;
    default: return cudaErrorInvalidValue;
  }
  return cudaGetLastError();
}

}  // extern "C"
