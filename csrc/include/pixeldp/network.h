// A network as a list of operations over values, with its weights packed for one instruction set.
#pragma once
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "pixeldp/kernels.h"

namespace pixeldp {

// Memory on a boundary of 2 MiB, so that the system can back it by large pages.
struct FreeAligned {
  void operator()(float* p) const;
};
using Buffer = std::unique_ptr<float[], FreeAligned>;
Buffer aligned_floats(std::int64_t count);  // throws std::bad_alloc

class Network {
 public:
  Network(const Kernels& kernels, Shape input, float slope);

  // Every method appends an operation and returns its value; value 0 is the input. `source`,
  // `residual` and `other` are values (residual -1: none), checked like the sizes by the caller.
  struct Geometry {
    std::int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right;
    std::int64_t dilation_h, dilation_w, groups;
  };
  // weights [O, C / groups, kernel_h, kernel_w], bias [O]. With `fast`, by Winograd's algorithm
  // where it applies and pays.
  int convolution(int source, std::int64_t outputs, const float* weights, const float* bias,
                  const Geometry& geometry, int residual, float slope, bool fast);
  int pool(int source, const std::vector<std::int64_t>& rows,
           const std::vector<std::int64_t>& columns, const std::vector<float>& divisors);
  int affine(int source, const std::vector<float>& scale, const std::vector<float>& shift,
             float slope);
  int add(int source, int other, float slope);
  int slice_pad(int source, std::int64_t stride_h, std::int64_t stride_w, std::int64_t low,
                std::int64_t high);
  // Names the value that is the output and lays out the arena; nothing can be appended afterwards.
  void finish(int output);

  const Kernels& kernels() const { return kernels_; }
  const Shape& shape(int value) const { return values_[static_cast<std::size_t>(value)].shape; }
  int size() const { return static_cast<int>(values_.size()); }
  const Shape& input() const { return values_.front().shape; }
  const Shape& output() const { return shape(output_); }
  bool finished() const { return output_ >= 0; }

  // Blocks of draws of a tile: enough that streaming the weights costs little of their use.
  std::int64_t preferred_blocks() const;
  std::int64_t arena_floats(std::int64_t blocks) const;

  // Where a tile's input is to be written, and its output read, in an arena for `blocks` blocks.
  float* input_at(float* arena) const { return arena; }
  const float* output_at(const float* arena, std::int64_t blocks) const;
  float* scratch_at(float* arena, std::int64_t blocks) const;

  // Evaluates the operations over `blocks` blocks. `stop` is asked between operations; when it
  // answers true the rest is left out, and the output means nothing.
  template <class Stop>
  bool evaluate(float* arena, std::int64_t blocks, const Stop& stop) const {
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      if (stop()) return false;
      step(i, arena, blocks);
    }
    return true;
  }

  Source source;  // of the input: shape and activation; the centre is the caller's

 private:
  struct Value {
    Shape shape;
    std::int64_t first, last;   // the steps that write and last read it; the input is written by -1
    std::int64_t offset;        // in the arena, in vectors of lanes per block
  };
  struct Step {
    std::variant<Convolution, Winograd, Pool, Affine, Add, SlicePad> op;
    int x, other, y;  // values; other -1: none
  };

  int append(Step step, Shape shape);
  void use(int value);
  const float* keep(std::vector<float> numbers);
  const std::int64_t* keep(std::vector<std::int64_t> numbers);
  void step(std::size_t i, float* arena, std::int64_t blocks) const;
  int replaced(const Step& step) const;
  void lay_out();

  Kernels kernels_;
  std::vector<Value> values_;
  std::vector<Step> steps_;
  std::vector<Buffer> weights_;
  std::vector<std::unique_ptr<std::vector<std::int64_t>>> ranges_;
  std::int64_t weight_floats_ = 0, multiplications_ = 0;  // the latter per draw
  std::int64_t arena_vectors_ = 0;                        // per block
  int output_ = -1;
};

}  // namespace pixeldp
