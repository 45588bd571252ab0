#!/usr/bin/env python3
"""What the compiler gave each kernel of AMD code objects, compared with the table that is checked in.

  resources.py --readelf PROGRAM --objdump PROGRAM --table resources.txt [--write] FILE.ARCH.co...

Of each file, kernel and architecture the table has, over all instances of the kernel's template: how many there are,
the most vector, accumulation and scalar registers, scalar registers that were spilled (to lanes of vector registers,
not to memory), the fewest waves that a SIMD has vector registers for (LDS is not counted), and instructions of the
matrix unit and of the flat address space in all of its code. A kernel that spills vector registers, touches scratch
memory, has static LDS or a stack of unknown size, or is for another width of waves, is an error whatever the table
says. Scratch memory that no instruction touches is none: the compiler leaves the room of spills that it took back.
Lines of the table for architectures that are not given are left alone, and code objects for architectures that the
table does not have are not compared.
"""
import argparse
import os
import re
import subprocess
import sys

# "User Guide for AMDGPU Backend" of LLVM: vector registers of a SIMD's lane (accumulation registers among them on CDNA 2 and
# later), the granule that they are handed out in, and waves at most.
VECTOR_REGISTERS = {"gfx90a": (512, 8, 8), "gfx942": (512, 8, 8), "gfx950": (512, 8, 8), "gfx1100": (1536, 24, 16),
                    "gfx1200": (1536, 24, 16)}
FIELDS = ("agpr_count", "vgpr_count", "sgpr_count", "sgpr_spill_count", "vgpr_spill_count", "group_segment_fixed_size",
          "wavefront_size")


def template_of(mangled):
    """The last name of a nested one: norm_rows of _ZN5gatun3gpu12_GLOBAL__N_19norm_rowsI..."""
    rest, name = re.sub(r"^_ZN?", "", mangled), mangled
    while match := re.match(r"(\d+)", rest):
        end = match.end() + int(match.group(1))
        name, rest = rest[match.end():end], rest[end:]
    return name


def instructions_of(objdump, path):
    """(matrix, flat) instructions by the name of the template, and the kernels that touch scratch memory."""
    counts, scratch, name, mangled = {}, set(), None, None
    for line in subprocess.run([objdump, "-d", path], check=True, capture_output=True, text=True).stdout.splitlines():
        if match := re.match(r"[0-9a-f]+ <(\S+)>:", line):
            mangled = match.group(1)
            name = template_of(mangled)
        elif match := re.match(r"\s+(v_s?w?mfma|v_wmma|flat)_", line):
            counts.setdefault(name, [0, 0])["flat" == match.group(1)] += 1
        elif re.match(r"\s+(scratch|buffer)_(load|store)_", line):
            scratch.add(mangled)
    return counts, scratch


def kernels_of(readelf, path):
    """(name of the template, fields) of each kernel, from the metadata notes."""
    notes = subprocess.run([readelf, "--notes", path], check=True, capture_output=True, text=True).stdout
    for text in re.split(r"^  - \.a", notes, flags=re.M)[1:]:
        text = "    .a" + text
        found = {field: re.search(rf"^ +\.{field}: +(\d+)", text, re.M) for field in FIELDS}
        fields = {field: int(match.group(1)) if match else 0 for field, match in found.items()}  # RDNA has no AGPRs
        fields["dynamic_stack"] = re.search(r"\.uses_dynamic_stack: +(\w+)", text).group(1) == "true"
        mangled = re.search(r"^ +\.name: +(\S+)", text, re.M).group(1)
        yield template_of(mangled), mangled, fields


def waves(arch, fields):
    total, granule, most = VECTOR_REGISTERS[arch]
    used = max(fields["vgpr_count"], 1)
    return min(most, total // ((used + granule - 1) // granule * granule))


def measure(readelf, objdump, paths):
    rows, errors = {}, []
    for path in paths:
        source, arch = os.path.basename(path).split(".")[:2]
        instructions, scratch = instructions_of(objdump, path)
        for name, mangled, fields in kernels_of(readelf, path):
            wrong = [what for what, bad in (
                ("vector registers are spilled", fields["vgpr_spill_count"] != 0),
                ("scratch memory is touched", mangled in scratch),
                ("there is static LDS", fields["group_segment_fixed_size"] != 0),
                ("the stack has no known size", fields["dynamic_stack"]),
                ("the wave has another width", fields["wavefront_size"] != (64 if arch.startswith("gfx9") else 32))) if bad]
            errors += [f"{path}: {mangled}: {what}" for what in wrong]
            row = rows.setdefault((source, name, arch), [0, 0, 0, 0, 0, 99, *instructions.get(name, (0, 0))])
            row[0] += 1
            for i, field in enumerate(("vgpr_count", "agpr_count", "sgpr_count", "sgpr_spill_count"), 1):
                row[i] = max(row[i], fields[field])
            row[5] = min(row[5], waves(arch, fields))
    return {key: " ".join(map(str, row)) for key, row in rows.items()}, errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readelf", required=True)
    parser.add_argument("--objdump", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    found, errors = measure(arguments.readelf, arguments.objdump, arguments.files)
    architectures = {arch for _, _, arch in found}
    header, table = [], {}
    if os.path.exists(arguments.table):
        with open(arguments.table) as lines:
            for line in lines:
                if line.startswith("#"):
                    header.append(line)
                elif line.strip():
                    source, name, arch, *numbers = line.split()
                    table[source, name, arch] = " ".join(numbers)
    if arguments.write:
        merged = {key: row for key, row in table.items() if key[2] not in architectures} | found
        with open(arguments.table, "w") as to:
            to.writelines(header)
            to.writelines(f"{' '.join(key)} {merged[key]}\n" for key in sorted(merged))
    else:
        tabled = {arch for _, _, arch in table} & architectures
        if not table:
            errors.append(f"{arguments.table}: there is no table")
        for key in sorted(table.keys() | found.keys()):
            if key[2] in tabled and table.get(key) != found.get(key):
                errors.append(f"{' '.join(key)}: the table has {table.get(key, 'nothing')}, "
                              f"the code object {found.get(key, 'nothing')}")
    for error in errors:
        print(error, file=sys.stderr)
    print(f"{len(found)} kernels of {len(arguments.files)} code objects, {len(errors)} differences")
    if untabled := architectures - {arch for _, _, arch in table}:
        print(f"not compared, since the table has none of them: {', '.join(sorted(untabled))}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
