// Threads that use objects of every kind against threads that close and make them anew. Whatever the order, each call
// gives a documented status, a run that succeeds gives the right values, an object is closed once, and nothing touches
// memory that was freed: the address and thread sanitizers look for that. GATUN_RACE_SECONDS says how long, 3 without
// it.
#include <array>
#include <atomic>
#include <chrono>
#include <thread>

#include "device_test.h"

namespace gatun::test {
namespace {

using Clock = std::chrono::steady_clock;

Clock::duration duration() {
  const char* seconds = std::getenv("GATUN_RACE_SECONDS");
  return std::chrono::milliseconds(static_cast<int64_t>((seconds != nullptr ? std::atof(seconds) : 3.0) * 1000));
}

const char* kDevice = "cpu:scalar";

// One size serves all operators: kRows rows (queries, keys) of kN elements.
constexpr int kRows = 4, kN = 8;
constexpr int kElements = kRows * kN;
using Matrix = std::array<float, kElements>;

gtn_tensor_desc matrix() { return tensor(GTN_F32, {kRows, kN}); }

// An operator: how its plan is made and run on x, and what comes out.
struct Operator {
  const char* name;
  gtn_status (*plan)(gtn_device device, gtn_plan* plan, gtn_message* message);
  gtn_status (*run)(gtn_plan plan, gtn_stream stream, gtn_weights weights, const float* x, float* out);
  Matrix (*expected)(const Matrix& x);
};

// Small whole numbers, so that sums of products are exact.
float weight(int k, int n) { return static_cast<float>((3 * k + n) % 5 - 2); }

const Operator kOperators[] = {
    {"gemm",
     [](gtn_device device, gtn_plan* plan, gtn_message* message) {
       const gtn_gemm_desc desc = {sizeof desc, GTN_F32, matrix(), matrix(), GTN_ACT_NONE, 0, 0, 0, 0, 0, 0, 0, 0};
       return gtn_gemm_plan(device, &desc, plan, message);
     },
     [](gtn_plan plan, gtn_stream stream, gtn_weights weights, const float* x, float* out) {
       return gtn_gemm_run(plan, stream, weights, kRows, x, nullptr, nullptr, out);
     },
     [](const Matrix& x) {
       Matrix out = {};
       for (int i = 0; i < kElements; ++i) {
         for (int k = 0; k < kN; ++k) out[i] += x[i / kN * kN + k] * weight(k, i % kN);
       }
       return out;
     }},
    {"attention",  // a window of the query's own key alone, whose weight is 1
     [](gtn_device device, gtn_plan* plan, gtn_message* message) {
       const gtn_tensor_desc t = tensor(GTN_F32, {1, kRows, 1, kN});
       const gtn_attention_pattern own = {sizeof own, 0, 0, 0, 1, 0};
       gtn_attention_desc desc = {};
       desc.size = sizeof desc;
       desc.q = desc.k = desc.v = desc.out = t;
       desc.patterns = &own;
       desc.pattern_count = 1;
       return gtn_attention_plan(device, &desc, plan, message);
     },
     [](gtn_plan plan, gtn_stream stream, gtn_weights, const float* x, float* out) {
       return gtn_attention_run(plan, stream, 1, kRows, kRows, nullptr, nullptr, x, x, x, out, nullptr);
     },
     [](const Matrix& x) { return x; }},
    {"norm",
     [](gtn_device device, gtn_plan* plan, gtn_message* message) {
       const gtn_norm_desc desc = {sizeof desc, GTN_NORM_RMS, matrix(), matrix(), 0.0f, 0, 0, 0};
       return gtn_norm_plan(device, &desc, plan, message);
     },
     [](gtn_plan plan, gtn_stream stream, gtn_weights, const float* x, float* out) {
       static const float gamma[kN] = {1, 1, 1, 1, 1, 1, 1, 1};
       return gtn_norm_run(plan, stream, kRows, x, nullptr, gamma, nullptr, out, nullptr);
     },
     [](const Matrix& x) {
       Matrix out = {};
       for (int r = 0; r < kRows; ++r) {
         double squares = 0;
         for (int i = r * kN; i < (r + 1) * kN; ++i) squares += double{x[i]} * x[i];
         for (int i = r * kN; i < (r + 1) * kN; ++i) out[i] = static_cast<float>(x[i] / std::sqrt(squares / kN));
       }
       return out;
     }},
    {"softmax",
     [](gtn_device device, gtn_plan* plan, gtn_message* message) {
       const gtn_softmax_desc desc = {sizeof desc, 1.0f, matrix(), matrix()};
       return gtn_softmax_plan(device, &desc, plan, message);
     },
     [](gtn_plan plan, gtn_stream stream, gtn_weights, const float* x, float* out) {
       return gtn_softmax_run(plan, stream, kRows, x, out);
     },
     [](const Matrix& x) {
       Matrix out = {};
       for (int r = 0; r < kRows; ++r) {
         double sum = 0;
         for (int i = r * kN; i < (r + 1) * kN; ++i) sum += std::exp(double{x[i]});
         for (int i = r * kN; i < (r + 1) * kN; ++i) out[i] = static_cast<float>(std::exp(double{x[i]}) / sum);
       }
       return out;
     }},
    {"activation",
     [](gtn_device device, gtn_plan* plan, gtn_message* message) {
       const gtn_activation_desc desc = {sizeof desc, GTN_ACT_RELU, matrix(), matrix(), 0, 0};
       return gtn_activation_plan(device, &desc, plan, message);
     },
     [](gtn_plan plan, gtn_stream stream, gtn_weights, const float* x, float* out) {
       return gtn_activation_run(plan, stream, kRows, x, nullptr, out);
     },
     [](const Matrix& x) {
       Matrix out = {};
       for (int i = 0; i < kElements; ++i) out[i] = x[i] > 0 ? x[i] : 0.0f;
       return out;
     }},
};
constexpr int kOperatorCount = sizeof kOperators / sizeof kOperators[0];

gtn_status pack(gtn_device device, gtn_weights* packed, gtn_message* message) {
  float source[kN * kN];
  for (int i = 0; i < kN * kN; ++i) source[i] = weight(i / kN, i % kN);
  const gtn_weights_desc desc = {sizeof desc, GTN_F32, tensor(GTN_F32, {kN, kN}), 0, 0, 0};
  return gtn_weights_pack(device, &desc, source, packed, message);
}

// A handle that all threads see. Relaxed: that objects arrive whole where handles do is the library's to see to.
struct Shared {
  std::atomic<uint64_t> handle{0};
  uint64_t get() const { return handle.load(std::memory_order_relaxed); }
  bool change(uint64_t from, uint64_t to) {
    return handle.compare_exchange_strong(from, to, std::memory_order_relaxed);
  }
};

// A device and what is open on it. Its objects may be of an earlier device that was in `device`.
struct Ensemble {
  Shared device, streams[2], events[2], weights, plans[kOperatorCount];
};

using Close = gtn_status (*)(uint64_t handle, gtn_message* message);

class CloseRace : public ::testing::Test {
 protected:
  static constexpr int kStatuses = GTN_INTERNAL + 1;

  void SetUp() override { ASSERT_FALSE(cpu_devices().empty()); }

  // Calls step(random) over and over in `threads` threads, until the time is over or something is wrong.
  template <typename Step>
  void in_threads(std::vector<std::thread>& all, int threads, Clock::time_point end, Step step) {
    for (int t = 0; t < threads; ++t) {
      all.emplace_back([this, end, step, seed = all.size()] {
        std::mt19937_64 random(seed);
        while (!failed && Clock::now() < end) step(random);
      });
    }
  }

  void wrong(const std::string& what) {
    if (!failed.exchange(true)) ADD_FAILURE() << what;
  }

  // Counts `status` and says whether it is GTN_OK; any that is not in `also` is wrong.
  bool expect(const char* call, gtn_status status, std::initializer_list<gtn_status> also, const char* text = "") {
    if (status >= 0 && status < kStatuses) seen[status].fetch_add(1, std::memory_order_relaxed);
    if (status == GTN_OK) return true;
    for (gtn_status other : also) {
      if (status == other) return false;
    }
    wrong(std::string(call) + " gave status " + std::to_string(status) + ": " + text);
    return false;
  }

  // Closes what only this thread should have. A call with an old handle of the same slot may be inside for a moment.
  void close_own(const char* what, Close close, uint64_t handle) {
    const auto patience = Clock::now() + std::chrono::seconds(20);
    Message message;
    gtn_status status;
    while ((status = close(handle, &message)) == GTN_BUSY && Clock::now() < patience) std::this_thread::yield();
    expect(what, status, {}, message.text);
  }

  // Closes a shared object, which others may do too: one of them does.
  void close_shared(const char* what, Close close, Shared& shared) {
    const uint64_t handle = shared.get();
    if (handle == 0) return;
    Message message;
    if (expect(what, close(handle, &message), {GTN_BUSY, GTN_STALE_HANDLE}, message.text) &&
        !shared.change(handle, 0)) {
      wrong(std::string(what) + " closed one object twice");
    }
  }

  template <typename Make>
  void make_shared(const char* what, Make make, Close close, Shared& shared) {
    if (shared.get() != 0) return;
    uint64_t made = 0;
    Message message;
    if (!expect(what, make(&made, &message), {GTN_STALE_HANDLE}, message.text)) return;
    if (!shared.change(0, made)) close_own(what, close, made);
  }

  void make_all(Ensemble& on) {
    Message message;
    make_shared("open", [](uint64_t* made, gtn_message* m) { return gtn_device_open(kDevice, nullptr, made, m); },
                gtn_device_close, on.device);
    const gtn_device device = on.device.get();
    for (Shared& stream : on.streams) {
      const auto make = [&](uint64_t* made, gtn_message* m) { return gtn_stream_create(device, made, m); };
      make_shared("gtn_stream_create", make, gtn_stream_close, stream);
    }
    for (Shared& event : on.events) {
      const auto make = [&](uint64_t* made, gtn_message* m) { return gtn_event_create(device, made, m); };
      make_shared("gtn_event_create", make, gtn_event_close, event);
    }
    make_shared("gtn_weights_pack", [&](uint64_t* made, gtn_message* m) { return pack(device, made, m); },
                gtn_weights_close, on.weights);
    for (int op = 0; op < kOperatorCount; ++op) {
      const auto make = [&](uint64_t* made, gtn_message* m) { return kOperators[op].plan(device, made, m); };
      make_shared(kOperators[op].name, make, gtn_plan_close, on.plans[op]);
    }
  }

  // The whole of an ensemble, and its device unless somebody makes something on it meanwhile.
  void close_all(Ensemble& on) {
    for (Shared& stream : on.streams) close_shared("gtn_stream_close", gtn_stream_close, stream);
    for (Shared& event : on.events) close_shared("gtn_event_close", gtn_event_close, event);
    close_shared("gtn_weights_close", gtn_weights_close, on.weights);
    for (Shared& plan : on.plans) close_shared("gtn_plan_close", gtn_plan_close, plan);
    close_shared("gtn_device_close", gtn_device_close, on.device);
  }

  // Runs an operator, and compares what comes out. `also` as in expect().
  void run(const Operator& op, gtn_plan plan, gtn_stream stream, gtn_weights weights, std::mt19937_64& random,
           std::initializer_list<gtn_status> also) {
    Matrix x, out;
    for (float& value : x) value = static_cast<float>(static_cast<int>(random() % 9) - 4) + 0.5f;
    out.fill(-7.0f);
    const gtn_status status = op.run(plan, stream, weights, x.data(), out.data());
    if (expect(op.name, status, also)) {
      const Matrix expected = op.expected(x);
      for (int i = 0; i < kElements; ++i) {
        if (std::fabs(out[i] - expected[i]) <= 1e-5f) continue;
        wrong(std::string(op.name) + " gave " + std::to_string(out[i]) + ", expected " + std::to_string(expected[i]));
      }
      return;
    }
    for (float value : out) {
      if (value != -7.0f) wrong(std::string(op.name) + " failed and wrote its output");
    }
    // The one thing wrong with an argument here: objects of a device and of the one that followed it.
    Message message;
    if (status == GTN_INVALID_ARGUMENT && gtn_stream_message(stream, &message) == GTN_OK &&
        std::strstr(message.text, "on another device") == nullptr) {
      wrong(std::string(op.name) + ": " + message.text);
    }
  }

  void use(Ensemble& on, std::mt19937_64& random) {
    const gtn_stream stream = on.streams[random() % 2].get();
    const gtn_event event = on.events[random() % 2].get(), other = on.events[random() % 2].get();
    Message message;
    // Memory that is this thread's alone: its device stays open as long.
    const gtn_device device = on.device.get();
    void* memory = nullptr;
    switch (random() % 8) {
      case 0:
        expect("gtn_event_record", gtn_event_record(event, stream, &message),
               {GTN_STALE_HANDLE, GTN_BUSY, GTN_INVALID_ARGUMENT}, message.text);
        break;
      case 1: {
        int32_t done = -1;
        if (expect("gtn_event_query", gtn_event_query(event, &done, &message), {GTN_STALE_HANDLE, GTN_INVALID_ARGUMENT},
                   message.text) &&
            done != 0 && done != 1) {
          wrong("gtn_event_query gave " + std::to_string(done));
        }
        double milliseconds = 0;
        expect("gtn_event_elapsed", gtn_event_elapsed(event, other, &milliseconds, &message),
               {GTN_STALE_HANDLE, GTN_INVALID_ARGUMENT}, message.text);
        expect("gtn_event_synchronize", gtn_event_synchronize(event, &message),
               {GTN_STALE_HANDLE, GTN_INVALID_ARGUMENT}, message.text);
        break;
      }
      case 2: {
        expect("gtn_stream_synchronize", gtn_stream_synchronize(stream, &message), {GTN_STALE_HANDLE, GTN_BUSY},
               message.text);
        gtn_plan_info plan = {};
        plan.size = sizeof plan;
        if (expect("gtn_plan_query", gtn_plan_query(on.plans[0].get(), &plan, &message), {GTN_STALE_HANDLE},
                   message.text) &&
            plan.op != GTN_OP_GEMM) {
          wrong("gtn_plan_query gave operator " + std::to_string(plan.op));
        }
        gtn_weights_info weights = {};
        weights.size = sizeof weights;
        if (expect("gtn_weights_query", gtn_weights_query(on.weights.get(), &weights, &message), {GTN_STALE_HANDLE},
                   message.text) &&
            weights.k != kN) {
          wrong("gtn_weights_query gave k = " + std::to_string(weights.k));
        }
        break;
      }
      case 3: {
        if (!expect("gtn_memory_alloc", gtn_memory_alloc(device, 256, 64, &memory, &message), {GTN_STALE_HANDLE},
                    message.text)) {
          break;
        }
        unsigned char from[256], to[256] = {};
        for (unsigned char& byte : from) byte = static_cast<unsigned char>(random());
        if (expect("gtn_memory_copy", gtn_memory_copy(stream, memory, from, 256, GTN_HOST_TO_DEVICE, &message),
                   {GTN_STALE_HANDLE, GTN_BUSY}, message.text) &&
            expect("gtn_memory_copy", gtn_memory_copy(stream, to, memory, 256, GTN_DEVICE_TO_HOST, &message),
                   {GTN_STALE_HANDLE, GTN_BUSY}, message.text) &&
            std::memcmp(from, to, 256) != 0) {
          wrong("gtn_memory_copy changed what it copied");
        }
        gtn_device_info info = {};
        info.size = sizeof info;
        expect("gtn_device_describe", gtn_device_describe(device, &info, &message), {}, message.text);
        expect("gtn_memory_free", gtn_memory_free(device, memory, &message), {}, message.text);
        break;
      }
      default: {
        const int op = static_cast<int>(random() % kOperatorCount);
        run(kOperators[op], on.plans[op].get(), stream, on.weights.get(), random,
            {GTN_STALE_HANDLE, GTN_BUSY, GTN_INVALID_ARGUMENT});
      }
    }
  }

  // A device and all on it, of this thread alone: nothing that others do may be felt here.
  void use_own(std::mt19937_64& random) {
    Message message;
    gtn_device device = 0;
    gtn_stream stream = 0;
    gtn_weights weights = 0;
    gtn_plan plan = 0;
    const Operator& op = kOperators[random() % kOperatorCount];
    if (!expect("gtn_device_open", gtn_device_open(kDevice, nullptr, &device, &message), {}, message.text)) return;
    expect("gtn_stream_create", gtn_stream_create(device, &stream, &message), {}, message.text);
    expect("gtn_weights_pack", pack(device, &weights, &message), {}, message.text);
    expect(op.name, op.plan(device, &plan, &message), {}, message.text);
    // GTN_BUSY: see close_own().
    for (int i = 0; i < 3; ++i) run(op, plan, stream, weights, random, {GTN_BUSY});
    close_own("gtn_plan_close", gtn_plan_close, plan);
    close_own("gtn_weights_close", gtn_weights_close, weights);
    close_own("gtn_stream_close", gtn_stream_close, stream);
    close_own("gtn_device_close", gtn_device_close, device);
  }

  std::atomic<bool> failed{false};
  std::atomic<int64_t> seen[kStatuses] = {};
};

TEST_F(CloseRace, EverythingIsClosedWhileItIsUsed) {
  Ensemble ensembles[2];
  const auto end = Clock::now() + duration();
  std::vector<std::thread> threads;
  in_threads(threads, 4, end, [&](std::mt19937_64& random) { use(ensembles[random() % 2], random); });
  in_threads(threads, 1, end, [&](std::mt19937_64& random) { use_own(random); });
  in_threads(threads, 2, end, [&](std::mt19937_64& random) {
    Ensemble& on = ensembles[random() % 2];
    make_all(on);
    switch (random() % 6) {
      case 0:
        return close_shared("gtn_stream_close", gtn_stream_close, on.streams[random() % 2]);
      case 1:
        return close_shared("gtn_event_close", gtn_event_close, on.events[random() % 2]);
      case 2:
        return close_shared("gtn_weights_close", gtn_weights_close, on.weights);
      case 3:
        return close_shared("gtn_device_close", gtn_device_close, on.device);
      case 4:
        return close_shared("gtn_plan_close", gtn_plan_close, on.plans[random() % kOperatorCount]);
      default:
        return close_all(on);
    }
  });
  for (std::thread& thread : threads) thread.join();
  for (Ensemble& on : ensembles) {
    close_all(on);
    EXPECT_EQ(0u, on.device.get()) << "something keeps the device open";
  }
  std::printf("calls: %lld done, %lld with a stale handle, %lld busy, %lld with objects of two devices\n",
              static_cast<long long>(seen[GTN_OK]), static_cast<long long>(seen[GTN_STALE_HANDLE]),
              static_cast<long long>(seen[GTN_BUSY]), static_cast<long long>(seen[GTN_INVALID_ARGUMENT]));
  // Else the threads never met.
  for (gtn_status status : {GTN_OK, GTN_STALE_HANDLE, GTN_BUSY}) EXPECT_LT(0, seen[status]) << "status " << status;
}

// Slots of closed streams are used again; who gets one must not meet the close that is leaving it.
TEST_F(CloseRace, ANewStreamIsNotBusy) {
  Message message;
  gtn_device device = 0;
  ASSERT_EQ(GTN_OK, gtn_device_open(kDevice, nullptr, &device, &message)) << message.text;
  std::vector<std::thread> threads;
  in_threads(threads, 4, Clock::now() + duration() / 3, [&](std::mt19937_64&) {
    Message text;
    gtn_stream stream = 0;
    if (!expect("gtn_stream_create", gtn_stream_create(device, &stream, &text), {}, text.text)) return;
    expect("gtn_stream_synchronize", gtn_stream_synchronize(stream, &text), {}, text.text);
    expect("gtn_stream_close", gtn_stream_close(stream, &text), {}, text.text);
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(GTN_OK, gtn_device_close(device, &message)) << message.text;
}

}  // namespace
}  // namespace gatun::test
