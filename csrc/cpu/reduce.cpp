// One draw's outputs to integers.
#include <algorithm>
#include <cmath>

#include "pixeldp/smooth.h"

namespace pixeldp {
namespace {

// e^x for x <= 0 in float64, the same on every machine (a library's may differ from one processor to
// the next): x = k ln 2 + r with |r| <= ln 2 / 2, a Taylor polynomial of degree 13 in r. Relative
// error below 1e-15; 0 below the smallest normal number.
double exponential(double x) {
  if (!(x > -708.0)) return 0.0;
  constexpr double kLog2High = 6.93147180369123816490e-01, kLog2Low = 1.90821492927058770002e-10;
  const double k = std::floor(x * 1.44269504088896340736 + 0.5);
  const double r = (x - k * kLog2High) - k * kLog2Low;
  double p = 1.0;
  for (int i = 13; i >= 1; --i) p = 1.0 + p * r / i;
  return std::ldexp(p, static_cast<int>(k));
}

bool all_finite(const float* outputs, std::int64_t count) {
  return std::all_of(outputs, outputs + count, [](float v) { return std::isfinite(v); });
}

// The draw's vote; false for a non-finite draw, which counts in the last column.
bool vote(const float* outputs, std::int64_t count, std::int64_t* totals) {
  const bool finite = all_finite(outputs, count);
  ++totals[finite ? std::max_element(outputs, outputs + count) - outputs : count];
  return finite;
}

// Floored scores sum to at most kGrid: the exact ones do, and rounding is far below one unit.
void softmax(const float* outputs, std::int64_t count, std::int64_t* totals) {
  if (!vote(outputs, count, totals)) return;
  const double top = *std::max_element(outputs, outputs + count);
  double sum = 0.0;
  for (std::int64_t k = 0; k < count; ++k) sum += exponential(outputs[k] - top);
  for (std::int64_t k = 0; k < count; ++k) {
    const auto score = static_cast<std::int64_t>(exponential(outputs[k] - top) / sum * kGrid);
    totals[count + 1 + k] += score;
    totals[2 * count + 1 + k] += score * score;
  }
}

void parts(const Interval& interval, double value, std::int64_t* totals) {
  const bool inside = value >= interval.low && value <= interval.high;  // false for NaN
  ++totals[inside ? 0 : 1];
  if (!inside) return;
  const double ends[2] = {interval.high != 0.0 ? interval.high : 1.0,
                          interval.low != 0.0 ? interval.low : -1.0};
  for (int i = 0; i < 2; ++i) {
    const double fraction = std::min(std::max(value / ends[i], 0.0), 1.0);
    const auto score = static_cast<std::int64_t>(fraction * kGrid);
    totals[2 + i] += score;
    totals[4 + i] += score * score;
  }
}

}  // namespace

std::int64_t width_of(Reduction reduction, std::int64_t outputs) {
  switch (reduction) {
    case Reduction::votes: return outputs + 1;
    case Reduction::softmax: return 3 * outputs + 1;
    case Reduction::parts: return 6;
  }
  return 0;
}

void reduce(Reduction reduction, const Interval& interval, const float* outputs, std::int64_t count,
            std::int64_t* totals) {
  switch (reduction) {
    case Reduction::votes: vote(outputs, count, totals); break;
    case Reduction::softmax: softmax(outputs, count, totals); break;
    case Reduction::parts: parts(interval, static_cast<double>(outputs[0]), totals); break;
  }
}

}  // namespace pixeldp
