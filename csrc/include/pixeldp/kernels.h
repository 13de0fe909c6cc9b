// The kernels of one instruction set, and the operations of a network that they evaluate.
//
// A value of a network is a map [C, H, W] per draw. Draws are evaluated in blocks of `lanes`, one
// draw to a lane of a vector register, and lie innermost: a value is stored [block][H][W][C][lane].
// Nothing ever crosses lanes, so that a draw's outputs do not depend on what shares its block.
#pragma once
#include <cstdint>

#include "pixeldp/noise.h"

namespace pixeldp {

struct Shape {
  std::int64_t c, h, w;
  std::int64_t size() const { return c * h * w; }
};

// y = activation(weights * x + bias + residual), zero padding. A dense layer is a convolution whose
// kernel covers the whole map. Every output is one chain of multiply-adds in the order of (tap row,
// tap column, channel), starting at the bias, whatever the instruction set and the blocking.
struct Convolution {
  Shape in, out;
  std::int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
  std::int64_t groups;
  const float* weights;  // packed: [group][panel of rows][tap row][tap column][channel][row]
  const float* bias;     // [O]
  float slope;           // of the activation below 0: 0 is ReLU, 1 the identity
};

// The same for 3x3 kernels of stride 1, as F(4x4, 3x3): 36 products per tile of 4x4 outputs.
struct Winograd {
  Shape in, out;
  std::int64_t pad_top, pad_left;
  std::int64_t group;    // tiles transformed at once
  const float* weights;  // packed: [36][panel of rows][channel][row]
  const float* bias;     // [O]
  const float* zeros;    // [O]
  float slope;
};

// The maximum, or the sum over a divisor, over windows given by half-open ranges of pixels.
struct Pool {
  Shape in, out;
  const std::int64_t* rows;     // [out.h][2]
  const std::int64_t* columns;  // [out.w][2]
  const float* divisors;        // [out.h][out.w], or null: the maximum
};

struct Affine {  // y = activation(scale x + shift); scale null: 1, shift null: 0
  Shape shape;
  const float *scale, *shift;  // [C]
  float slope;
};

struct Add {  // y = activation(a + b)
  Shape shape;
  float slope;
};

struct SlicePad {  // every stride-th pixel, with channels of zeros in front and behind
  Shape in, out;
  std::int64_t stride_h, stride_w, low;
};

// Where a block's values come from: noise around a centre, or given rows.
struct Source {
  Shape shape;
  float slope;          // of an activation directly behind the noise
  const float* center;  // [C, H, W] in C order; or, for given rows, the first of them
};

struct Kernels {
  const char* isa;
  const char* arithmetic;
  std::int64_t lanes, rows;  // of a block; of a panel of weights
  AddNoise add_noise;
  AddLattice add_lattice;
  // y [H][W][C][lane]: lane i is the draw `first.draw + i` of the row's address.
  void (*noisy_block)(const Noise& noise, const Row& first, const Source& source, float* y,
                      float* scratch);
  // y [H][W][C][lane]: lane i is given row i, zeros from `count` on.
  void (*given_block)(const Source& source, std::int64_t count, float* y, float* scratch);
  std::int64_t source_scratch;  // floats
  void (*convolve)(const Convolution& op, std::int64_t blocks, const float* x,
                   const float* residual, float* y);
  void (*winograd)(const Winograd& op, std::int64_t blocks, const float* x, const float* residual,
                   float* y, float* scratch);
  void (*pool)(const Pool& op, std::int64_t blocks, const float* x, float* y);
  void (*affine)(const Affine& op, std::int64_t blocks, const float* x, float* y);
  void (*add)(const Add& op, std::int64_t blocks, const float* a, const float* b, float* y);
  void (*slice_pad)(const SlicePad& op, std::int64_t blocks, const float* x, float* y);
  // Independent multiply-adds in registers; returns how many floating-point operations were done.
  double (*fma_burst)(std::int64_t steps, float* sink);
};

// Floats that `Kernels::winograd` needs: transformed inputs and products of one group of tiles.
// Rows of the 36 are set apart by a line, since powers of two would all meet in the same cache set.
inline std::int64_t winograd_stride(std::int64_t channels, const Winograd& op, std::int64_t lanes) {
  return op.group * channels * lanes + 16;
}
inline std::int64_t winograd_scratch(const Winograd& op, std::int64_t lanes) {
  return 36 * (winograd_stride(op.in.c, op, lanes) + winograd_stride(op.out.c, op, lanes));
}

Kernels kernels_portable();
#ifdef PIXELDP_X86
Kernels kernels_avx2();
Kernels kernels_avx512();
#endif

// The widest kernels that this machine runs, at most `widest` ("portable", "avx2", "avx512" or
// empty for no limit). An unknown name or one that the machine lacks gives isa == nullptr.
Kernels select_kernels(const char* widest);

}  // namespace pixeldp
