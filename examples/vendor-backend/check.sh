#!/usr/bin/env bash
# Does what README.md says, from an installed Gatun on: installs one from a build folder, moves it elsewhere, builds the
# backend against it with CMake and a C program with pkg-config, and runs the program on the backend.
#
# usage: check.sh <build folder of Gatun> <folder to leave libgatun_sample.so in>
set -euo pipefail

(($# == 2)) || {
  sed -n '5s/^# //p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

cmake --install "$1" --prefix "$work/installed" >"$work/log"
mv -- "$work/installed" "$work/gatun" # nothing in it may know where it was

cmake -S "$here" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/gatun" >"$work/log"
cmake --build "$work/build" >"$work/log" || {
  cat "$work/log" >&2
  exit 1
}
mkdir -p -- "$2"
cp -- "$work/build/libgatun_sample.so" "$2"

export PKG_CONFIG_PATH=$work/gatun/lib/pkgconfig
flags=$(pkg-config --cflags --libs gatun)
# Unquoted: the flags are words of their own.
"${CC:-cc}" -std=c11 -Wall -Wextra -Werror -o "$work/one_softmax" "$here/one_softmax.c" $flags -lm
LD_LIBRARY_PATH=$work/gatun/lib "$work/one_softmax" "$2/libgatun_sample.so" sample:0
