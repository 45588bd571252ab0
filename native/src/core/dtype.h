// The names of dtypes, and of the formats of weights, in messages of the core and of backends.
#pragma once

#include <gatun/gatun.h>

#include <cstdint>

namespace gatun {

inline const char* dtype_name(int32_t dtype) {
  switch (dtype) {
    case GTN_F32:
      return "F32";
    case GTN_BF16:
      return "BF16";
    case GTN_F16:
      return "F16";
    case GTN_S8:
      return "S8";
    case GTN_U8:
      return "U8";
    case GTN_S32:
      return "S32";
    case GTN_S64:
      return "S64";
    case GTN_U4:
      return "U4";
    case GTN_F8E4M3:
      return "F8E4M3";
    case GTN_F8E5M2:
      return "F8E5M2";
    case GTN_BF16_2OF4:
      return "BF16_2OF4";
    default:
      return "no dtype";
  }
}

}  // namespace gatun
