// Every kernel over one `Isa`, as a table. Included once by each translation unit, after its `Isa`;
// the order matters, later ones use earlier ones.
#pragma once
// clang-format off
#include "noise_kernels.h"
#include "lattice_kernels.h"
#include "tile_kernels.h"
#include "product_kernels.h"
#include "winograd_kernels.h"
#include "map_kernels.h"
// clang-format on

namespace pixeldp {
namespace {

Kernels all_kernels(const char* isa, const char* arithmetic) {
  return {isa,         arithmetic,  kLanes,            Isa::kRows, add_noise_row, add_lattice_row,
          noisy_block, given_block, kLanes * kStretch, convolve,   winograd,      pool,
          affine,      add,         slice_pad,         fma_burst};
}

}  // namespace
}  // namespace pixeldp
