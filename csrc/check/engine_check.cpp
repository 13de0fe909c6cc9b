// Small random networks on every instruction set of this machine, against plain loops in float64:
// a program of its own, so that it can be built with sanitizers and run without Python.
//
//   cmake -S csrc -B build/check -DPIXELDP_CHECK=ON && cmake --build build/check
//   build/check/engine_check
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "pixeldp/lattice.h"
#include "pixeldp/philox.h"
#include "pixeldp/smooth.h"

namespace {

using pixeldp::Network;
using pixeldp::Shape;
using Doubles = std::vector<double>;

// Numbers from Philox, so that a failure repeats.
class Random {
 public:
  std::int64_t below(std::int64_t bound) { return static_cast<std::int64_t>(word() % bound); }
  float centred() { return static_cast<float>(word() * 0x1p-31 - 1.0); }

 private:
  std::uint32_t word() { return pixeldp::philox({{at_++, 0, 0, 0}}, 2019, 0).w[0]; }
  std::uint32_t at_ = 0;
};

struct Layer {
  Shape in, out;
  Network::Geometry g;
  std::vector<float> weights, bias;
  bool residual;
};

double at(const Doubles& x, const Shape& s, std::int64_t c, std::int64_t i, std::int64_t j) {
  return x[static_cast<std::size_t>((c * s.h + i) * s.w + j)];
}

double output(const Layer& l, const Doubles& x, std::int64_t o, std::int64_t i, std::int64_t j) {
  const std::int64_t channels = l.in.c / l.g.groups, group = o / (l.out.c / l.g.groups);
  const float* w = l.weights.data() + o * channels * l.g.kernel_h * l.g.kernel_w;
  double sum = l.bias[static_cast<std::size_t>(o)];
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t a = 0; a < l.g.kernel_h; ++a) {
      for (std::int64_t b = 0; b < l.g.kernel_w; ++b, ++w) {
        const std::int64_t row = i * l.g.stride_h - l.g.pad_top + a * l.g.dilation_h;
        const std::int64_t col = j * l.g.stride_w - l.g.pad_left + b * l.g.dilation_w;
        if (row < 0 || col < 0 || row >= l.in.h || col >= l.in.w) continue;
        sum += static_cast<double>(*w) * at(x, l.in, group * channels + c, row, col);
      }
    }
  }
  return sum;
}

Doubles applied(const Layer& l, const Doubles& x) {
  Doubles y;
  for (std::int64_t o = 0; o < l.out.c; ++o) {
    for (std::int64_t i = 0; i < l.out.h; ++i) {
      for (std::int64_t j = 0; j < l.out.w; ++j) {
        const double sum = output(l, x, o, i, j) + (l.residual ? at(x, l.in, o, i, j) : 0.0);
        y.push_back(std::max(sum, 0.0));
      }
    }
  }
  return y;
}

Layer random_layer(Random& random, const Shape& in, bool three_by_three) {
  Layer l;
  l.in = in;
  const std::int64_t groups = in.c % 2 == 0 && !three_by_three ? 1 + random.below(2) : 1;
  l.g = {1 + random.below(3), 1 + random.below(3), 1 + random.below(2), 1 + random.below(2),
         random.below(2),     random.below(2),     random.below(2),     random.below(2),
         1,                   1,                   groups};
  if (three_by_three) l.g = {3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  l.g.kernel_h = std::min(l.g.kernel_h, in.h);
  l.g.kernel_w = std::min(l.g.kernel_w, in.w);
  l.residual = three_by_three && random.below(2) == 1;
  l.out.c = l.residual ? in.c : groups * (1 + random.below(11));
  l.out.h = (in.h + l.g.pad_top + l.g.pad_bottom - l.g.kernel_h) / l.g.stride_h + 1;
  l.out.w = (in.w + l.g.pad_left + l.g.pad_right - l.g.kernel_w) / l.g.stride_w + 1;
  const std::int64_t depth = in.c / groups * l.g.kernel_h * l.g.kernel_w;
  for (std::int64_t k = 0; k < l.out.c * depth; ++k) l.weights.push_back(random.centred());
  for (std::int64_t k = 0; k < l.out.c; ++k) l.bias.push_back(random.centred());
  return l;
}

// The light operations behind the convolutions: y = leaky(2 x - 1) + x, every second row with a
// channel of zeros in front, and means over one and over all rows.
Shape tail(Network& network, const Shape& in, int& value) {
  const auto channels = static_cast<std::size_t>(in.c);
  const int scaled = network.affine(value, std::vector<float>(channels, 2.0f),
                                    std::vector<float>(channels, -1.0f), 0.25f);
  const int sliced = network.slice_pad(network.add(scaled, value, 1.0f), 2, 1, 1, 0);
  const Shape s = network.shape(sliced);
  value = network.pool(sliced, {0, 1, 0, s.h}, {0, s.w}, {3.0f, 5.0f});
  return network.shape(value);
}

Doubles tail(const Shape& in, const Doubles& x) {
  const std::int64_t rows = (in.h + 1) / 2;
  Doubles y(2, 0.0);
  for (std::int64_t c = 0; c < in.c; ++c) {
    double first = 0.0, all = 0.0;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < in.w; ++j) {
        const double v = at(x, in, c, 2 * i, j), scaled = 2.0 * v - 1.0;
        const double sum = (scaled > 0 ? scaled : 0.25 * scaled) + v;
        first += i == 0 ? sum : 0.0;
        all += sum;
      }
    }
    y.push_back(first / 3.0);
    y.push_back(all / 5.0);
  }
  return y;
}

void check(bool holds, const char* what, int trial, const char* isa) {
  if (holds) return;
  std::fprintf(stderr, "%s: trial %d on %s\n", what, trial, isa);
  std::exit(1);
}

bool never() { return false; }

std::vector<std::int64_t> totals_of(const Network& network, const pixeldp::Draws& draws,
                                    int threads, std::int64_t tile) {
  const std::int64_t width =
      pixeldp::width_of(pixeldp::Reduction::softmax, network.output().size());
  std::vector<std::int64_t> totals(static_cast<std::size_t>(draws.examples * width));
  pixeldp::tally(network, draws, pixeldp::Reduction::softmax, {0, 0}, {threads, tile}, never,
                 totals.data());
  return totals;
}

void trial(int number, const char* isa) {
  Random random;
  for (int skip = 0; skip < 1000 * number; ++skip) random.below(2);
  // Now and then more steps than one stretch of sums, and more coordinates than one of noise.
  Shape input = {1 + random.below(5), 1 + random.below(9), 1 + random.below(9)};
  if (number % 5 == 0) input = {449 + random.below(64), 1 + random.below(3), 1 + random.below(3)};
  if (number % 5 == 1) input = {3, 14, 14};
  Network network(pixeldp::select_kernels(isa), input, 1.0f);
  std::vector<Layer> layers;
  Shape shape = input;
  int value = 0;
  for (int i = 0; i < 3; ++i) {
    const bool winograd = random.below(2) == 1;
    layers.push_back(random_layer(random, shape, winograd && shape.h >= 3 && shape.w >= 3));
    const Layer& l = layers.back();
    value = network.convolution(value, l.out.c, l.weights.data(), l.bias.data(), l.g,
                                l.residual ? value : -1, 0.0f, true);
    shape = l.out;
  }
  const Shape maps = shape;
  shape = tail(network, maps, value);
  network.finish(value);

  const std::int64_t rows = 1 + random.below(40);
  std::vector<float> features(static_cast<std::size_t>(rows * input.size()));
  for (float& v : features) v = random.centred();
  std::vector<float> outputs(static_cast<std::size_t>(rows * shape.size()));
  pixeldp::outputs_of_rows(network, features.data(), rows, {2, 0}, never, outputs.data());
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = features.data() + row * input.size();
    Doubles exact(from, from + input.size());
    for (const Layer& l : layers) exact = applied(l, exact);
    exact = tail(maps, exact);
    double largest = 0.0;
    for (const double v : exact) largest = std::max(largest, std::abs(v));
    for (std::int64_t k = 0; k < shape.size(); ++k) {
      const double ours = outputs[static_cast<std::size_t>(row * shape.size() + k)];
      check(std::abs(ours - exact[static_cast<std::size_t>(k)]) <= 2e-5 * (largest + 1.0),
            "outputs differ from float64", number, isa);
    }
  }

  const std::vector<std::uint32_t> index = {3, 0};
  const pixeldp::Draws draws = {{pixeldp::Law::gaussian, 0.5f}, 7, 1, 5, 2, 77, index.data(),
                                features.data()};
  if (rows < 2) return;
  const auto totals = totals_of(network, draws, 1, 0);
  check(totals == totals_of(network, draws, 3, 0), "threads change the tally", number, isa);
  check(totals == totals_of(network, draws, 2, 20), "the tile changes the tally", number, isa);
}

// A network without operations gives the features under noise: the addressed ones, in every lane.
void noise_trial(const char* isa) {
  const pixeldp::Kernels kernels = pixeldp::select_kernels(isa);
  for (const Shape& shape : {Shape{1, 1, 1}, Shape{2, 3, 3}, Shape{3, 19, 27}}) {
    const std::int64_t size = shape.size(), draws = 21;
    Network network(kernels, shape, 1.0f);
    network.finish(0);
    const std::uint32_t index = 9;
    const std::vector<float> center(static_cast<std::size_t>(size), 0.5f);
    std::vector<float> row(center.size()), found(center.size() * 21);
    for (const auto law :
         {pixeldp::Law::gaussian, pixeldp::Law::laplace, pixeldp::Law::uniform}) {
      const pixeldp::Draws asked = {{law, 0.7f}, 3, 1, 40, 1, draws, &index, center.data()};
      pixeldp::outputs_of_draws(network, asked, {2, 0}, never, found.data());
      for (std::int64_t draw = 0; draw < draws; ++draw) {
        const pixeldp::Row address = {3, 1, index, 40 + static_cast<std::uint32_t>(draw), size};
        kernels.add_noise(law, 0.7f, address, center.data(), row.data());
        const float* ours = found.data() + draw * size;
        check(std::equal(row.begin(), row.end(), ours), "other noise in the engine",
              static_cast<int>(draw), isa);
      }
    }
  }
}

// The same for a lattice, and every row against words and a search of its own.
void lattice_trial(const char* isa) {
  const std::vector<std::uint64_t> thresholds = {1,          1ull << 20, 1ull << 62, 3ull << 62,
                                                 ~0ull - 99, ~0ull};
  const pixeldp::LatticeTable table(thresholds, 255);
  const pixeldp::Lattice lattice = table.view();
  const pixeldp::Kernels kernels = pixeldp::select_kernels(isa);
  for (const Shape& shape : {Shape{1, 1, 1}, Shape{2, 3, 3}, Shape{3, 19, 27}}) {
    const std::int64_t size = shape.size(), draws = 21;
    Network network(kernels, shape, 1.0f);
    network.finish(0);
    const std::uint32_t index = 9;
    const std::vector<float> center(static_cast<std::size_t>(size), 7.0f);
    std::vector<float> row(center.size()), found(center.size() * 21);
    const pixeldp::Draws asked = {
        {pixeldp::Law::gaussian, 0.7f, &lattice}, 3, 1, 40, 1, draws, &index, center.data()};
    pixeldp::outputs_of_draws(network, asked, {2, 0}, never, found.data());
    for (std::int64_t draw = 0; draw < draws; ++draw) {
      const auto word = static_cast<std::uint32_t>(draw) + 40;
      kernels.add_lattice(lattice, {3, 1, index, word, size}, center.data(), row.data());
      const float* ours = found.data() + draw * size;
      check(std::equal(row.begin(), row.end(), ours), "other lattice noise in the engine",
            static_cast<int>(draw), isa);
      for (std::int64_t j = 0; j < size; ++j) {
        const auto block = static_cast<std::uint32_t>(j / 2);
        const pixeldp::Block words = pixeldp::philox({{block, word, index, 1}}, 3, 0);
        const std::uint64_t w = static_cast<std::uint64_t>(words.w[j % 2 * 2]) << 32 |
                                words.w[j % 2 * 2 + 1];
        const auto below = std::upper_bound(thresholds.begin(), thresholds.end(), w);
        const auto noise = static_cast<std::int32_t>(below - thresholds.begin()) - 3;
        check(row[static_cast<std::size_t>(j)] == static_cast<float>(7 + noise) / 255.0f,
              "a lattice value differs", static_cast<int>(j), isa);
      }
    }
  }
}

}  // namespace

int main() {
  int trials = 0;
  for (const char* isa : {"portable", "avx2", "avx512"}) {
    if (pixeldp::select_kernels(isa).isa == nullptr) continue;
    noise_trial(isa);
    lattice_trial(isa);
    for (int number = 0; number < 40; ++number, ++trials) trial(number, isa);
  }
  std::printf("%d networks agree with float64\n", trials);
  return 0;
}
