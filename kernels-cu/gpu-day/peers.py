"""Times PyTorch on the work of gatun_bench's shapes: peers.py OUTPUT.json

Names are those of gatun_bench without the device and the end: "gemm/bf16/4096x4096x4096". A time is the median of batches of calls
that follow each other, between two events, on operands of random numbers that stay in place (warm). Written after each
entry, so that an end by a time limit leaves what is done.
"""

import json
import statistics
import sys

import torch
import torch.nn.functional as F

out_path = sys.argv[1]
results = {}
device = torch.device("cuda:0")
torch.manual_seed(1)
torch.backends.cuda.matmul.allow_tf32 = False


def seconds(call):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def batch(count):
        start.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    batch(3)
    count = max(1, min(500, int(2e-3 / max(batch(4) / 4, 1e-6))))
    return statistics.median(batch(count) / count for _ in range(9))


def entry(name, peer, make):
    try:
        call = make()
        results[name] = {"peer": peer, "seconds": seconds(call)}
    except Exception as error:  # what this version of PyTorch does not have
        results[name] = {"peer": peer, "error": str(error).split("\n")[0]}
    print(name, results[name], flush=True)
    with open(out_path, "w") as file:
        json.dump({"torch": torch.__version__, "device": torch.cuda.get_device_name(0), "times": results}, file, indent=1)


def randn(*shape, dtype):
    return torch.randn(*shape, device=device, dtype=dtype)


TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}

for m, n, k in [(1, 1024, 1024), (32, 1024, 1024), (128, 1024, 1024), (1024, 1024, 1024), (1, 4096, 4096), (32, 4096, 4096),
                (128, 4096, 4096), (4096, 4096, 4096), (8192, 8192, 8192)]:
    for word, dtype in TYPES.items():
        if word == "f32" and m == 8192:
            continue

        def linear(dtype=dtype, m=m, n=n, k=k):
            a, w, bias = randn(m, k, dtype=dtype), randn(n, k, dtype=dtype), randn(n, dtype=dtype)
            return lambda: F.linear(a, w, bias)

        entry(f"gemm/{word}/{m}x{n}x{k}", "torch linear", linear)

    def int8(m=m, n=n, k=k):
        a = torch.randint(-127, 127, (m, k), device=device, dtype=torch.int8)
        w = torch.randint(-127, 127, (n, k), device=device, dtype=torch.int8).t()
        return lambda: torch._int_mm(a, w)

    entry(f"gemm/int8/{m}x{n}x{k}", "torch _int_mm, products alone", int8)

for name, batch, q_len, k_len, q_heads, k_heads, size, causal in [
        ("dense_8x128", 8, 128, 128, 12, 12, 32, False), ("causal_1024", 1, 1024, 1024, 16, 16, 64, True),
        ("causal_4096", 1, 4096, 4096, 2, 2, 64, True), ("dense_16384", 1, 16384, 16384, 2, 2, 64, False),
        ("dense_16384x128", 1, 16384, 16384, 2, 2, 128, False), ("decode_4096", 1, 1, 4096, 32, 8, 128, False),
        ("causal_4x4096x32x128", 4, 4096, 4096, 32, 32, 128, True), ("dense_4x4096x32x128", 4, 4096, 4096, 32, 32, 128, False),
        ("causal_4x4096x32x64", 4, 4096, 4096, 32, 32, 64, True), ("decode_64x8192x32x128", 64, 1, 8192, 32, 8, 128, False)]:
    for word, dtype in TYPES.items():
        if word == "f32" and batch * q_len * k_len * q_heads > 1 << 30:
            continue

        def sdpa(dtype=dtype):
            q = randn(batch, q_len, q_heads, size, dtype=dtype).transpose(1, 2)
            k = randn(batch, k_len, k_heads, size, dtype=dtype).transpose(1, 2)
            v = randn(batch, k_len, k_heads, size, dtype=dtype).transpose(1, 2)
            return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q_heads != k_heads)

        entry(f"attention/{word}/{name}", "torch sdpa", sdpa)

for rows, n in [(64, 1024), (4096, 4096), (32768, 8192)]:
    for word, dtype in TYPES.items():
        x, gamma, beta = randn(rows, n, dtype=dtype), randn(n, dtype=dtype), randn(n, dtype=dtype)
        entry(f"softmax/{word}/{rows}x{n}", "torch softmax", lambda: lambda: F.softmax(x, -1))
        # Ours adds a residual as well.
        entry(f"norm/layer/{word}/{rows}x{n}", "torch layer_norm", lambda: lambda: F.layer_norm(x, (n,), gamma, beta))
        entry(f"norm/rms/{word}/{rows}x{n}", "torch rms_norm", lambda: lambda: F.rms_norm(x, (n,), gamma))
        for ours, approximate in [("gelu_erf", "none"), ("gelu_tanh", "tanh")]:
            entry(f"activation/{ours}/{word}/{rows}x{n}", "torch gelu, no bias",
                  lambda: lambda: F.gelu(x, approximate=approximate))
        entry(f"activation/silu/{word}/{rows}x{n}", "torch silu, no bias", lambda: lambda: F.silu(x))
        entry(f"activation/relu/{word}/{rows}x{n}", "torch relu, no bias", lambda: lambda: F.relu(x))
