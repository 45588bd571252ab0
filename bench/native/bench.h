// What the microbenchmarks of every operator family share: open devices, operands in their memory, and what is
// measured. Everything goes through the C ABI, as in an application.
#pragma once

#include <gatun/gatun.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace gatun::bench {

struct Message : gtn_message {
  Message() {
    size = sizeof(gtn_message);
    text[0] = '\0';
  }
};

// What a device says of a plan that it does not serve.
struct Declined : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws where the status is not GTN_OK: Declined for GTN_UNSUPPORTED, else std::runtime_error, with the message.
void check(gtn_status status, const gtn_message& message);

// An open device and a stream on it, closed with the object.
class Device {
 public:
  // threads = 0 takes as many as the device would.
  Device(const std::string& name, int threads);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // Whether the device claims an operator on elements of a type, or claims nothing at all.
  bool claims(int32_t op, int32_t dtype) const;

  // A ceiling, GTN_LIMIT_*, in operations or bytes per second, measured in the last second: the speed of a machine
  // changes during a run, and only neighbours in time can be compared. 0 where the backend cannot say.
  double limit(int32_t which);

  // Checks the status of a run on the stream, and waits for the stream.
  void finish(gtn_status run) const;

  // Whether the host computes: a run is then done when it returns, and the host's clock tells how long it took.
  bool is_host() const { return host_; }

  // Seconds between two points of the stream, by the device's own clock.
  double seconds(const std::function<void()>& between) const;

  const std::string name;
  gtn_device handle = 0;
  gtn_stream stream = 0;

 private:
  bool host_ = true;
  gtn_event start_ = 0, end_ = 0;
  struct Measured {
    double per_second;
    std::chrono::steady_clock::time_point when;
  };
  std::map<int32_t, Measured> limits_;
};

// Elements in memory of a device, normally distributed, since zeros and constants are faster than data; those of S8 are any
// bytes, for outputs and quantized rows.
class Buffer {
 public:
  Buffer(const Device& device, int32_t dtype, int64_t elements);
  template <typename Integer>
  Buffer(const Device& device, const std::vector<Integer>& integers)
      : Buffer(device, integers.data(), static_cast<int64_t>(integers.size() * sizeof(Integer))) {}
  ~Buffer();
  Buffer(Buffer&& other) noexcept : device_(other.device_), data_(other.data_) { other.data_ = nullptr; }
  Buffer& operator=(Buffer&&) = delete;

  void* data() const { return data_; }

 private:
  Buffer(const Device& device, const void* host, int64_t bytes);

  gtn_device device_;
  void* data_ = nullptr;
};

// Normally distributed numbers on the host.
std::vector<float> random_floats(int64_t count);

// A row-major description.
gtn_tensor_desc tensor(int32_t dtype, std::initializer_list<int64_t> shape);

// An operator, planned on a device, with any number of sets of operands.
class Problem {
 public:
  virtual ~Problem();
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  // Adds operands in memory of their own.
  virtual void add() = 0;

  // Runs on a set of operands, and waits for the result.
  void run(size_t set) const { device_.finish(start(set)); }

  // Gives the run to the stream.
  virtual gtn_status start(size_t set) const = 0;

  gtn_plan_info info() const;

 protected:
  explicit Problem(const Device& device) : device_(device) {}

  const Device& device_;
  gtn_plan plan_ = 0;
};

struct Benchmark {
  std::string name;   // "softmax/f32/64x1024"
  int32_t op, dtype;  // what a device must claim
  int32_t limit;      // the ceiling of its arithmetic: GTN_LIMIT_*
  std::function<std::unique_ptr<Problem>(const Device&)> make;
  bool large = false;  // too large for a processor: for accelerators alone
};

// Words for types in names, as in those of kernels: "f32", "bf16", "f16", "int8", "u4", "u8".
const char* type_name(int32_t dtype);

// The ceiling of products of a type, or with weights of a format.
int32_t limit_of(int32_t dtype);

// What each family has, on any device.
std::vector<Benchmark> activation_benchmarks();
std::vector<Benchmark> attention_benchmarks();
std::vector<Benchmark> conv_benchmarks();
std::vector<Benchmark> pooling_benchmarks();
std::vector<Benchmark> gemm_benchmarks();
std::vector<Benchmark> glu_benchmarks();
std::vector<Benchmark> merge_benchmarks();
std::vector<Benchmark> mix_benchmarks();
std::vector<Benchmark> norm_benchmarks();
std::vector<Benchmark> rope_benchmarks();
std::vector<Benchmark> select_benchmarks();
std::vector<Benchmark> route_benchmarks();
std::vector<Benchmark> softmax_benchmarks();

// Shapes of row-wise operators. The first stays in a core's nearest caches, the second is in none of them, the third in none of an
// accelerator.
struct Rows {
  int64_t rows, n;
  bool large = false;
  std::string name() const { return std::to_string(rows) + "x" + std::to_string(n); }
};
inline constexpr Rows kRows[] = {{64, 1024}, {4096, 4096}, {32768, 8192, true}};

}  // namespace gatun::bench
