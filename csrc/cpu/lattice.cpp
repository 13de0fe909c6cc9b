// The guide of a table of lattice noise: how many thresholds lie below all words with the same first
// bits, so that only the few in between are compared.
#include "pixeldp/lattice.h"

#include <algorithm>
#include <utility>

namespace pixeldp {
namespace {

// Cells enough for less than one threshold each, on average; 2^16 are still in the cache.
int guide_bits(std::size_t thresholds) {
  int bits = 8;
  while (bits < 16 && (std::size_t{1} << bits) < 2 * thresholds) ++bits;
  return bits;
}

}  // namespace

LatticeTable::LatticeTable(std::vector<std::uint64_t> thresholds, std::int32_t levels)
    : thresholds_(std::move(thresholds)), levels_(levels) {
  const int bits = guide_bits(thresholds_.size());
  shift_ = 32 - bits;
  for (std::uint64_t cell = 0; cell < std::uint64_t{1} << bits; ++cell) {
    const std::uint64_t first_word = cell << (64 - bits);
    const auto first = std::lower_bound(thresholds_.begin(), thresholds_.end(), first_word);
    guide_.push_back(static_cast<std::uint32_t>(first - thresholds_.begin()));
  }
  guide_.push_back(static_cast<std::uint32_t>(thresholds_.size()));
}

}  // namespace pixeldp
