// The only file that sees Python: checks the arguments, releases the lock, calls down.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "pixeldp/lattice.h"
#include "pixeldp/noise.h"
#include "pixeldp/philox.h"
#include "pixeldp/smooth.h"

namespace py = pybind11;
using pixeldp::Law;
using pixeldp::Network;
using pixeldp::Shape;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;
using Integers = std::vector<std::int64_t>;

[[noreturn]] void refuse(const std::string& what) { throw py::value_error(what); }

void need(bool holds, const char* what) {
  if (!holds) refuse(what);
}

pixeldp::Kernels kernels_for(const std::string& isa) {
  const pixeldp::Kernels kernels = pixeldp::select_kernels(isa.c_str());
  if (kernels.isa == nullptr) {
    refuse("instruction set '" + isa + "' is unknown or not on this machine; widest here: " +
           pixeldp::select_kernels("").isa);
  }
  return kernels;
}

Law checked_law(int law) {
  need(law >= 0 && law <= 2, "law must be 0 (Gaussian), 1 (Laplace) or 2 (Uniform)");
  return static_cast<Law>(law);
}

// Whole numbers of steps within reach, or not finite: then the example is lost, whatever is drawn.
void check_centers(const Array<float>& centers) {
  const float* data = centers.data();
  for (py::ssize_t i = 0; i < centers.size(); ++i) {
    const float c = data[i];
    need(!std::isfinite(c) || (std::abs(c) <= pixeldp::kFarthest && std::nearbyint(c) == c),
         "with a lattice, centers must be whole numbers of steps, at most 2^23");
  }
}

pixeldp::LatticeTable lattice_table(const Array<std::uint64_t>& thresholds, std::int32_t levels) {
  const std::uint64_t* data = thresholds.data();
  const py::ssize_t size = thresholds.size();
  need(thresholds.ndim() == 1 && size >= 2 && size % 2 == 0 && size <= 2 * pixeldp::kFarthest &&
           std::is_sorted(data, data + size),
       "thresholds must be ascending and even in number");
  need(levels >= 1 && levels <= (1 << 20), "levels must lie in [1, 2^20]");
  return {{data, data + size}, levels};
}

// What is drawn; `view` keeps the lattice's pointers for as long as the call needs them.
pixeldp::Noise noise_of(int law, float scale, const pixeldp::LatticeTable* table,
                        const Array<float>& centers, pixeldp::Lattice& view) {
  if (table == nullptr) return {checked_law(law), scale};
  check_centers(centers);
  view = table->view();
  return {checked_law(law), scale, &view};
}

void check_counters(std::int64_t coordinates, std::uint64_t first_draw, std::uint64_t draws,
                    bool lattice) {
  need(coordinates <= (std::int64_t{1} << (lattice ? 33 : 34)) && first_draw + draws <= (1ull << 32),
       "the range of draws or coordinates does not fit the counter");
}

bool same_bytes(const Array<std::uint8_t>& a, const Array<std::uint8_t>& b) {
  if (a.size() != b.size()) return false;
  const std::uint8_t *first = a.data(), *second = b.data();
  const auto size = static_cast<std::size_t>(a.size());
  const py::gil_scoped_release release;
  return size == 0 || std::memcmp(first, second, size) == 0;
}

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key) {
  const pixeldp::Block block =
      pixeldp::philox({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  return {block.w[0], block.w[1], block.w[2], block.w[3]};
}

void add_noise(int law, float scale, std::uint64_t seed, std::uint32_t purpose,
               const Array<std::uint32_t>& index, std::uint32_t first_draw,
               const Array<float>& center, Array<float>& out, int threads,
               const std::string& isa, const pixeldp::LatticeTable* lattice) {
  pixeldp::Lattice view;
  const pixeldp::Noise noise = noise_of(law, scale, lattice, center, view);
  need(index.ndim() == 1 && center.ndim() == 2 && out.ndim() == 3,
       "index, center and out must have 1, 2 and 3 dimensions");
  const py::ssize_t examples = out.shape(0), draws = out.shape(1), coordinates = out.shape(2);
  need(index.shape(0) == examples && center.shape(0) == examples && center.shape(1) == coordinates,
       "index [B], center [B, D] and out [B, n, D] do not agree");
  check_counters(coordinates, first_draw, static_cast<std::uint64_t>(draws), lattice != nullptr);
  const pixeldp::Kernels kernels = kernels_for(isa);
  const pixeldp::Request request = {noise,    seed,  purpose,     first_draw,    index.data(),
                                    examples, draws, coordinates, center.data(), out.mutable_data()};
  py::gil_scoped_release unlocked;
  pixeldp::add_noise(kernels, request, threads);
}

double fma_peak(const std::string& isa, int milliseconds) {
  const pixeldp::Kernels kernels = kernels_for(isa);
  py::gil_scoped_release unlocked;
  float sink[16];
  for (float& value : sink) value = 1.0f;
  sink[12] = 0.999f;
  using Clock = std::chrono::steady_clock;
  double best = 0.0;
  const auto end = Clock::now() + std::chrono::milliseconds(milliseconds);
  do {
    const auto start = Clock::now();
    const double operations = kernels.fma_burst(200000, sink);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, operations / seconds / 1e9);
  } while (Clock::now() < end);
  return best;
}

Shape checked_shape(const Integers& shape) {
  need(shape.size() == 3, "a shape must be [C, H, W]");
  for (const std::int64_t side : shape) need(side >= 1, "every side of a shape must be at least 1");
  return {shape[0], shape[1], shape[2]};
}

int checked_value(const Network& network, int value) {
  need(!network.finished(), "the network is finished");
  need(value >= 0 && value < network.size(), "no such value");
  return value;
}

void check_same(const Shape& a, const Shape& b) {
  need(a.c == b.c && a.h == b.h && a.w == b.w, "the values differ in shape");
}

int convolution(Network& network, int source, const Array<float>& weight, const Array<float>& bias,
                std::array<std::int64_t, 2> stride, std::array<std::int64_t, 4> padding,
                std::array<std::int64_t, 2> dilation, std::int64_t groups, int residual,
                float slope, bool fast) {
  const Shape in = network.shape(checked_value(network, source));
  need(weight.ndim() == 4 && bias.ndim() == 1 && weight.shape(0) == bias.shape(0) &&
           weight.shape(0) >= 1,
       "weight must be [O, C / groups, kh, kw] and bias [O]");
  for (const std::int64_t v : {stride[0], stride[1], dilation[0], dilation[1], groups}) {
    need(v >= 1, "stride, dilation and groups must be at least 1");
  }
  for (const std::int64_t v : padding) need(v >= 0, "padding must be at least 0");
  need(weight.shape(0) % groups == 0 && weight.shape(1) * groups == in.c,
       "the weight's channels and groups do not match the source");
  const Network::Geometry g = {weight.shape(2), weight.shape(3), stride[0],   stride[1],
                               padding[0],      padding[1],      padding[2],  padding[3],
                               dilation[0],     dilation[1],     groups};
  need(g.kernel_h >= 1 && g.kernel_w >= 1 && in.h + g.pad_top + g.pad_bottom >
           g.dilation_h * (g.kernel_h - 1) && in.w + g.pad_left + g.pad_right >
           g.dilation_w * (g.kernel_w - 1), "the kernel is larger than the padded map");
  const bool dense = g.kernel_h == in.h && g.kernel_w == in.w && groups == 1 &&
                     padding == std::array<std::int64_t, 4>{} && dilation[0] == 1 &&
                     dilation[1] == 1;  // one run, however many taps
  need(dense || g.kernel_h * g.kernel_w <= 1024, "a kernel of more than 1024 taps");
  if (residual >= 0) {
    const Shape r = network.shape(checked_value(network, residual));
    const Shape out = {weight.shape(0),
                       (in.h + g.pad_top + g.pad_bottom - g.dilation_h * (g.kernel_h - 1) - 1) /
                               g.stride_h + 1,
                       (in.w + g.pad_left + g.pad_right - g.dilation_w * (g.kernel_w - 1) - 1) /
                               g.stride_w + 1};
    check_same(r, out);
  }
  return network.convolution(source, weight.shape(0), weight.data(), bias.data(), g, residual,
                             slope, fast);
}

int pool(Network& network, int source, const Integers& rows, const Integers& columns,
         const std::vector<float>& divisors) {
  const Shape in = network.shape(checked_value(network, source));
  need(!rows.empty() && !columns.empty() && rows.size() % 2 == 0 && columns.size() % 2 == 0,
       "rows and columns must be pairs");
  const auto inside = [](const Integers& ranges, std::int64_t size) {
    for (std::size_t i = 0; i < ranges.size(); i += 2) {
      need(0 <= ranges[i] && ranges[i] < ranges[i + 1] && ranges[i + 1] <= size,
           "a window must be a range inside the map, not empty");
    }
  };
  inside(rows, in.h);
  inside(columns, in.w);
  need(divisors.empty() || divisors.size() == rows.size() / 2 * (columns.size() / 2),
       "one divisor per output pixel");
  return network.pool(source, rows, columns, divisors);
}

int affine(Network& network, int source, const std::vector<float>& scale,
           const std::vector<float>& shift, float slope) {
  const auto channels = static_cast<std::size_t>(network.shape(checked_value(network, source)).c);
  need((scale.empty() || scale.size() == channels) && (shift.empty() || shift.size() == channels),
       "scale and shift must be [C], or empty");
  return network.affine(source, scale, shift, slope);
}

int add(Network& network, int source, int other, float slope) {
  check_same(network.shape(checked_value(network, source)),
             network.shape(checked_value(network, other)));
  return network.add(source, other, slope);
}

int slice_pad(Network& network, int source, std::array<std::int64_t, 2> stride, std::int64_t low,
              std::int64_t high) {
  checked_value(network, source);
  need(stride[0] >= 1 && stride[1] >= 1 && low >= 0 && high >= 0,
       "strides must be at least 1, paddings at least 0");
  return network.slice_pad(source, stride[0], stride[1], low, high);
}

void finish(Network& network, int output) { network.finish(checked_value(network, output)); }

pixeldp::Spread checked_spread(int threads, std::int64_t tile) {
  need(threads >= 1 && tile >= 0, "threads must be at least 1, tile at least 0");
  return {threads, tile};
}

void check_finished(const Network& network) { need(network.finished(), "the network is not finished"); }

// Asked from the calling thread without the lock: whether Ctrl-C (or another signal) wants out.
bool signalled() {
  py::gil_scoped_acquire locked;
  return PyErr_CheckSignals() != 0;
}

template <class Work>
void interruptible(const Work& work) {
  bool done = false;
  {
    py::gil_scoped_release unlocked;
    done = work();
  }
  if (!done) throw py::error_already_set();
}

pixeldp::Draws checked_draws(const Network& network, int law, float scale, std::uint64_t seed,
                             std::uint32_t purpose, const Array<std::uint32_t>& index,
                             std::uint32_t first_draw, std::int64_t n,
                             const Array<float>& centers, const pixeldp::LatticeTable* lattice,
                             pixeldp::Lattice& view) {
  check_finished(network);
  const std::int64_t size = network.input().size();
  need(index.ndim() == 1 && centers.ndim() == 2 && centers.shape(0) == index.shape(0) &&
           centers.shape(1) == size, "index [B] and centers [B, D] do not agree with the network");
  need(n >= 0, "n must be at least 0");
  check_counters(size, first_draw, static_cast<std::uint64_t>(n), lattice != nullptr);
  return {noise_of(law, scale, lattice, centers, view),
          seed, purpose, first_draw, index.shape(0), n, index.data(), centers.data()};
}

Array<std::int64_t> tally(const Network& network, int law, float scale, std::uint64_t seed,
                          std::uint32_t purpose, const Array<std::uint32_t>& index,
                          std::uint32_t first_draw, std::int64_t n, const Array<float>& centers,
                          int reduction, double low, double high, int threads,
                          std::int64_t tile, const pixeldp::LatticeTable* lattice) {
  const pixeldp::Spread spread = checked_spread(threads, tile);
  pixeldp::Lattice view;
  const pixeldp::Draws draws = checked_draws(network, law, scale, seed, purpose, index, first_draw,
                                             n, centers, lattice, view);
  need(reduction >= 0 && reduction <= 2, "reduction must be 0 (votes), 1 (softmax) or 2 (parts)");
  const auto kind = static_cast<pixeldp::Reduction>(reduction);
  const std::int64_t outputs = network.output().size();
  need(kind != pixeldp::Reduction::parts || outputs == 1, "parts are of one output");
  Array<std::int64_t> totals({draws.examples, pixeldp::width_of(kind, outputs)});
  std::int64_t* data = totals.mutable_data();
  interruptible([&] {
    return pixeldp::tally(network, draws, kind, {low, high}, spread, signalled, data);
  });
  return totals;
}

Array<float> outputs_of_draws(const Network& network, int law, float scale, std::uint64_t seed,
                              std::uint32_t purpose, const Array<std::uint32_t>& index,
                              std::uint32_t first_draw, std::int64_t n,
                              const Array<float>& centers, int threads, std::int64_t tile,
                              const pixeldp::LatticeTable* lattice) {
  const pixeldp::Spread spread = checked_spread(threads, tile);
  pixeldp::Lattice view;
  const pixeldp::Draws draws = checked_draws(network, law, scale, seed, purpose, index, first_draw,
                                             n, centers, lattice, view);
  Array<float> outputs({draws.examples, n, network.output().size()});
  float* data = outputs.mutable_data();
  interruptible(
      [&] { return pixeldp::outputs_of_draws(network, draws, spread, signalled, data); });
  return outputs;
}

Array<float> outputs_of_rows(const Network& network, const Array<float>& features, int threads,
                             std::int64_t tile) {
  const pixeldp::Spread spread = checked_spread(threads, tile);
  check_finished(network);
  need(features.ndim() == 2 && features.shape(1) == network.input().size(),
       "features must be [rows, D] of the network's input");
  const std::int64_t rows = features.shape(0);
  const float* from = features.data();
  Array<float> outputs({rows, network.output().size()});
  float* data = outputs.mutable_data();
  interruptible(
      [&] { return pixeldp::outputs_of_rows(network, from, rows, spread, signalled, data); });
  return outputs;
}

void bind_network(py::module_& m) {
  py::class_<Network>(m, "Network", "A network for the engine: operations, then `finish`.")
      .def(py::init([](const Integers& shape, float slope, const std::string& isa) {
             return std::make_unique<Network>(kernels_for(isa), checked_shape(shape), slope);
           }),
           py::arg("input_shape"), py::arg("slope"), py::arg("isa") = "")
      .def("convolution", &convolution, py::arg("source"), py::arg("weight").noconvert(),
           py::arg("bias").noconvert(), py::arg("stride"), py::arg("padding"),
           py::arg("dilation"), py::arg("groups"), py::arg("residual"), py::arg("slope"),
           py::arg("fast"))
      .def("pool", &pool, py::arg("source"), py::arg("rows"), py::arg("columns"),
           py::arg("divisors"))
      .def("affine", &affine, py::arg("source"), py::arg("scale"), py::arg("shift"),
           py::arg("slope"))
      .def("add", &add, py::arg("source"), py::arg("other"), py::arg("slope"))
      .def("slice_pad", &slice_pad, py::arg("source"), py::arg("stride"), py::arg("low"),
           py::arg("high"))
      .def("finish", &finish, py::arg("output"))
      .def("shape", [](const Network& n, int value) {
             const Shape s = n.shape(checked_value(n, value));
             return std::array<std::int64_t, 3>{s.c, s.h, s.w};
           }, py::arg("value"))
      .def_property_readonly("isa", [](const Network& n) { return n.kernels().isa; })
      .def_property_readonly("arithmetic", [](const Network& n) { return n.kernels().arithmetic; })
      .def_property_readonly("lanes", [](const Network& n) { return n.kernels().lanes; })
      .def_property_readonly("tile_draws", [](const Network& n) {
             check_finished(n);
             return n.preferred_blocks() * n.kernels().lanes;
           })
      .def("tile_bytes", [](const Network& n, std::int64_t tile) {
             check_finished(n);
             const std::int64_t lanes = n.kernels().lanes, most = n.preferred_blocks();
             return 4 * n.arena_floats(tile > 0 ? std::min((tile + lanes - 1) / lanes, most) : most);
           }, py::arg("tile") = 0)
      .def("tally", &tally, py::arg("law"), py::arg("scale"), py::arg("seed"), py::arg("purpose"),
           py::arg("index").noconvert(), py::arg("first_draw"), py::arg("n"),
           py::arg("centers").noconvert(), py::arg("reduction"), py::arg("low"), py::arg("high"),
           py::arg("threads"), py::arg("tile") = 0, py::arg("lattice") = py::none())
      .def("outputs_of_draws", &outputs_of_draws, py::arg("law"), py::arg("scale"),
           py::arg("seed"), py::arg("purpose"), py::arg("index").noconvert(),
           py::arg("first_draw"), py::arg("n"), py::arg("centers").noconvert(),
           py::arg("threads"), py::arg("tile") = 0, py::arg("lattice") = py::none())
      .def("outputs_of_rows", &outputs_of_rows, py::arg("features").noconvert(),
           py::arg("threads"), py::arg("tile") = 0);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Compiled kernels of pixeldp_fast.";
  m.def("isa", [](const std::string& widest) { return std::string(kernels_for(widest).isa); },
        py::arg("widest") = "", "The widest instruction set used on this machine.");
  m.def("fma_peak", &fma_peak, py::arg("isa"), py::arg("milliseconds"),
        "Multiply-adds in registers, one thread: GFLOP/s, the best of many short bursts.");
  m.def("philox", &philox, py::arg("counter"), py::arg("key"),
        "Philox4x32-10 of one counter, for the published known answers.");
  m.def("same_bytes", &same_bytes, py::arg("a").noconvert(), py::arg("b").noconvert(),
        "Whether two arrays of bytes are equal.");
  py::class_<pixeldp::LatticeTable>(m, "LatticeNoise", "A table of noise in whole steps.")
      .def(py::init(&lattice_table), py::arg("thresholds").noconvert(), py::arg("levels"));
  m.def("add_noise", &add_noise, py::arg("law"), py::arg("scale"), py::arg("seed"),
        py::arg("purpose"), py::arg("index").noconvert(), py::arg("first_draw"),
        py::arg("center").noconvert(), py::arg("out").noconvert(), py::arg("threads"),
        py::arg("isa") = "", py::arg("lattice") = py::none(),
        "out[b, i, j] = center[b, j] + scale * noise(seed, purpose, index[b], first_draw + i, j); "
        "with a lattice (center[b, j] + noise)/levels.");
  bind_network(m);
}
