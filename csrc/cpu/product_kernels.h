// Convolutions and dense layers as products of weights with vectors of draws.
//
// A register tile holds `rows` outputs of `columns` vectors: columns are blocks of draws at one
// pixel, or pixels of one block. Per step it loads the columns, spreads one weight after the other
// over the lanes and adds rows x columns products. Weights of a panel lie in the order in which they
// are used. Taps that meet the padding are left out, not multiplied by zero.
#pragma once
#include "pixeldp/kernels.h"

namespace pixeldp {
namespace {

constexpr int kRows = Isa::kRows, kColumns = 3;
// Steps after which the sums go back to memory, so that a panel's weights stay in the first-level
// cache while they pass over all columns.
constexpr std::int64_t kDepth = 448;
constexpr std::int64_t kMostRuns = 1024;  // taps of one convolution; larger kernels are not lowered

// Taps that lie one after the other both in the input and in the weights, in steps.
struct Run {
  std::int64_t x, w, depth;
};

// One register tile: where everything starts, and how far apart columns are, in floats.
struct Tile {
  const float* x;
  std::int64_t x_stride;
  const float* w;  // the panel
  const Run* runs;
  std::int64_t count;
  float* y;
  std::int64_t y_stride;
  const float* bias;      // of the panel's outputs; null: the sums go on from y
  const float* residual;  // strides as y; null: none
  float slope;
  bool finish;  // whether this is the last of the sums: add the residual, activate
};

template <int kR, int kC>
__attribute__((noinline)) void product(const Tile& t) {
  F sum[kR][kC];
#pragma GCC unroll 8
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 3
    for (int c = 0; c < kC; ++c) {
      sum[r][c] = t.bias ? Isa::splat(t.bias[r]) : Isa::load(t.y + c * t.y_stride + r * kLanes);
    }
  }
  for (std::int64_t i = 0; i < t.count; ++i) {
    const float* x = t.x + t.runs[i].x * kLanes;
    const float* w = t.w + t.runs[i].w * kR;
    for (std::int64_t k = t.runs[i].depth; k > 0; --k) {
      F column[kC];
#pragma GCC unroll 3
      for (int c = 0; c < kC; ++c) column[c] = Isa::load(x + c * t.x_stride);
#pragma GCC unroll 8
      for (int r = 0; r < kR; ++r) {
        const F weight = Isa::splat(w[r]);
#pragma GCC unroll 3
        for (int c = 0; c < kC; ++c) sum[r][c] = Isa::mac(weight, column[c], sum[r][c]);
      }
      x += kLanes;
      w += kR;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 3
    for (int c = 0; c < kC; ++c) {
      F y = sum[r][c];
      if (t.finish) {
        if (t.residual) y = Isa::add(y, Isa::load(t.residual + c * t.y_stride + r * kLanes));
        y = activated(y, t.slope);
      }
      Isa::store(t.y + c * t.y_stride + r * kLanes, y);
    }
  }
}

template <int kR>
inline void product_of_rows(const Tile& t, std::int64_t columns) {
  if (columns == 1) return product<kR, 1>(t);
  if (columns == 2) return product<kR, 2>(t);
  product<kR, 3>(t);
}

inline void product_of(const Tile& t, std::int64_t rows, std::int64_t columns) {
  if (rows == kRows) return product_of_rows<kRows>(t, columns);
  if constexpr (kRows > 2) {
    switch (rows) {
      case 2: return product_of_rows<2>(t, columns);
      case 3: return product_of_rows<3>(t, columns);
    }
  }
  if constexpr (kRows > 4) {
    switch (rows) {
      case 4: return product_of_rows<4>(t, columns);
      case 5: return product_of_rows<5>(t, columns);
      case 6: return product_of_rows<6>(t, columns);
      case 7: return product_of_rows<7>(t, columns);
    }
  }
  product_of_rows<1>(t, columns);
}

// All outputs of `columns` columns: panel by panel, and in each over the columns, three at a time
// (four as two and two).
inline void panels(Tile t, std::int64_t outputs, std::int64_t depth, std::int64_t columns) {
  const Tile first = t;
  for (std::int64_t row = 0; row < outputs; row += kRows) {
    const std::int64_t rows = outputs - row < kRows ? outputs - row : kRows;
    t.w = first.w + row * depth;
    t.bias = first.bias ? first.bias + row : nullptr;
    for (std::int64_t column = 0; column < columns;) {
      const std::int64_t left = columns - column;
      const std::int64_t some = left == 4 || left == 2 ? 2 : left < kColumns ? left : kColumns;
      t.x = first.x + column * first.x_stride;
      t.y = first.y + column * first.y_stride + row * kLanes;
      t.residual = first.residual
                       ? first.residual + column * first.y_stride + row * kLanes : nullptr;
      product_of(t, rows, some);
      column += some;
    }
  }
}

// The same over the runs in stretches of at most kDepth steps.
inline void stretches(const Tile& whole, std::int64_t outputs, std::int64_t depth,
                      std::int64_t columns) {
  Tile t = whole;
  if (whole.count == 0) return panels(t, outputs, depth, columns);  // padding alone: the bias
  Run part[kMostRuns];
  Run rest = whole.runs[0];
  for (std::int64_t i = 0; i < whole.count;) {
    t.count = 0;
    std::int64_t room = kDepth;
    while (i < whole.count && room > 0 && t.count < kMostRuns) {
      const std::int64_t steps = rest.depth < room ? rest.depth : room;
      part[t.count++] = {rest.x, rest.w, steps};
      room -= steps;
      rest = {rest.x + steps, rest.w + steps, rest.depth - steps};
      if (rest.depth == 0 && ++i < whole.count) rest = whole.runs[i];
    }
    t.runs = part;
    t.finish = i == whole.count;
    panels(t, outputs, depth, columns);
    t.bias = nullptr;
  }
}

// The half-open range of taps that meet the map from an output's first tap at `start`.
struct Taps {
  std::int64_t first, last;
  bool operator==(const Taps& other) const { return first == other.first && last == other.last; }
};

inline Taps taps_inside(std::int64_t start, std::int64_t dilation, std::int64_t kernel,
                        std::int64_t size) {
  Taps taps = {0, kernel};
  while (taps.first < taps.last && start + taps.first * dilation < 0) ++taps.first;
  while (taps.last > taps.first && start + (taps.last - 1) * dilation >= size) --taps.last;
  return taps;
}

// The runs of one output pixel, relative to the map's start plus the group's first channel.
inline std::int64_t runs_of(const Convolution& op, std::int64_t y, Taps rows, std::int64_t x,
                            Taps columns, Run* runs) {
  const std::int64_t channels = op.in.c / op.groups;
  std::int64_t count = 0;
  for (std::int64_t i = rows.first; i < rows.last; ++i) {
    for (std::int64_t j = columns.first; j < columns.last; ++j) {
      const std::int64_t pixel = (y + i * op.dilation_h) * op.in.w + x + j * op.dilation_w;
      const Run next = {pixel * op.in.c, (i * op.kernel_w + j) * channels, channels};
      Run* last = runs + count - 1;
      if (count > 0 && last->x + last->depth == next.x && last->w + last->depth == next.w) {
        last->depth += next.depth;
      } else {
        runs[count++] = next;
      }
    }
  }
  return count;
}

void convolve(const Convolution& op, std::int64_t blocks, const float* x, const float* residual,
              float* y) {
  const std::int64_t inputs = op.in.c / op.groups, outputs = op.out.c / op.groups;
  const std::int64_t depth = op.kernel_h * op.kernel_w * inputs;
  const std::int64_t x_block = op.in.size() * kLanes, y_block = op.out.size() * kLanes;
  const bool across_blocks = blocks >= kColumns;
  Run runs[kMostRuns];
  Tile t;
  t.runs = runs;
  t.slope = op.slope;
  t.finish = true;
  for (std::int64_t row = 0; row < op.out.h; ++row) {
    const std::int64_t top = row * op.stride_h - op.pad_top;
    const Taps down = taps_inside(top, op.dilation_h, op.kernel_h, op.in.h);
    for (std::int64_t column = 0; column < op.out.w;) {
      const std::int64_t left = column * op.stride_w - op.pad_left;
      const Taps across = taps_inside(left, op.dilation_w, op.kernel_w, op.in.w);
      std::int64_t pixels = 1;  // in a row that meet the same taps
      while (!across_blocks && column + pixels < op.out.w &&
             taps_inside(left + pixels * op.stride_w, op.dilation_w, op.kernel_w, op.in.w) ==
                 across) {
        ++pixels;
      }
      t.count = runs_of(op, top, down, left, across, runs);
      t.x_stride = across_blocks ? x_block : op.stride_w * op.in.c * kLanes;
      t.y_stride = across_blocks ? y_block : op.out.c * kLanes;
      for (std::int64_t block = 0; block < (across_blocks ? 1 : blocks); ++block) {
        for (std::int64_t group = 0; group < op.groups; ++group) {
          const std::int64_t at =
              block * y_block + ((row * op.out.w + column) * op.out.c + group * outputs) * kLanes;
          t.x = x + block * x_block + group * inputs * kLanes;
          t.y = y + at;
          t.residual = residual ? residual + at : nullptr;
          t.w = op.weights + group * outputs * depth;
          t.bias = op.bias + group * outputs;
          stretches(t, outputs, depth, across_blocks ? blocks : pixels);
        }
      }
      column += pixels;
    }
  }
}

}  // namespace
}  // namespace pixeldp
