# Run by gdb: stops a program at random instructions from a function on, and writes, in the form of stepper.c's records, its registers, the part
# of its stack that is in use, and the frames as gdb unwinds them.
#
#   gdb -nx -batch -ex 'py stops, start, out = 200, "main", "FILE"' -x gdb_stops.py --args PROGRAM
import random
import struct

import gdb

REGISTERS = "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
RED_ZONE = 128
PART_MAX = 1 << 16


def put(file, letter, content):
    file.write(letter + struct.pack("<I", len(content)) + content)


def frames_of():
    """The addresses of all frames but those that are no calls: inlined functions, and tail calls that gdb infers."""
    addresses = []
    frame = gdb.newest_frame()
    while frame is not None:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            addresses.append(frame.pc())
        frame = frame.older()
    return addresses


def range_of(text, name):
    line = next(line for line in text.splitlines() if name in line)
    low, high = (int(address, 16) for address in line.split()[0].split(b"-"))
    return low, high - low


def read(inferior, address, length):
    while length > 0:
        try:
            return bytes(inferior.read_memory(address, length))
        except gdb.MemoryError:
            length -= 256
    return b""


def main():
    draw = random.Random(1)
    for setting in (
        "pagination off",
        "confirm off",
        "backtrace past-main on",
        "backtrace past-entry on",
        "disable-randomization on",
        "startup-with-shell off",
    ):
        gdb.execute("set " + setting)
    gdb.execute("handle SIGUSR1 SIGUSR2 SIGSEGV nostop noprint pass")
    gdb.execute("tbreak " + start)
    gdb.execute("run", to_string=True)
    inferior = gdb.selected_inferior()
    maps_before = b""
    with open(out, "wb") as file:
        for stop in range(stops):
            # From a handler on the program has not far to go.
            gdb.execute("stepi %d" % draw.randint(1, 60 if start == "main" else 10), to_string=True)
            if not inferior.is_valid() or inferior.pid == 0:
                break
            with open("/proc/%d/maps" % inferior.pid, "rb") as maps:
                text = maps.read()
            if text != maps_before:
                put(file, b"M", text)
                if not maps_before:
                    put(file, b"V", read(inferior, *range_of(text, b"[vdso]")))
                maps_before = text
            frame = gdb.newest_frame()
            registers = [int(frame.read_register(name)) & (1 << 64) - 1 for name in REGISTERS]
            low = registers[7] - RED_ZONE
            addresses = frames_of()
            # A handler's own stack may be elsewhere: then the end of the main one is there too.
            start_of_stack, stack_bytes = range_of(text, b"[stack]")
            high = start_of_stack + stack_bytes
            if low > start_of_stack:
                parts = [(low, read(inferior, low, min(high - low, PART_MAX)))]
            else:
                parts = [(at, read(inferior, at, PART_MAX)) for at in (low, high - PART_MAX)]
            put(
                file,
                b"S",
                struct.pack("<19Q", *registers, 1, len(addresses))
                + struct.pack("<%dQ" % len(addresses), *addresses)
                + b"".join(struct.pack("<2Q", at, len(part)) + part for at, part in parts),
            )
        put(file, b"E", struct.pack("<3Q", stop + 1, stop + 1, 0))
    gdb.execute("kill")


main()
