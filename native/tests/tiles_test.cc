// The model of AMX (cpu/tiles_model.h) against the instructions themselves, on processors that have them: shapes, loads, stores
// and both products, bit by bit.
#include <cmath>
#include <random>

#include "device_test.h"

#define GATUN_LEVEL amx
#define GATUN_LEVEL_amx 1
#include "cpu/tiles.h"
#include "cpu/tiles_model.h"

namespace gatun::cpu::amx {
namespace {

struct Shape {
  int rows, columns, depth;  // of sums, in elements of 4 bytes; of k, in 4 bytes
};

TileShapes shapes_of(const Shape& s) {
  TileShapes shapes;
  for (int t = 0; t < 8; ++t) shapes.rows[t] = kTileRows;
  shapes.rows[0] = shapes.rows[1] = static_cast<uint8_t>(s.rows);
  shapes.rows[2] = static_cast<uint8_t>(s.depth);
  shapes.bytes[0] = shapes.bytes[2] = static_cast<uint16_t>(4 * s.columns);
  shapes.bytes[1] = static_cast<uint16_t>(4 * s.depth);
  return shapes;
}

// What lies at a stride of 80 bytes, as loads and stores are asked for.
constexpr int kStride = 80;
using Memory = std::array<uint8_t, 16 * kStride>;

TEST(Tiles, DoWhatTheModelDoes) {
  bool there = false;
  for (const std::string& device : gatun::test::cpu_devices()) there |= device == "cpu:amx";
  if (!there) GTEST_SKIP() << "not available: there is no device cpu:amx to be tested here";
  const gatun::test::OpenDevice asks("cpu:amx");  // for permission
  std::mt19937 random(1);
  const auto bf16_of = [](float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<uint16_t>(bits >> 16);
  };
  for (int round = 0; round < 2000; ++round) {
    const bool integers = round % 2 == 0;
    const Shape shape = {static_cast<int>(random() % 16) + 1, static_cast<int>(random() % 16) + 1, static_cast<int>(random() % 16) + 1};
    Memory rows, columns, sums, expected;
    for (Memory* memory : {&rows, &columns}) {
      for (size_t i = 0; i < memory->size(); i += 2) {
        uint16_t bits = static_cast<uint16_t>(random());
        if (!integers) {
          std::normal_distribution<float> normal(0, 1);
          // Numbers near 1, or of all magnitudes, whose products underflow and overflow; denormals; infinities.
          const uint32_t kind = random() % 64;
          const float value = round % 4 == 1 ? normal(random) : std::ldexp(normal(random), static_cast<int>(random() % 250) - 125);
          bits = kind == 0 ? static_cast<uint16_t>(random() % 128) : kind == 1 && round % 8 == 1 ? 0x7f80 : bf16_of(value);
        }
        std::memcpy(memory->data() + i, &bits, 2);
      }
    }
    for (size_t i = 0; i < sums.size(); i += 4) {
      const float start = static_cast<float>(static_cast<int>(random() % 2000) - 1000) * 0.01f;
      std::memcpy(sums.data() + i, &start, 4);
    }
    expected = sums;
    const TileShapes shapes = shapes_of(shape);
    model::set(shapes.palette, shapes.bytes, shapes.rows);
    model::load(0, expected.data(), kStride);
    model::load(1, rows.data(), kStride);
    model::load(2, columns.data(), kStride);
    set_tiles(shapes);
    load_tile<0>(sums.data(), kStride);
    load_tile<1>(rows.data(), kStride);
    load_tile<2>(columns.data(), kStride);
    if (integers) {
      model::multiply_u8s8(0, 1, 2);
      multiply_u8s8<0, 1, 2>();
    } else {
      model::multiply_bf16(0, 1, 2);
      multiply_bf16<0, 1, 2>();
    }
    model::store(0, expected.data(), kStride);
    store_tile<0>(sums.data(), kStride);
    release_tiles();
    for (size_t i = 0; i < sums.size(); i += 4) {
      float is, should;
      std::memcpy(&is, sums.data() + i, 4);
      std::memcpy(&should, expected.data() + i, 4);
      if (!integers && std::isnan(is) && std::isnan(should)) continue;
      ASSERT_EQ(0, std::memcmp(sums.data() + i, expected.data() + i, 4))
          << (integers ? "u8s8 " : "bf16 ") << shape.rows << "x" << shape.columns << "x" << shape.depth << " at " << i << ": " << is
          << ", expected " << should;
    }
  }
}

}  // namespace
}  // namespace gatun::cpu::amx
