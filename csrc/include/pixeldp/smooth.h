// Draws of a network under noise, reduced to integers: the loop over tiles of draws and threads.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "pixeldp/network.h"

namespace pixeldp {

constexpr double kGrid = 1048576.0;  // soft scores are floored to multiples of 1/kGrid

// What is kept of a draw's outputs; see pixeldp_fast/backends/reduction.py.
enum class Reduction : int { votes = 0, softmax = 1, parts = 2 };

struct Interval {
  double low, high;  // of Reduction::parts
};

// Integers per example: K + 1 votes; K + 1 votes, K scores and K squares; or 6.
std::int64_t width_of(Reduction reduction, std::int64_t outputs);

// Adds one draw's outputs, already in C order, to `totals`.
void reduce(Reduction reduction, const Interval& interval, const float* outputs, std::int64_t count,
            std::int64_t* totals);

struct Draws {
  Noise noise;
  std::uint64_t seed;
  std::uint32_t purpose, first_draw;
  std::int64_t examples, count;  // draws [first_draw, first_draw + count) of every example
  const std::uint32_t* index;    // [examples]
  const float* centers;          // [examples, C, H, W]
};

// How a call is spread: threads, and the most draws per tile (0: the network's own choice, which is
// never exceeded). Results do not depend on either.
struct Spread {
  int threads;
  std::int64_t tile;
};

// Asked by the calling thread about every tenth of a second; true stops the work.
using Interrupted = std::function<bool()>;

// Totals [examples, width]. False if interrupted: the totals then mean nothing.
bool tally(const Network& network, const Draws& draws, Reduction reduction, Interval interval,
           const Spread& spread, const Interrupted& interrupted, std::int64_t* totals);

// Outputs [examples, count, K] of every draw.
bool outputs_of_draws(const Network& network, const Draws& draws, const Spread& spread,
                      const Interrupted& interrupted, float* outputs);

// Outputs [rows, K] of given features [rows, C, H, W].
bool outputs_of_rows(const Network& network, const float* features, std::int64_t rows,
                     const Spread& spread, const Interrupted& interrupted, float* outputs);

}  // namespace pixeldp
