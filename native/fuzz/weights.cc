// Packed weights from descriptions that are right, nearly right, or any bytes.
#include <vector>

#include "fuzz/input.h"

using namespace gatun::fuzz;

namespace {

// Whether the source lies within `bytes`, so that a backend which reads it may have it, and is packed in no time. An
// empty one is never read.
bool fits(const gtn_weights_desc& desc, int64_t bytes) {
  const gtn_tensor_desc& source = desc.source;
  const int row = source.rank == 3 ? 1 : 0;
  if (source.shape[row] == 0 || source.shape[row + 1] == 0) return true;
  __int128 elements = 1, reach = 1;
  for (int d = 0; d < row + 2; ++d) {
    if (source.shape[d] < 0 || source.shape[d] > 4096) return false;
    elements *= source.shape[d];
    reach += (static_cast<__int128>(source.shape[d]) - 1) * source.strides[d];
  }
  if (elements > 4096) return false;
  return reach * (source.dtype == GTN_F32 ? 4 : 2) <= bytes;
}

// Whether weights of a format may be infinite or NaN.
bool keeps_all(int32_t format) { return format == GTN_F32 || format == GTN_BF16 || format == GTN_F16; }

// Weights that come quantized: mostly right, with one thing wrong.
void pack_quantized(Input& input, gtn_device checking, gtn_device cpu) {
  const int32_t format = one_of<int32_t>(input, {GTN_U4, GTN_U8, GTN_F8E4M3, GTN_F8E5M2});
  const int64_t group_size = any_group_size(input, format), k = input.ConsumeIntegralInRange<int64_t>(0, 140);
  const int64_t n = input.ConsumeIntegralInRange<int64_t>(0, 4), groups = input.ConsumeIntegralInRange<int64_t>(0, 2);
  gtn_quantized_desc desc = {sizeof desc, format, groups, k, n, group_size};
  const int wrong = input.ConsumeIntegralInRange(0, 3);
  if (wrong == 1) spoil(input, &desc, sizeof desc);
  // As much memory as there must be, and no more, where the description is right.
  const int64_t size = !is_f8(format) ? group_size : k > 0 ? k : 1;
  const int64_t blocks = (k + size - 1) / size, columns = (groups > 0 ? groups : 1) * n;
  const int64_t zeros_of_column = format == GTN_U4 ? (blocks + 1) / 2 : blocks;
  std::vector<uint8_t> integers(static_cast<size_t>(columns * blocks * size * (format == GTN_U4 ? 1 : 2) / 2), 0xa5);
  std::vector<uint8_t> zeros(static_cast<size_t>(columns * zeros_of_column), 0x5a);
  std::vector<float> scales(static_cast<size_t>(columns * blocks), 0.5f);
  const bool empty = scales.empty();
  if (wrong == 2 && !empty) {
    const uint32_t bits = input.ConsumeIntegral<uint32_t>();
    std::memcpy(&scales[input.ConsumeIntegralInRange<size_t>(0, scales.size() - 1)], &bits, sizeof bits);
  }
  const void* scales_at = wrong == 3 && input.ConsumeBool() ? nullptr : scales.data();
  const void* integers_at = wrong == 3 && input.ConsumeBool() ? nullptr : integers.data();
  const gtn_device device = wrong != 1 && input.ConsumeBool() ? cpu : checking;
  Exact description(&desc, sizeof desc);
  gtn_message message = empty_message();
  gtn_weights weights = 42;
  const gtn_status status =
      gtn_weights_pack_quantized(device, reinterpret_cast<const gtn_quantized_desc*>(description.data()), integers_at,
                                 scales_at, !is_f8(format) && input.ConsumeBool() ? zeros.data() : nullptr, &weights, &message);
  if (status != GTN_OK) {
    MUST(wrong != 0 && (wrong != 2 || device == cpu));
    MUST(weights == 42);
    return check_failure(status, message);
  }
  gtn_weights_info info = {};
  info.size = sizeof info;
  MUST(gtn_weights_query(weights, &info, &message) == GTN_OK);
  MUST(info.format == desc.format && info.group_size == desc.group_size && info.k == desc.k && info.n == desc.n);
  MUST(info.groups == desc.groups && gtn_weights_close(weights, &message) == GTN_OK);
}

// Weights of convolutions: mostly right, with one thing wrong.
void pack_conv(Input& input, gtn_device checking, gtn_device cpu) {
  const int rank = input.ConsumeIntegralInRange(3, 5);
  const int64_t groups = input.ConsumeIntegralInRange<int64_t>(1, 3);
  const int32_t has_norm = input.ConsumeIntegralInRange(0, 1);
  std::vector<int64_t> shape = {groups * input.ConsumeIntegralInRange<int64_t>(1, 3)};
  while (shape.size() < static_cast<size_t>(rank)) shape.push_back(input.ConsumeIntegralInRange<int64_t>(1, 3));
  gtn_conv_weights_desc desc = {sizeof desc, any_float(input), image(input, any_float(input), shape), groups, has_norm,
                                has_norm ? 1e-5f : 0.0f};
  const int wrong = input.ConsumeIntegralInRange(0, 3);
  if (wrong == 1) spoil(input, &desc, sizeof desc);
  static float memory[1 << 16];
  for (size_t i = 0; i < 64; ++i) memory[i] = static_cast<float>(i) / 8 + 0.5f;
  if (wrong == 2) {
    const uint32_t bits = input.ConsumeIntegral<uint32_t>();
    std::memcpy(&memory[input.ConsumeIntegralInRange(0, 63)], &bits, sizeof bits);
  }
  const void* arrays[5];
  for (const void*& array : arrays) {
    array = &array == arrays || has_norm != 0 ? memory : nullptr;
    if (wrong != 3 || !input.ConsumeBool()) continue;
    array = one_of<const void*>(input, {nullptr, memory, reinterpret_cast<char*>(memory) + 1});
  }
  const gtn_device device = wrong != 1 && input.ConsumeBool() ? cpu : checking;
  Exact description(&desc, sizeof desc);
  gtn_message message = empty_message();
  gtn_weights weights = 42;
  const gtn_status status =
      gtn_conv_weights_pack(device, reinterpret_cast<const gtn_conv_weights_desc*>(description.data()), arrays[0], arrays[1],
                            arrays[2], arrays[3], arrays[4], &weights, &message);
  if (status != GTN_OK) {
    MUST(wrong != 0 && (wrong != 2 || device == cpu));
    MUST(weights == 42);
    return check_failure(status, message);
  }
  gtn_weights_info info = {};
  info.size = sizeof info;
  MUST(gtn_weights_query(weights, &info, &message) == GTN_OK);
  int64_t k = 1;
  for (int d = 1; d < desc.source.rank; ++d) k *= desc.source.shape[d];
  MUST(info.format == desc.format && info.groups == desc.groups && info.k == k && info.n == desc.source.shape[0]);
  MUST(gtn_weights_close(weights, &message) == GTN_OK);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const gtn_device checking = open_device("checking"), cpu = open_device("cpu:scalar");
  alignas(64) static float memory[1024];
  Input input(data, bytes);
  switch (input.ConsumeIntegralInRange(0, 3)) {
    case 0:
      pack_quantized(input, checking, cpu);
      return 0;
    case 1:
      pack_conv(input, checking, cpu);
      return 0;
    default:
      break;
  }
  const int64_t k = input.ConsumeIntegralInRange<int64_t>(0, 20), n = input.ConsumeIntegralInRange<int64_t>(0, 20);
  const int32_t dtype = any_float_or_half(input);
  const int32_t format = any_format(input);
  gtn_weights_desc desc = {sizeof desc, format,
                           {sizeof(gtn_tensor_desc), dtype, 2, 0, {k, n}, {n + input.ConsumeIntegralInRange(0, 2), 1}},
                           any_group_size(input, format), is_quantized(format) && input.ConsumeBool(),
                           is_quantized(format) && input.ConsumeBool()};
  if (input.ConsumeBool()) std::swap(desc.source.strides[0], desc.source.strides[1]);
  const int64_t groups = input.ConsumeIntegralInRange(0, 2);
  if (groups > 0) {
    const gtn_tensor_desc one = desc.source;
    const int64_t apart = input.ConsumeIntegralInRange(0, 30);
    desc.source = {sizeof one, dtype, 3, 0, {groups, k, n}, {apart, one.strides[0], one.strides[1]}};
  }
  // Of the source's place and content, and of the description, mostly one is wrong.
  const int wrong = input.ConsumeIntegralInRange(0, 4);
  if (wrong == 1) spoil(input, &desc, sizeof desc);
  const void* source = memory;
  const char* first = reinterpret_cast<char*>(memory);
  if (wrong == 2) source = one_of<const void*>(input, {nullptr, first + 1, first + 2});
  const bool pruned = format == GTN_BF16_2OF4;  // no more than 2 of 4 weights of a column may be other than 0
  for (float& value : memory) value = pruned && &value - memory > 1 ? 0.0f : static_cast<float>(&value - memory) / 64 - 8;
  if (wrong == 3) {
    const uint32_t bits = input.ConsumeIntegral<uint32_t>();
    std::memcpy(&memory[input.ConsumeIntegralInRange<size_t>(0, 1023)], &bits, sizeof bits);
  }
  // Whole columns too large for the CPU still go to where nothing is read.
  const gtn_device device = input.ConsumeBool() && fits(desc, 4000) ? cpu : checking;
  Exact description(&desc, sizeof desc);

  gtn_message message = empty_message();
  gtn_weights weights = 42;
  const auto* passed = reinterpret_cast<const gtn_weights_desc*>(description.data());
  const gtn_status status = gtn_weights_pack(device, passed, source, &weights, &message);
  if (status != GTN_OK) {
    MUST(wrong == 1 || wrong == 2 || (wrong == 3 && device == cpu && (pruned || !keeps_all(desc.format))));
    MUST(weights == 42);
    check_failure(status, message);
    return 0;
  }
  const int row = desc.source.rank - 2;
  MUST(source == memory || source == first + 2 || k == 0 || n == 0);
  gtn_weights_info info = {};
  info.size = sizeof info;
  MUST(gtn_weights_query(weights, &info, &message) == GTN_OK);
  MUST(info.format == desc.format && info.bytes >= 0);
  MUST(info.group_size == desc.group_size);
  MUST(info.k == desc.source.shape[row] && info.n == desc.source.shape[row + 1]);
  MUST(info.groups == (row > 0 ? desc.source.shape[0] : 0));
  MUST(gtn_weights_close(weights, &message) == GTN_OK);
  MUST(gtn_weights_close(weights, &message) == GTN_STALE_HANDLE);
  return 0;
}
