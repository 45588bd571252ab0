"""Prints a table of gatun_bench's results, warm and cold, with those of peers: compare.py FOLDER, of run.sh's output"""

import glob
import json
import os
import sys

folder = sys.argv[1]
benchmarks = []
for path in sorted(glob.glob(os.path.join(folder, "bench-*.json"))):
    text = open(path).read()
    try:
        benchmarks += json.loads(text)["benchmarks"]
    except json.JSONDecodeError:  # ended by its time limit: what was written until then
        print(os.path.basename(path), "has not all: the run was ended by its time limit")
        if "    }" in text:
            benchmarks += json.loads(text[: text.rindex("    }") + 5] + "]}")["benchmarks"]
peers = {}
if os.path.exists(os.path.join(folder, "peers.json")):
    found = json.load(open(os.path.join(folder, "peers.json")))
    peers = found["times"]
    print("peer: PyTorch", found["torch"], "on", found["device"])

rows = {}
for one in benchmarks:
    device, rest = one["name"].split("/", 1)
    parts = rest.split("/")
    end = next(i for i, part in enumerate(parts) if part in ("warm", "cold"))
    name, heat = "/".join(parts[:end]), parts[end]
    if one.get("error_occurred"):
        print(f"{name} {heat}: {one.get('error_message')}")
        continue
    unit = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}[one["time_unit"]]
    rows.setdefault((device, name), {})[heat] = one, one["real_time"] * unit

print(f"{'':52} {'warm us':>10} {'TFLOP/s':>8} {'GB/s':>7} {'limit':>6} {'cold us':>10} {'GB/s':>7} {'limit':>6} {'peer us':>10} {'x':>6}  kernel")
for (device, name), both in rows.items():
    line = f"{device + '/' + name:52}"
    for heat in ("warm", "cold"):
        if heat not in both:
            line += " " * (35 if heat == "warm" else 26)
            continue
        one, time = both[heat]
        line += f" {time * 1e6:10.1f}"
        if heat == "warm":
            line += f" {one.get('flops', 0) / 1e12:8.1f}"
        line += f" {one.get('bytes', 0) / 1e9:7.0f} {one.get('roofline', 0):6.2f}"
    peer = peers.get(name, {})
    if "seconds" in peer and "warm" in both:
        line += f" {peer['seconds'] * 1e6:10.1f} {peer['seconds'] / both['warm'][1]:6.2f}"
    else:
        line += " " * 18
    print(line, "", (both.get("warm") or both.get("cold"))[0].get("label", ""))
for name, peer in peers.items():
    if "error" in peer:
        print(f"peer {name}: {peer['error']}")
