// Building a network: packing weights, choosing algorithms, laying out the arena.
#include "pixeldp/network.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace pixeldp {
namespace {

constexpr std::size_t kPage = std::size_t{1} << 21;

// Panels of `rows` outputs: [panel][step][output of the panel].
void pack(const float* matrix, std::int64_t outputs, std::int64_t depth, std::int64_t rows,
          float* packed) {
  for (std::int64_t first = 0; first < outputs; first += rows) {
    const std::int64_t some = std::min(rows, outputs - first);
    for (std::int64_t k = 0; k < depth; ++k) {
      for (std::int64_t r = 0; r < some; ++r) *packed++ = matrix[(first + r) * depth + k];
    }
  }
}

// [O, C, kh, kw] to [O, kh, kw, C]: the order in which taps are summed.
std::vector<float> taps_first(const float* weights, std::int64_t outputs, std::int64_t channels,
                              std::int64_t taps) {
  std::vector<float> turned(static_cast<std::size_t>(outputs * channels * taps));
  float* out = turned.data();
  for (std::int64_t o = 0; o < outputs; ++o) {
    for (std::int64_t t = 0; t < taps; ++t) {
      for (std::int64_t c = 0; c < channels; ++c) *out++ = weights[(o * channels + c) * taps + t];
    }
  }
  return turned;
}

// G g G^T of one 3x3 kernel, in float64.
std::array<double, 36> transformed(const float* g) {
  constexpr double kG[6][3] = {{1.0 / 4, 0, 0},
                               {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                               {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                               {1.0 / 24, 1.0 / 12, 1.0 / 6},
                               {1.0 / 24, -1.0 / 12, 1.0 / 6},
                               {0, 0, 1}};
  double half[6][3] = {};
  std::array<double, 36> u{};
  for (int i = 0; i < 6; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 3; ++k) half[i][j] += kG[i][k] * static_cast<double>(g[3 * k + j]);
    }
  }
  for (int i = 0; i < 6; ++i) {
    for (int j = 0; j < 6; ++j) {
      for (int k = 0; k < 3; ++k) u[static_cast<std::size_t>(6 * i + j)] += half[i][k] * kG[j][k];
    }
  }
  return u;
}

// [36][panel][channel][output of the panel] of 3x3 kernels [O, C, 3, 3].
void pack_transformed(const float* weights, std::int64_t outputs, std::int64_t channels,
                      std::int64_t rows, float* packed) {
  for (std::int64_t first = 0; first < outputs; first += rows) {
    const std::int64_t some = std::min(rows, outputs - first);
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t r = 0; r < some; ++r) {
        const std::array<double, 36> u = transformed(weights + 9 * ((first + r) * channels + c));
        float* at = packed + first * channels + c * some + r;
        for (const double value : u) {
          *at = static_cast<float>(value);
          at += outputs * channels;
        }
      }
    }
  }
}

std::int64_t tiles_of(const Shape& out) { return ((out.h + 3) / 4) * ((out.w + 3) / 4); }

// 36 multiplications a tile and the two transforms, about a third more on thin layers, against 9 a
// pixel: not for maps that fill their tiles badly.
bool winograd_pays(const Network::Geometry& g, const Shape& out) {
  const bool applies = g.kernel_h == 3 && g.kernel_w == 3 && g.stride_h == 1 && g.stride_w == 1 &&
                       g.dilation_h == 1 && g.dilation_w == 1 && g.groups == 1;
  return applies && 48 * tiles_of(out) < 9 * out.h * out.w;
}

}  // namespace

void FreeAligned::operator()(float* p) const { std::free(p); }

Buffer aligned_floats(std::int64_t count) {
  const std::size_t bytes = static_cast<std::size_t>(std::max<std::int64_t>(count, 1)) * 4;
  const std::size_t boundary = bytes < kPage ? 64 : kPage;
  const std::size_t rounded = (bytes + boundary - 1) / boundary * boundary;
  void* p = std::aligned_alloc(boundary, rounded);
  if (p == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (boundary == kPage) madvise(p, rounded, MADV_HUGEPAGE);  // a hint: refusal costs only speed
#endif
  return Buffer(static_cast<float*>(p));
}

Network::Network(const Kernels& kernels, Shape input, float slope)
    : source{input, slope, nullptr}, kernels_(kernels) {
  values_.push_back({input, -1, -1, 0});
}

const float* Network::keep(std::vector<float> numbers) {
  weights_.push_back(aligned_floats(static_cast<std::int64_t>(numbers.size())));
  std::memcpy(weights_.back().get(), numbers.data(), numbers.size() * sizeof(float));
  return weights_.back().get();
}

const std::int64_t* Network::keep(std::vector<std::int64_t> numbers) {
  ranges_.push_back(std::make_unique<std::vector<std::int64_t>>(std::move(numbers)));
  return ranges_.back()->data();
}

void Network::use(int value) {
  if (value >= 0) {
    values_[static_cast<std::size_t>(value)].last = static_cast<std::int64_t>(steps_.size());
  }
}

int Network::append(Step step, Shape shape) {
  use(step.x);
  use(step.other);
  const auto now = static_cast<std::int64_t>(steps_.size());
  step.y = size();
  values_.push_back({shape, now, now, 0});
  steps_.push_back(std::move(step));
  return size() - 1;
}

int Network::convolution(int source_value, std::int64_t outputs, const float* weights,
                         const float* bias, const Geometry& g, int residual, float slope,
                         bool fast) {
  const Shape in = shape(source_value);
  const Shape out = {
      outputs,
      (in.h + g.pad_top + g.pad_bottom - g.dilation_h * (g.kernel_h - 1) - 1) / g.stride_h + 1,
      (in.w + g.pad_left + g.pad_right - g.dilation_w * (g.kernel_w - 1) - 1) / g.stride_w + 1};
  const std::int64_t channels = in.c / g.groups, taps = g.kernel_h * g.kernel_w;
  const float* kept_bias = keep(std::vector<float>(bias, bias + outputs));
  const bool winograd = fast && winograd_pays(g, out);
  std::vector<float> packed(static_cast<std::size_t>(outputs * channels * (winograd ? 36 : taps)));
  weight_floats_ += static_cast<std::int64_t>(packed.size());
  if (winograd) {
    pack_transformed(weights, outputs, channels, kernels_.rows, packed.data());
    multiplications_ += 36 * tiles_of(out) * outputs * channels;
    const float* zeros = keep(std::vector<float>(static_cast<std::size_t>(outputs), 0.0f));
    // Groups of whole register tiles whose transforms stay in the second-level cache.
    const std::int64_t room = (std::int64_t{384} << 10) / (36 * 4 * kernels_.lanes);
    const std::int64_t fitting = room / (in.c + outputs);
    const std::int64_t group = fitting >= 6 ? fitting / 3 * 3 : fitting >= 3 ? fitting : 4;
    const Winograd op = {in, out, g.pad_top, g.pad_left, std::min<std::int64_t>(group, 24),
                         keep(std::move(packed)), kept_bias, zeros, slope};
    return append({op, source_value, residual, 0}, out);
  }
  const std::vector<float> turned = taps_first(weights, outputs, channels, taps);
  const std::int64_t share = outputs / g.groups, depth = channels * taps;
  for (std::int64_t group = 0; group < g.groups; ++group) {
    const std::int64_t at = group * share * depth;
    pack(turned.data() + at, share, depth, kernels_.rows, packed.data() + at);
  }
  multiplications_ += out.h * out.w * outputs * depth;
  const Convolution op = {in,           out,          g.kernel_h,   g.kernel_w, g.stride_h,
                          g.stride_w,   g.pad_top,    g.pad_left,   g.dilation_h, g.dilation_w,
                          g.groups,     keep(std::move(packed)), kept_bias, slope};
  return append({op, source_value, residual, 0}, out);
}

int Network::pool(int source_value, const std::vector<std::int64_t>& rows,
                  const std::vector<std::int64_t>& columns, const std::vector<float>& divisors) {
  const Shape in = shape(source_value);
  const Shape out = {in.c, static_cast<std::int64_t>(rows.size() / 2),
                     static_cast<std::int64_t>(columns.size() / 2)};
  const Pool op = {in, out, keep(rows), keep(columns),
                   divisors.empty() ? nullptr : keep(divisors)};
  return append({op, source_value, -1, 0}, out);
}

int Network::affine(int source_value, const std::vector<float>& scale,
                    const std::vector<float>& shift, float slope) {
  const Affine op = {shape(source_value), scale.empty() ? nullptr : keep(scale),
                     shift.empty() ? nullptr : keep(shift), slope};
  return append({op, source_value, -1, 0}, op.shape);
}

int Network::add(int source_value, int other, float slope) {
  const Add op = {shape(source_value), slope};
  return append({op, source_value, other, 0}, op.shape);
}

int Network::slice_pad(int source_value, std::int64_t stride_h, std::int64_t stride_w,
                       std::int64_t low, std::int64_t high) {
  const Shape in = shape(source_value);
  const Shape out = {in.c + low + high, (in.h + stride_h - 1) / stride_h,
                     (in.w + stride_w - 1) / stride_w};
  const SlicePad op = {in, out, stride_h, stride_w, low};
  return append({op, source_value, -1, 0}, out);
}

void Network::finish(int output) {
  output_ = output;
  values_[static_cast<std::size_t>(output)].last = static_cast<std::int64_t>(steps_.size());
  lay_out();
}

// The value in whose place a step may write its own: one that dies there, of the same size, read at
// no other element than the one written. Winograd's tiles read the residual when they write; direct
// convolutions keep unfinished sums in their output, and nothing may lie in the way of a source.
int Network::replaced(const Step& step) const {
  const bool elementwise =
      std::holds_alternative<Add>(step.op) || std::holds_alternative<Affine>(step.op);
  const bool tiles = std::holds_alternative<Winograd>(step.op) && step.other != step.x;
  const int candidate = elementwise ? step.x : tiles ? step.other : -1;
  if (candidate < 0) return -1;
  const Value& before = values_[static_cast<std::size_t>(candidate)];
  const Value& after = values_[static_cast<std::size_t>(step.y)];
  return before.last == after.first && before.shape.size() == after.shape.size() ? candidate : -1;
}

// In place where a step allows it, which spares fetching the lines that it writes. Otherwise first
// fit: at the lowest place that no value living at the same time takes.
void Network::lay_out() {
  std::vector<const Value*> placed;
  for (Value& value : values_) {
    const int before =
        value.first < 0 ? -1 : replaced(steps_[static_cast<std::size_t>(value.first)]);
    if (before >= 0) {
      value.offset = values_[static_cast<std::size_t>(before)].offset;
      placed.push_back(&value);
      continue;
    }
    std::vector<std::pair<std::int64_t, std::int64_t>> taken;
    for (const Value* other : placed) {
      if (other->last >= value.first) {
        taken.emplace_back(other->offset, other->offset + other->shape.size());
      }
    }
    std::sort(taken.begin(), taken.end());
    value.offset = 0;
    for (const auto& [first, last] : taken) {
      if (value.offset + value.shape.size() <= first) break;
      value.offset = std::max(value.offset, last);
    }
    arena_vectors_ = std::max(arena_vectors_, value.offset + value.shape.size());
    placed.push_back(&value);
  }
}

// Weights arrive at about 8 bytes a cycle from memory while a core multiplies 2 lanes' worth of
// draws: keep their share of the time near 3 %. Whole register tiles of three blocks where the
// network is small; at most 32 MiB of values.
std::int64_t Network::preferred_blocks() const {
  const double multiplications = static_cast<double>(std::max<std::int64_t>(multiplications_, 1));
  const double draws = 266.0 * static_cast<double>(weight_floats_ * 4) / multiplications / 4.0;
  const std::int64_t wanted = static_cast<std::int64_t>(draws) / kernels_.lanes;
  const std::int64_t room = (std::int64_t{32} << 20) /
                            std::max<std::int64_t>(arena_vectors_ * kernels_.lanes * 4, 1);
  const std::int64_t blocks = std::min<std::int64_t>({wanted, room, 48});
  return blocks < 3 ? std::max<std::int64_t>(blocks, 1) : blocks / 3 * 3;
}

std::int64_t Network::arena_floats(std::int64_t blocks) const {
  std::int64_t scratch = kernels_.source_scratch;
  for (const Step& step : steps_) {
    if (const auto* op = std::get_if<Winograd>(&step.op)) {
      scratch = std::max(scratch, winograd_scratch(*op, kernels_.lanes));
    }
  }
  return arena_vectors_ * blocks * kernels_.lanes + scratch;
}

float* Network::scratch_at(float* arena, std::int64_t blocks) const {
  return arena + arena_vectors_ * blocks * kernels_.lanes;
}

const float* Network::output_at(const float* arena, std::int64_t blocks) const {
  return arena + values_[static_cast<std::size_t>(output_)].offset * blocks * kernels_.lanes;
}

void Network::step(std::size_t i, float* arena, std::int64_t blocks) const {
  const Step& s = steps_[i];
  const auto at = [&](int value) {
    return value < 0 ? nullptr
                     : arena + values_[static_cast<std::size_t>(value)].offset * blocks *
                                   kernels_.lanes;
  };
  const float *x = at(s.x), *other = at(s.other);
  float* y = at(s.y);
  float* scratch = scratch_at(arena, blocks);
  struct Visitor {
    const Kernels& k;
    std::int64_t blocks;
    const float *x, *other;
    float *y, *scratch;
    void operator()(const Convolution& op) const { k.convolve(op, blocks, x, other, y); }
    void operator()(const Winograd& op) const { k.winograd(op, blocks, x, other, y, scratch); }
    void operator()(const Pool& op) const { k.pool(op, blocks, x, y); }
    void operator()(const Affine& op) const { k.affine(op, blocks, x, y); }
    void operator()(const Add& op) const { k.add(op, blocks, x, other, y); }
    void operator()(const SlicePad& op) const { k.slice_pad(op, blocks, x, y); }
  };
  std::visit(Visitor{kernels_, blocks, x, other, y, scratch}, s.op);
}

}  // namespace pixeldp
