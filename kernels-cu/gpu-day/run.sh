#!/usr/bin/env bash
# Checks and times the CUDA backend on this machine: run in the folder that pack.sh made. See usage.
set -uo pipefail

usage() {
  cat <<'END'
usage: run.sh [--steps LIST] [--filter REGEX] OUTPUT [SECONDS]

Writes into the folder OUTPUT what these steps find, none of which takes longer than SECONDS (default 120):
  devices    what the backend says of this machine
  validate   every operator against references in FP64, --quick shapes: validate.json, validate.html
  sanitize   compute-sanitizer's memcheck over one small shape of every operator, where it is installed
  bench      the microbenchmarks, by events of the device, in three parts of so many seconds each: bench-*.json
  peers      the same work by PyTorch, where python3 has it: peers.json
  compare    both side by side: compare.txt
report.txt says what came of each. LIST: the steps to do, by commas. REGEX: the cases of validate, as its own --filter.
END
}

steps=devices,validate,sanitize,bench,peers,compare
filter=
while (($# > 0)); do
  case $1 in
    --steps) steps=$2 && shift ;;
    --filter) filter=$2 && shift ;;
    --help | -h) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) break ;;
  esac
  shift
done
(($# == 1 || $# == 2)) || { usage >&2; exit 2; }

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
mkdir -p -- "$1" || exit 2
out=$(cd -- "$1" && pwd)
limit=${2:-120}
report=$out/report.txt
: >"$report"
export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

note() { printf '%s\n' "$*" | tee -a "$report"; }

# Runs one step within its time, its output in a file, and notes what came of it.
step() {
  local name=$1 start=$SECONDS status=0
  shift
  timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1 </dev/null || status=$?
  case $status in
    0) note "$name: done in $((SECONDS - start)) s" ;;
    124 | 137) note "$name: ended after its $limit s; what it wrote until then is there" ;;
    *) note "$name: status $status after $((SECONDS - start)) s; the end of $name.log:" && tail -n 5 "$out/$name.log" | tee -a "$report" ;;
  esac
  return "$status"
}

bench() {
  step "bench-$1" "$here/lib/gatun_bench" "--benchmark_filter=^cuda:0/$2" --benchmark_min_time=0.02 \
    "--benchmark_out=$out/bench-$1.json" --benchmark_out_format=json
}

wanted() { [[ ",$steps," == *",$1,"* ]]; }

gatun() {
  "$here/runtime/bin/java" "-Dio.gatun.native.path=$here/lib" --module-path "$here/modules" \
    --enable-native-access=io.gatun.bindings,io.gatun.bench -m io.gatun.bench/io.gatun.bench.cli.GatunCommand "$@"
}
export -f gatun
export here

note "Gatun $(cat "$here/revision"), CUDA code for $(cat "$here/architectures"), on $(uname -srm)"
if command -v nvidia-smi >/dev/null; then
  note "$(nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader 2>&1 | head -n 4)"
else
  note "nvidia-smi: not found"
fi

# Everything below needs the device, so this is done whatever the steps are.
step devices bash -c 'gatun devices' || true
sed -n '/cuda/p' "$out/devices.log" | tee -a "$report"
if ! grep -q '^ *cuda:0' "$out/devices.log" || grep -q 'cuda:0.*not available' "$out/devices.log"; then
  note "there is no device cuda:0 here: nothing is checked, nothing is timed"
  exit 1
fi

failed=0
if wanted validate; then
  step validate bash -c 'gatun validate --device cuda:0 --quick ${2:+--filter "$2"} --json "$1/validate.json" --html "$1/validate.html"' \
    validate "$out" "$filter" || failed=1
  tail -n 3 "$out/validate.log" | tee -a "$report"
fi

if wanted sanitize; then
  if command -v compute-sanitizer >/dev/null; then
    step sanitize compute-sanitizer --tool memcheck --error-exitcode 9 "$here/lib/gatun_bench" --benchmark_min_time=0.00001 \
      '--benchmark_filter=cuda:0/.*/(1x1024x1024|128x1024x1024/experts_64|dense_8x128|decode_16|decode_3|64x1024)/warm' || failed=1
    tail -n 2 "$out/sanitize.log" | tee -a "$report"
  else
    note "sanitize: compute-sanitizer was not found"
  fi
fi

if wanted bench; then
  # Cold operands of products and attention take long to make on the host, and differ little: weights and keys are larger than
  # caches where it matters.
  bench vectors '(norm|softmax|activation|rope|mix|merge)/.*' || failed=1
  bench attention 'attention/.*/warm' || failed=1
  bench gemm 'gemm/(bf16|int8|f32)/.*/warm' || failed=1
fi

if wanted peers; then
  if ! command -v python3 >/dev/null; then
    note "peers: python3 was not found"
  elif ! python3 -c 'import torch' 2>/dev/null; then
    note "peers: python3 has no torch"
  else
    step peers python3 "$here/peers.py" "$out/peers.json" || true
  fi
fi

if wanted compare; then
  if ! command -v python3 >/dev/null; then
    note "compare: python3 was not found; what was timed is in bench-*.json and peers.json"
  else
    step compare python3 "$here/compare.py" "$out" || true
    cp -- "$out/compare.log" "$out/compare.txt"
    cat "$out/compare.txt"
  fi
fi
exit "$failed"
