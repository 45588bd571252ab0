/* Every fault that the saboteur knows. The library and the program that prints them are made from this one list.
 *
 *   F(identifier, name, verdict, cases, options, what is wrong)
 *
 * `verdict` is what a validation must come to at least once: a verdict of its outcomes ("fail|crashed": either will do),
 * "contradiction" between claims and deeds, or "slower" than the run without a fault. With "pass" and "unsupported" nothing
 * else may come up. `cases` is a pattern for --filter, empty for all; `options` are further options of ./gatun validate. */
#ifndef GATUN_TESTS_SABOTEUR_FAULTS_H
#define GATUN_TESTS_SABOTEUR_FAULTS_H

// clang-format off
#define SABOTEUR_FAULTS(F)                                                                                                     \
  F(NONE,              "none",              "pass", "", "", "nothing is wrong")                                                \
  F(NOISE,             "noise",             "pass", "softmax", "", "every run writes garbage to the standard output")          \
  F(DECLINES,          "declines",          "unsupported", "softmax", "", "BF16 softmax is declined, and not claimed")         \
  /* Attention. */                                                                                                             \
  F(WINDOW_LEFT,       "window-left",       "fail", "attention", "", "windows reach one key too far to the left")              \
  F(WINDOW_RIGHT,      "window-right",      "fail", "attention", "", "windows reach one key too far to the right")             \
  F(CAUSAL,            "causal",            "fail", "attention", "", "a causal query sees the key after its own")              \
  F(HEADS,             "heads",             "fail", "attention", "", "grouped query heads read key heads in reverse order")    \
  F(LENGTHS,           "lengths",           "fail", "attention", "", "lengths of single key sequences are ignored")            \
  F(LSE_LOG2,          "lse-log2",          "fail", "attention", "", "log-sum-exps are binary logarithms")                     \
  F(LSE_FINITE,        "lse-finite",        "fail", "attention", "", "the log-sum-exp of nothing is -1e30")                    \
  /* GEMM. */                                                                                                                  \
  F(ZERO_POINT,        "zero-point",        "fail", "gemm int8", "", "zero points of INT8 rows are not subtracted")            \
  F(PER_TENSOR,        "per-tensor",        "fail", "gemm int8", "", "INT8 weights have one scale for all columns")            \
  F(ONE_WEIGHT,        "one-weight",        "fail", "gemm int8", "", "one quantized weight is one step too high")              \
  F(K_TAIL,            "k-tail",            "fail", "gemm", "", "the last product of an odd number is left out")               \
  F(INFINITE_WEIGHTS,  "infinite-weights",  "fail", "refuse gemm", "", "INT8 weights that are not finite are taken as 0")      \
  F(HALF_SUBNORMALS,   "half-subnormals",   "fail", "gemm f16", "", "subnormal F16 weights are taken as 0")                    \
  F(F8_PER_TENSOR,     "f8-per-tensor",     "fail", "gemm f8", "", "FP8 weights have one scale for all columns")               \
  F(GROUP_ZEROS,       "group-zeros",       "fail", "gemm u4", "", "zero points of quantized weights are taken as 8")          \
  F(BATCH_NORM,        "batch-norm",        "fail", "conv", "", "the mean of a batch normalisation is taken as 0")             \
  F(PADDING,           "padding",           "fail", "conv", "", "padding before and after are exchanged")                      \
  F(POOLING_PADDING,   "pooling-padding",   "fail", "pooling", "", "padding before and after are exchanged")                   \
  F(COUNT_PADDING,     "count-padding",     "fail", "pooling", "", "means do not count the padding that they should")          \
  F(HIGHEST_INTEGER,   "highest-integer",   "fail", "fake_quantize", "", "the highest integer is never taken")                 \
  F(GATE,              "gate",              "fail", "glu", "", "the gate and what it gates are exchanged")                     \
  /* Rows. */                                                                                                                  \
  F(SCALE,             "scale",             "fail", "attention|softmax", "", "the scale is off by one in 1000")                \
  F(BIAS,              "bias",              "fail", "gemm|norm|activation", "", "the last column gets no bias")                \
  F(RESIDUAL,          "residual",          "fail", "gemm|norm", "", "the residual is added twice")                            \
  F(NO_SUM,            "no-sum",            "fail", "norm", "", "the sum before the normalisation is not written")             \
  F(EPSILON,           "epsilon",           "fail", "norm", "", "epsilon is not added")                                        \
  F(GELU,              "gelu",              "fail", "gemm|activation", "", "GELU by erf is computed by tanh")                  \
  F(TRUNCATED,         "truncated",         "fail", "norm|softmax|activation", "", "BF16 outputs are cut off, not rounded")    \
  F(NO_NAN,            "no-nan",            "fail", "gemm|norm|softmax|activation", "", "NaN outputs are replaced by 0")       \
  F(NO_INFINITY,       "no-infinity",       "fail", "gemm|norm|softmax|activation", "", "infinities are the largest number")   \
  F(NO_DENORMALS,      "no-denormals",      "fail", "gemm|norm|softmax|activation", "", "denormal FP32 inputs are taken as 0") \
  F(STRIDES,           "strides",           "fail", "gemm|norm|softmax|activation", "", "gaps between input rows are ignored") \
  /* Memory. */                                                                                                                \
  F(IDLE,              "idle",              "fail", "", "", "runs do nothing")                                                 \
  F(ZEROS,             "zeros",             "fail", "", "", "all outputs are 0")                                               \
  F(TAIL,              "tail",              "fail", "", "", "the last column of an odd number is not written")                 \
  F(EXTRA_ROW,         "extra-row",         "fail", "gemm|norm|softmax|activation", "", "the row after the last is written")   \
  F(PLAN_ROWS,         "plan-rows",         "fail", "gemm|norm|softmax|activation", "", "runs take all rows of the plan")      \
  F(PAST_END,          "past-end",          "fail|crashed", "gemm f32", "", "the element after the last is written")           \
  F(BEFORE_START,      "before-start",      "fail|crashed", "gemm f32", "", "the element before the first is written")         \
  F(GAPS,              "gaps",              "fail", "gemm|norm|softmax|activation", "", "the gap between two rows is written") \
  F(INPUT_WRITTEN,     "input-written",     "fail|crashed", "gemm f32", "", "the first element of the first input is changed") \
  F(READS_PAST_END,    "reads-past-end",    "crashed", "gemm f32", "", "64 bytes after the first input are read")              \
  F(ALIGNED_ONLY,      "aligned-only",      "crashed", "activation", "", "inputs that are not aligned to 16 bytes are fatal")  \
  /* The same again. */                                                                                                        \
  F(RACE,              "race",              "fail", "concurrent", "", "concurrent runs share their scratch memory")            \
  F(THREADS,           "threads",           "fail", "gemm|attention", "", "with several threads last bits differ")             \
  F(RANDOM,            "random",            "fail", "gemm|attention", "", "the last bit of the first output is random")        \
  F(LEAK_RUN,          "leak-run",          "fail", "leak", "", "every run leaks memory")                                      \
  F(LEAK_MAP,          "leak-map",          "fail", "leak", "", "every run leaks mapped memory")                               \
  F(LEAK_PLAN,         "leak-plan",         "fail", "leak", "", "every plan leaks memory")                                     \
  F(LEAK_STREAM,       "leak-stream",       "fail", "leak", "", "every stream leaks memory")                                   \
  F(LEAK_WEIGHTS,      "leak-weights",      "fail", "leak gemm", "", "all packed weights leak memory")                         \
  /* Errors. */                                                                                                                \
  F(NO_ERROR,          "no-error",          "fail", "refuse attention", "", "wrong lengths are accepted")                      \
  F(LATE_ERROR,        "late-error",        "fail", "refuse attention", "", "wrong lengths are found after writing")           \
  F(WRONG_ERROR,       "wrong-error",       "fail", "refuse attention", "", "wrong lengths are called an internal error")      \
  F(INTERNAL,          "internal",          "fail", "softmax bf16", "", "BF16 softmax is declined as an internal error")       \
  F(OVERCLAIMS,        "overclaims",        "contradiction", "softmax", "", "BF16 softmax is claimed and declined")            \
  F(UNDERCLAIMS,       "underclaims",       "contradiction", "softmax", "", "BF16 softmax is served and not claimed")          \
  F(KERNEL_NAME,       "kernel-name",       "fail", "softmax", "", "kernels have the name of another backend")                 \
  /* The process. */                                                                                                           \
  F(CRASH,             "crash",             "crashed", "softmax", "", "a softmax over 17 columns follows a null pointer")      \
  F(CRASH_CLOSE,       "crash-close",       "crashed", "softmax", "", "closing a softmax over 17 columns does")                \
  F(ABORT,             "abort",             "crashed", "softmax", "", "a softmax over 17 columns aborts the process")          \
  F(EXIT,              "exit",              "crashed", "softmax", "", "a softmax over 17 columns ends the process well")       \
  F(HANG,              "hang",              "timed out", "softmax", "--timeout 5", "a softmax over 17 columns never ends")     \
  F(SLEEP,             "sleep",             "timed out", "softmax", "--timeout 5", "a softmax over 17 columns takes minutes")  \
  F(SLOW,              "slow",              "slower", "time", "", "every run takes a millisecond longer")
// clang-format on

#endif
