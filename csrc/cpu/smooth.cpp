// The loop over tiles of draws: threads take them from one counter and keep totals of their own.
#include "pixeldp/smooth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>

#ifdef PIXELDP_X86
#include <xmmintrin.h>
#endif

namespace pixeldp {
namespace {

// Rounding to nearest and subnormal numbers kept, whatever the program has set for its threads:
// both are part of the arithmetic that a certificate names.
class PlainFloats {
#ifdef PIXELDP_X86
 public:
  PlainFloats() : before_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~PlainFloats() { _mm_setcsr(before_); }
  PlainFloats(const PlainFloats&) = delete;
  PlainFloats& operator=(const PlainFloats&) = delete;

 private:
  unsigned before_;
#endif
};

using Clock = std::chrono::steady_clock;
constexpr auto kBetweenQuestions = std::chrono::milliseconds(100);

// Rows of work in tiles of whole blocks. The rows of a tile belong to one example.
struct Tiles {
  std::int64_t examples, rows, per_tile;
  std::int64_t per_example() const { return (rows + per_tile - 1) / per_tile; }
  std::int64_t count() const { return examples * per_example(); }
};

// Big enough for the weights, small enough that every thread has its share.
Tiles tiles_for(const Network& network, std::int64_t examples, std::int64_t rows,
                const Spread& spread) {
  const std::int64_t lanes = network.kernels().lanes;
  const auto blocks_of = [&](std::int64_t draws) {
    return std::max<std::int64_t>((draws + lanes - 1) / lanes, 1);
  };
  std::int64_t blocks = std::min(network.preferred_blocks(), blocks_of(rows));
  if (spread.tile > 0) blocks = std::min(blocks, blocks_of(spread.tile));
  const std::int64_t share = blocks_of(blocks_of(rows) * examples * lanes / spread.threads);
  blocks = std::min(blocks, share);
  return {examples, rows, (blocks > 3 ? blocks / 3 * 3 : blocks) * lanes};
}

// One thread's memory. Built with PIXELDP_POISON everything in it is NaN before each tile.
struct Worker {
  Buffer arena;
  std::vector<float> outputs;
};

// Runs `tile(worker, example, first row, rows, stop)` for all tiles; false if interrupted.
template <class Body>
bool for_all_tiles(const Network& network, const Tiles& tiles, int threads,
                   const Interrupted& interrupted, const Body& body) {
  const std::int64_t lanes = network.kernels().lanes;
  const std::int64_t floats = network.arena_floats(tiles.per_tile / lanes);
  const int workers = static_cast<int>(
      std::max<std::int64_t>(1, std::min<std::int64_t>(threads, tiles.count())));
  std::vector<Worker> memory(static_cast<std::size_t>(workers));
  for (Worker& worker : memory) {
    worker.arena = aligned_floats(floats);
    worker.outputs.resize(static_cast<std::size_t>(network.output().size()));
  }
  std::atomic<std::int64_t> next{0};
  std::atomic<bool> stopped{false};
  std::exception_ptr failure;
  std::mutex failing;

  auto asked = Clock::now();
  const auto ask = [&] {  // the calling thread only
    if (Clock::now() - asked < kBetweenQuestions) return;
    if (interrupted()) stopped = true;
    asked = Clock::now();
  };
  const auto work = [&](int id) {
    [[maybe_unused]] const PlainFloats plain;
    const auto stop = [&] {
      if (id == 0) ask();
      return stopped.load(std::memory_order_relaxed);
    };
    try {
      for (std::int64_t tile = next++; tile < tiles.count() && !stop(); tile = next++) {
        const std::int64_t example = tile / tiles.per_example();
        const std::int64_t first = tile % tiles.per_example() * tiles.per_tile;
        const std::int64_t rows = std::min(tiles.per_tile, tiles.rows - first);
        body(memory[static_cast<std::size_t>(id)], id, example, first, rows, stop);
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failing);
      failure = std::current_exception();
      stopped = true;
    }
  };

  std::vector<std::thread> pool;
  for (int id = 1; id < workers; ++id) {
    try {
      pool.emplace_back(work, id);
    } catch (const std::system_error&) {  // no thread to be had: the others do the work
      break;
    }
  }
  work(0);
  // This thread has found no tile left, as every other will in turn: go on asking on their behalf.
  const std::int64_t all_done = tiles.count() + static_cast<std::int64_t>(pool.size()) + 1;
  while (!stopped && next.load() < all_done) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    ask();
  }
  for (std::thread& thread : pool) thread.join();
  if (failure) std::rethrow_exception(failure);
  return !stopped;
}

// Lane `lane` of a block's output [H][W][C][lane], in C order.
void gather(const Shape& shape, const float* block, std::int64_t lanes, std::int64_t lane,
            float* out) {
  const std::int64_t pixels = shape.h * shape.w;
  for (std::int64_t c = 0; c < shape.c; ++c) {
    for (std::int64_t p = 0; p < pixels; ++p) *out++ = block[(p * shape.c + c) * lanes + lane];
  }
}

// Evaluates a tile whose input `fill(block, y, scratch)` writes; `take(row, outputs)` gets the rows.
template <class Fill, class Stop, class Take>
void evaluate_tile(const Network& network, Worker& worker, std::int64_t rows, const Fill& fill,
                   const Stop& stop, const Take& take) {
  const std::int64_t lanes = network.kernels().lanes, blocks = (rows + lanes - 1) / lanes;
  float* arena = worker.arena.get();
#ifdef PIXELDP_POISON
  std::fill_n(arena, network.arena_floats(blocks), std::numeric_limits<float>::quiet_NaN());
#endif
  const std::int64_t input = network.input().size() * lanes, output = network.output().size() * lanes;
  for (std::int64_t block = 0; block < blocks; ++block) {
    fill(block, network.input_at(arena) + block * input, network.scratch_at(arena, blocks));
  }
  if (!network.evaluate(arena, blocks, stop)) return;
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* block = network.output_at(arena, blocks) + row / lanes * output;
    gather(network.output(), block, lanes, row % lanes, worker.outputs.data());
    take(row, worker.outputs.data());
  }
}

template <class Take>
bool for_all_draws(const Network& network, const Draws& draws, const Spread& spread,
                   const Interrupted& interrupted, const Take& take) {
  const Tiles tiles = tiles_for(network, draws.examples, draws.count, spread);
  const std::int64_t lanes = network.kernels().lanes, size = network.input().size();
  return for_all_tiles(
      network, tiles, spread.threads, interrupted,
      [&](Worker& worker, int id, std::int64_t example, std::int64_t first, std::int64_t rows,
          const auto& stop) {
        Source source = network.source;
        source.center = draws.centers + example * size;
        const auto fill = [&](std::int64_t block, float* y, float* scratch) {
          const Row row = {draws.seed, draws.purpose, draws.index[example],
                           draws.first_draw + static_cast<std::uint32_t>(first + block * lanes),
                           size};
          network.kernels().noisy_block(draws.noise, row, source, y, scratch);
        };
        evaluate_tile(network, worker, rows, fill, stop,
                      [&](std::int64_t row, const float* outputs) {
                        take(id, example, first + row, outputs);
                      });
      });
}

}  // namespace

bool tally(const Network& network, const Draws& draws, Reduction reduction, Interval interval,
           const Spread& spread, const Interrupted& interrupted, std::int64_t* totals) {
  const std::int64_t outputs = network.output().size(), size = network.input().size();
  const std::int64_t width = width_of(reduction, outputs);
  std::fill_n(totals, draws.examples * width, 0);
  std::vector<char> hopeless(static_cast<std::size_t>(draws.examples));
  for (std::int64_t b = 0; b < draws.examples; ++b) {
    const float* center = draws.centers + b * size;
    hopeless[static_cast<std::size_t>(b)] =
        !std::all_of(center, center + size, [](float v) { return std::isfinite(v); });
  }
  std::vector<std::vector<std::int64_t>> own(static_cast<std::size_t>(spread.threads));
  for (auto& part : own) part.assign(static_cast<std::size_t>(draws.examples * width), 0);
  const bool done = for_all_draws(
      network, draws, spread, interrupted,
      [&](int id, std::int64_t example, std::int64_t, const float* values) {
        std::int64_t* part = own[static_cast<std::size_t>(id)].data() + example * width;
        reduce(reduction, interval, values, outputs, part);
      });
  for (const auto& part : own) {
    for (std::size_t i = 0; i < part.size(); ++i) totals[i] += part[i];
  }
  // Where the features are not finite, noise cannot hide them: every draw counts as non-finite.
  const std::vector<float> nothing(static_cast<std::size_t>(outputs),
                                   std::numeric_limits<float>::quiet_NaN());
  for (std::int64_t b = 0; b < draws.examples; ++b) {
    if (!hopeless[static_cast<std::size_t>(b)]) continue;
    std::vector<std::int64_t> one(static_cast<std::size_t>(width), 0);
    reduce(reduction, interval, nothing.data(), outputs, one.data());
    for (std::int64_t i = 0; i < width; ++i) {
      totals[b * width + i] = one[static_cast<std::size_t>(i)] * draws.count;
    }
  }
  return done;
}

bool outputs_of_draws(const Network& network, const Draws& draws, const Spread& spread,
                      const Interrupted& interrupted, float* outputs) {
  const std::int64_t count = network.output().size();
  return for_all_draws(network, draws, spread, interrupted,
                       [&](int, std::int64_t example, std::int64_t row, const float* values) {
                         std::copy_n(values, count,
                                     outputs + (example * draws.count + row) * count);
                       });
}

bool outputs_of_rows(const Network& network, const float* features, std::int64_t rows,
                     const Spread& spread, const Interrupted& interrupted, float* outputs) {
  const Tiles tiles = tiles_for(network, 1, rows, spread);
  const std::int64_t lanes = network.kernels().lanes;
  const std::int64_t size = network.input().size(), count = network.output().size();
  return for_all_tiles(
      network, tiles, spread.threads, interrupted,
      [&](Worker& worker, int, std::int64_t, std::int64_t first, std::int64_t some,
          const auto& stop) {
        const auto fill = [&](std::int64_t block, float* y, float* scratch) {
          Source source = network.source;
          source.center = features + (first + block * lanes) * size;
          network.kernels().given_block(source, std::min(lanes, some - block * lanes), y, scratch);
        };
        evaluate_tile(network, worker, some, fill, stop,
                      [&](std::int64_t row, const float* values) {
                        std::copy_n(values, count, outputs + (first + row) * count);
                      });
      });
}

}  // namespace pixeldp
