// The only file that sees Python: checks the arrays, releases the lock, calls down.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>

#include "pixeldp/noise.h"
#include "pixeldp/philox.h"

namespace py = pybind11;
using pixeldp::Law;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

[[noreturn]] void refuse(const std::string& what) { throw py::value_error(what); }

pixeldp::NoiseKernels kernels_for(const std::string& isa) {
  const pixeldp::NoiseKernels kernels = pixeldp::select_noise(isa.c_str());
  if (kernels.isa == nullptr) {
    refuse("instruction set '" + isa + "' is unknown or not on this machine; widest here: " +
           pixeldp::select_noise("").isa);
  }
  return kernels;
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
               const std::string& isa) {
  if (law < 0 || law > 2) refuse("law must be 0 (Gaussian), 1 (Laplace) or 2 (Uniform)");
  if (index.ndim() != 1 || center.ndim() != 2 || out.ndim() != 3) {
    refuse("index, center and out must have 1, 2 and 3 dimensions");
  }
  const py::ssize_t examples = out.shape(0), draws = out.shape(1), coordinates = out.shape(2);
  if (index.shape(0) != examples || center.shape(0) != examples ||
      center.shape(1) != coordinates) {
    refuse("index [B], center [B, D] and out [B, n, D] do not agree");
  }
  if (coordinates > (py::ssize_t{1} << 34) ||
      static_cast<std::uint64_t>(first_draw) + static_cast<std::uint64_t>(draws) > (1ull << 32)) {
    refuse("the range of draws or coordinates does not fit the counter");
  }
  const pixeldp::NoiseKernels kernels = kernels_for(isa);
  const pixeldp::Request request = {static_cast<Law>(law), scale, seed, purpose, first_draw,
                                    index.data(), examples, draws, coordinates, center.data(),
                                    out.mutable_data()};
  py::gil_scoped_release unlocked;
  pixeldp::add_noise(kernels, request, threads);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Compiled kernels of pixeldp_fast.";
  m.def("isa", [](const std::string& widest) { return std::string(kernels_for(widest).isa); },
        py::arg("widest") = "", "The widest instruction set used on this machine.");
  m.def("philox", &philox, py::arg("counter"), py::arg("key"),
        "Philox4x32-10 of one counter, for the published known answers.");
  m.def("add_noise", &add_noise, py::arg("law"), py::arg("scale"), py::arg("seed"),
        py::arg("purpose"), py::arg("index").noconvert(), py::arg("first_draw"),
        py::arg("center").noconvert(), py::arg("out").noconvert(), py::arg("threads"),
        py::arg("isa") = "",
        "out[b, i, j] = center[b, j] + scale * noise(seed, purpose, index[b], first_draw + i, j).");
}
