// Microbenchmarks of every operator on every device, beside the device's own ceilings.
//
//   gatun_bench --benchmark_filter='cpu:avx2/gemm/.*/warm' [--threads=N] [any other option of Google Benchmark]
//
// A name is <device>/<operator>/<type>/<shape>/<warm or cold>. Warm runs use one set of operands again and again; cold
// runs take turns through more sets than any cache holds. The label is the kernel that ran; flops and bytes are the
// plan's, per second. roofline is the least time that the device's ceilings, measured during the same run, would allow
// for them, divided by the time it took: 1 is as fast as the device can. Warm runs may exceed it, since caches are
// faster than the memory that the ceiling is of. The host's devices are timed by the host's clock, a run at a time, others
// by events around runs that follow each other. What an accelerator declines is named, and is no failure.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "bench.h"

namespace gatun::bench {
namespace {

// Several times the largest caches that there are.
constexpr double kColdBytes = 512.0 * 1024 * 1024;

// The operands of the benchmark that runs: Google Benchmark calls a function several times, to find out how many
// iterations it needs, and the next call goes on where the last one stopped.
struct Prepared {
  std::string name;
  std::unique_ptr<Problem> problem;
  size_t sets = 0, last = 0;

  void run() { problem->run(next()); }

  size_t next() {
    if (++last >= sets) last = 0;
    return last;
  }
};
Prepared prepared;
bool failed = false;

void prepare(const std::string& name, const Device& device, const Benchmark& benchmark, bool cold) {
  if (prepared.name == name) return;
  prepared = {};  // frees the operands of the one before
  Prepared made;
  made.problem = benchmark.make(device);
  const double cold_sets = std::ceil(kColdBytes / made.problem->info().bytes);
  made.sets = cold ? static_cast<size_t>(std::clamp(cold_sets, 2.0, device.is_host() ? 4096.0 : 256.0)) : 1;
  for (size_t set = 0; set < made.sets; ++set) made.problem->add();
  made.name = name;
  prepared = std::move(made);
}

double time_on_host(benchmark::State& state) {
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) prepared.run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Runs follow each other without a wait, as many as take some milliseconds, so that what is timed is the device and not the way
// to it.
double time_on_device(benchmark::State& state, const Device& device) {
  constexpr double kBatchSeconds = 2e-3;
  const auto run = [&](int64_t count) {
    return device.seconds([&] {
      for (int64_t i = 0; i < count; ++i) {
        const gtn_status status = prepared.problem->start(prepared.next());
        if (status != GTN_OK) device.finish(status);
      }
    });
  };
  const double one = std::max(run(4) / 4, 1e-6);
  const int64_t batch = std::clamp(static_cast<int64_t>(kBatchSeconds / one), int64_t{1}, int64_t{500});
  double seconds = 0;
  while (state.KeepRunningBatch(batch)) {
    const double took = run(batch);
    state.SetIterationTime(took);
    seconds += took;
  }
  return seconds;
}

void measure(benchmark::State& state, const std::string& name, Device& device, const Benchmark& benchmark, bool cold) {
  try {
    prepare(name, device, benchmark, cold);
    const double operations_per_second = device.limit(benchmark.limit);
    const double bytes_per_second = device.limit(GTN_LIMIT_MEMORY);
    prepared.run();  // the first one grows the workspace, and fills the caches of a warm run
    const double seconds = device.is_host() ? time_on_host(state) : time_on_device(state, device);

    const gtn_plan_info info = prepared.problem->info();
    state.SetLabel(info.kernel);
    state.counters["flops"] = benchmark::Counter(info.flops, benchmark::Counter::kIsIterationInvariantRate);
    state.counters["bytes"] = benchmark::Counter(info.bytes, benchmark::Counter::kIsIterationInvariantRate);
    const double arithmetic = operations_per_second > 0 ? info.flops / operations_per_second : 0;
    const double memory = bytes_per_second > 0 ? info.bytes / bytes_per_second : 0;
    if (arithmetic > 0 || memory > 0) {
      state.counters["roofline"] = std::max(arithmetic, memory) * static_cast<double>(state.iterations()) / seconds;
    }
  } catch (const Declined& declined) {
    failed |= device.is_host();  // processors serve all that is here
    state.SkipWithError((std::string("declined: ") + declined.what()).c_str());
  } catch (const std::exception& error) {
    failed = true;
    state.SkipWithError(error.what());
  }
}

// The names of all devices that can be opened. A backend's device without a selector is one of the others.
std::vector<std::string> device_names() {
  Message message;
  check(gtn_backend_discover(nullptr, &message), message);
  std::vector<std::string> names;
  int32_t backends = 0;
  check(gtn_backend_count(&backends, &message), message);
  for (int32_t b = 0; b < backends; ++b) {
    gtn_backend_info backend = {};
    backend.size = sizeof backend;
    check(gtn_backend_query(b, &backend, &message), message);
    if (backend.status != GTN_OK) std::fprintf(stderr, "%s is not available: %s\n", backend.name, backend.reason);
    for (int32_t d = 0; d < backend.device_count; ++d) {
      gtn_device_info device = {};
      device.size = sizeof device;
      check(gtn_device_query(b, d, &device, &message), message);
      if (device.status != GTN_OK) {
        std::fprintf(stderr, "%s is not available: %s\n", device.name, device.reason);
      } else if (std::strchr(device.name, ':') != nullptr || backend.device_count == 1) {
        names.push_back(device.name);
      }
    }
  }
  return names;
}

// Takes --threads=N off the command line; 0 when it is not there.
int take_threads(int* argc, char** argv) {
  constexpr char kOption[] = "--threads=";
  int threads = 0;
  char** end = std::remove_if(argv + 1, argv + *argc, [&](const char* argument) {
    if (std::strncmp(argument, kOption, sizeof kOption - 1) != 0) return false;
    threads = std::atoi(argument + sizeof kOption - 1);
    if (threads < 1) throw std::runtime_error(std::string(argument) + ": expected a number of threads, 1 or more");
    return true;
  });
  *argc = static_cast<int>(end - argv);
  return threads;
}

int run(int argc, char** argv) {
  const int threads = take_threads(&argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;

  std::vector<Benchmark> all;
  for (const auto& family :
       {gemm_benchmarks, attention_benchmarks, merge_benchmarks, rope_benchmarks, select_benchmarks, route_benchmarks,
        mix_benchmarks, conv_benchmarks, pooling_benchmarks, norm_benchmarks, softmax_benchmarks, activation_benchmarks, glu_benchmarks}) {
    for (Benchmark& benchmark : family()) all.push_back(std::move(benchmark));
  }
  std::vector<std::unique_ptr<Device>> devices;
  for (const std::string& name : device_names()) {
    Device& device = *devices.emplace_back(std::make_unique<Device>(name, threads));
    for (const Benchmark& benchmark : all) {
      if (!device.claims(benchmark.op, benchmark.dtype) || (device.is_host() && benchmark.large)) continue;
      for (const bool cold : {false, true}) {
        const std::string full = name + "/" + benchmark.name + (cold ? "/cold" : "/warm");
        auto* registered = benchmark::RegisterBenchmark(full.c_str(), [&, full, cold](benchmark::State& state) {
          measure(state, full, device, benchmark, cold);
        });
        device.is_host() ? registered->UseRealTime() : registered->UseManualTime();
      }
    }
  }
  const size_t ran = benchmark::RunSpecifiedBenchmarks();
  prepared = {};  // before its device is closed
  if (ran == 0) std::fprintf(stderr, "nothing to run\n");
  return ran == 0 || failed ? 1 : 0;
}

}  // namespace
}  // namespace gatun::bench

int main(int argc, char** argv) {
  try {
    return gatun::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gatun_bench: %s\n", error.what());
    return 2;
  }
}
