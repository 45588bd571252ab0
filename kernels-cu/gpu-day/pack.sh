#!/usr/bin/env bash
# Packs a folder that checks and times the CUDA backend on a machine with a GPU and nothing else of Gatun's: see usage.
set -euo pipefail

usage() {
  cat <<'END'
usage: kernels-cu/gpu-day/pack.sh [--arch LIST] FOLDER

Builds, on a machine with nvcc and a JDK 25 and no GPU, and fills FOLDER (made anew, 60 MiB at most) with a Java runtime of the
modules that are needed, Gatun's modules, its native libraries with the CUDA backend compiled for LIST (as
CMAKE_CUDA_ARCHITECTURES; default: 90-real, that is an H100), the microbenchmarks, and run.sh, which does the rest there.
END
}

arch=90-real
while (($# > 0)); do
  case $1 in
    --arch) arch=$2 && shift ;;
    --help | -h) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) break ;;
  esac
  shift
done
(($# == 1)) || { usage >&2; exit 2; }

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(cd -- "$here/../.." && pwd)
folder=$(realpath -m -- "$1")
build=$root/build/gpu-day
java_home=$("$root/gatun" java -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java.home = //p')

say() { printf 'pack: %s\n' "$*" >&2; }

say "native libraries for $arch"
cmake --preset release -S "$root" -B "$build" -DGATUN_CUDA=ON "-DGATUN_CUDA_ARCHITECTURES=$arch" -DGATUN_BUILD_TESTS=OFF \
  -DGATUN_BUILD_BENCHMARKS=ON >&2
cmake --build "$build" --target gatun gatun_cpu gatun_cuda gatun_bench -j "$(nproc)" >&2

say "Java modules"
(cd -- "$root" && JAVA_HOME=$java_home mvn -B -q -DskipTests -Dexec.skip=true "-Dgatun.native.build=$build" -pl bench -am package) \
  >&2 </dev/null

say "the folder"
rm -rf -- "$folder"
mkdir -p "$folder/lib" "$folder/modules"
# What Gatun, Jackson and picocli ask for.
"$java_home/bin/jlink" --add-modules java.base,java.logging,java.management,java.xml,jdk.jfr,jdk.unsupported \
  --strip-debug --no-header-files --no-man-pages --compress zip-9 --output "$folder/runtime"
find "$folder/runtime" -name '*.so' -exec strip --strip-unneeded {} +
# The natives are taken from lib/, as files.
for jar in "$root"/bench/target/modules/*.jar; do
  [[ $(basename "$jar") == gatun-*-linux-* ]] || cp -- "$jar" "$folder/modules/"
done
cp -- "$build"/lib/libgatun.so "$build"/lib/libgatun_cpu.so "$build"/lib/libgatun_cuda.so "$build/bin/gatun_bench" "$folder/lib/"
strip --strip-unneeded "$folder"/lib/*
# Google Benchmark's own library, by the name that the program asks for it.
benchmark=$(ldd "$build/bin/gatun_bench" | sed -n 's/.*libbenchmark[^ ]* => \([^ ]*\) .*/\1/p')
[[ -z $benchmark ]] || cp -L -- "$benchmark" "$folder/lib/$(basename "$benchmark")"
cp -- "$here/run.sh" "$here/peers.py" "$here/compare.py" "$folder/"
printf '%s\n' "$arch" >"$folder/architectures"
git -C "$root" describe --always --dirty >"$folder/revision" 2>/dev/null || echo unknown >"$folder/revision"

kib=$(du -sk -- "$folder" | cut -f1)
say "$folder: $((kib / 1024)) MiB, $(tar -C "$folder" -cz . | wc -c | awk '{print int($1 / 1048576)}') as an archive"
((kib <= 60 * 1024)) || { say "that is above 60 MiB"; exit 1; }
