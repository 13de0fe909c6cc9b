// The owner of a table of lattice noise.
#pragma once
#include <cstdint>
#include <vector>

#include "pixeldp/noise.h"

namespace pixeldp {

class LatticeTable {
 public:
  // `thresholds` ascending and even in number.
  LatticeTable(std::vector<std::uint64_t> thresholds, std::int32_t levels);

  Lattice view() const {
    return {thresholds_.data(), guide_.data(), shift_,
            static_cast<std::int32_t>(thresholds_.size() / 2), levels_};
  }

 private:
  std::vector<std::uint64_t> thresholds_;
  std::vector<std::uint32_t> guide_;
  std::int32_t levels_;
  int shift_;
};

}  // namespace pixeldp
