#!/usr/bin/env python3
"""Makes NAME.btf and NAME.golden from a kernel's BTF: make.py NAME VMLINUX_BTF

NAME.btf holds only the structures that lockc reads fields of, with what they embed; pointers lead
to void. NAME.golden holds the offsets of those fields as the C compiler sees them, in the C that
bpftool (Debian's package of that name) makes of the whole BTF: a source that has nothing in common
with lockc's own parser. The list of fields is read from lockc/src/bpf/layout.rs. NAME.btf also has the
prototypes of all LSM hooks and of the functions that ask them, without the types of their arguments.
"""
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
EXTRA = {1: 4, 3: 12, 14: 4, 17: 4}
PER_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def fields():
    text = (HERE / "../../src/bpf/layout.rs").resolve().read_text()
    for name, names in re.findall(r'field\(\s*"(OFF_\w+)",\s*&\[(.*?)\]', text, re.S):
        yield name, re.findall(r'\("(\w+)", "([\w.]*)"\)', names)


def read(data):
    header, types_at, types_len, strings_at, strings_len = struct.unpack_from("<5I", data, 4)
    strings = data[header + strings_at:][:strings_len]
    types, at = [None], header + types_at
    while at < header + types_at + types_len:
        name, info, value = struct.unpack_from("<3I", data, at)
        kind, members = info >> 24 & 31, info & 0xFFFF
        extra = EXTRA.get(kind, 0) + PER_MEMBER.get(kind, 0) * members
        text = strings[name:strings.index(b"\0", name)]
        types.append([text, info, value, data[at + 12:at + 12 + extra]])
        at += 12 + extra
    return types, strings


def trim(types, strings, wanted):
    out, ids, table = [None], {}, bytearray(b"\0")

    def intern(text):
        if not text:
            return 0
        at = len(table)
        table.extend(text + b"\0")
        return at

    def keep(number):
        if number == 0:
            return 0
        if number in ids:
            return ids[number]
        name, info, value, extra = types[number]
        kind = info >> 24 & 31
        ids[number] = len(out)
        out.append(None)
        if kind in (4, 5):
            members = b""
            for at in range(0, len(extra), 12):
                text, inner, offset = struct.unpack_from("<3I", extra, at)
                text = strings[text:strings.index(b"\0", text)]
                members += struct.pack("<3I", intern(text), keep(inner), offset)
            new = (info, value, members)
        elif kind == 2:
            new = (info, 0, b"")
        elif kind == 3:
            element, index, count = struct.unpack("<3I", extra)
            new = (info, value, struct.pack("<3I", keep(element), keep(index), count))
        elif kind in (6, 19):
            new = (info & ~0xFFFF, value, b"")  # the names of an enum do not matter
        elif kind in (8, 9, 10, 11, 12, 18):
            new = (info, keep(value), extra)
        elif kind == 13:
            new = (info, 0, bytes(len(extra)))
        else:
            new = (info, value, extra)
        out[ids[number]] = struct.pack("<3I", intern(name), new[0], new[1]) + new[2]
        return ids[number]

    for number, entry in enumerate(types):
        kind = entry and entry[1] >> 24 & 31
        if kind == 4 and entry[0].decode() in wanted:
            keep(number)
        elif kind == 12 and entry[0].startswith((b"bpf_lsm_", b"security_")):
            keep(number)
    body = b"".join(out[1:])
    head = struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(table))
    return head + body + bytes(table)


def length(btf, kernel_struct):
    dump = ["bpftool", "btf", "dump", "file", btf, "format", "raw"]
    text = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
    return re.search(rf"STRUCT '{kernel_struct}' size=(\d+)", text)[1]


def golden(btf, names):
    with tempfile.TemporaryDirectory() as scratch:
        dump = ["bpftool", "btf", "dump", "file", btf, "format", "c"]
        header = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
        Path(scratch, "vmlinux.h").write_text(header)
        lines = []
        for name, alternatives in names:
            for kernel_struct, path in alternatives:
                # Which alternative a kernel has, the compiler says too.
                offset = f"offsetof(struct {kernel_struct}, {path})"
                size = f"sizeof(((struct {kernel_struct} *)0)->{path})"
                if not path:
                    # The dump lacks what keeps the compiler from rounding it up.
                    offset, size = f"{length(btf, kernel_struct)}ul", "0ul"
                source = (
                    '#include "vmlinux.h"\n#define offsetof __builtin_offsetof\n'
                    "int printf(const char *, ...);\nint main(void) {"
                    f' printf("{name} %lu %lu\\n", {offset}, {size}); }}\n'
                )
                Path(scratch, "a.c").write_text(source)
                flags = ["gcc", "-w", "-fms-extensions", "-fno-builtin", "a.c", "-o", "a"]
                if subprocess.run(flags, cwd=scratch, capture_output=True).returncode == 0:
                    run = subprocess.run([f"{scratch}/a"], capture_output=True, text=True)
                    lines.append(run.stdout)
                    break
            else:
                sys.exit(f"no compiler finds {name}")
        return "".join(lines)


def main():
    name, btf = sys.argv[1:]
    names = list(fields())
    types, strings = read(Path(btf).read_bytes())
    wanted = {kernel_struct for _, alternatives in names for kernel_struct, _ in alternatives}
    (HERE / f"{name}.btf").write_bytes(trim(types, strings, wanted))
    (HERE / f"{name}.golden").write_text(golden(btf, names))


main()
