#!/usr/bin/env bash
# veth with native XDP, Linux 6.18.
# Guess: a short frame can grow at its end (bpf_xdp_adjust_tail), since the driver puts it into a page of its own; native mode
#   has at least the room that generic mode has.
# Seen: native mode has next to no room behind the frame: 64 bytes more mostly fail (Linux 6.1 had 3,460), while generic mode gives
#   386 to all frames. In front of the frame both have 216 (bpf_xdp_adjust_head), and not one more. So a reply that is longer than its query has to move its
#   start, not its end.
# Needs root.
set -euo pipefail
for package in python3 ethtool iproute2; do
    dpkg-query -W "$package" > /dev/null 2>&1 || apt-get -q -y --no-install-recommends install "$package" > /dev/null
done
seen=$(unshare --net python3 - <<'PYTHON'
import ctypes, os, socket, struct, subprocess, time

LIBC = ctypes.CDLL(None, use_errno=True)
NR_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
BPF_PROG_LOAD, BPF_LINK_CREATE, BPF_PROG_TYPE_XDP, BPF_XDP = 5, 28, 6, 37
DROP, PASS, TX = 1, 2, 3
GENERIC, NATIVE = 2, 4
EXPERIMENT, ETH_P_ALL = 0x88B5, 3

def bpf(command, attributes):
    fd = LIBC.syscall(NR_BPF, command, ctypes.create_string_buffer(attributes, 144), 144)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd

def instruction(code, to=0, source=0, jump=0, value=0):
    return struct.pack("<BBhi", code, source << 4 | to, jump, value)

def leave(verdict):
    return instruction(0xB7, value=verdict) + instruction(0x95)

def attach(device, code, mode):
    code, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(code), ctypes.addressof(licence)
    program = bpf(BPF_PROG_LOAD, struct.pack("<IIQQ", BPF_PROG_TYPE_XDP, len(code) // 8, *addresses))
    return bpf(BPF_LINK_CREATE, struct.pack("<IIII", program, socket.if_nametoindex(device), BPF_XDP, mode))

def shell(line):
    return subprocess.run(line, shell=True, check=True, capture_output=True, text=True).stdout

def returned():
    """Sends ten frames from va to vb, and gives how many came back to va."""
    ours = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    ours.bind(("va", ETH_P_ALL))
    ours.settimeout(0.5)
    for _ in range(10):
        ours.send(b"\xff" * 6 + b"\x02\0\0\0\0\1" + struct.pack(">H", EXPERIMENT) + bytes(46))
    count = 0
    try:
        while True:
            count += ours.recvfrom(4096)[1][2] != socket.PACKET_OUTGOING
    except TimeoutError:
        return count

def veth():
    # No frames but ours.
    shell("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
    shell("ip link add va numrxqueues 1 numtxqueues 1 type veth peer name vb numrxqueues 1 numtxqueues 1;"
          "ip link set va up; ip link set vb up")
    while "state UP" not in shell("ip link show va"):
        time.sleep(0.05)


def grow(helper, by):
    """The program: grows the frame, and sends it back if that went well."""
    return (instruction(0xB7, 2, value=by) + instruction(0x85, value=helper)
            + instruction(0x67, value=32) + instruction(0x77, value=32)
            + instruction(0x55, jump=2) + leave(TX) + leave(DROP))

HEAD, TAIL = 44, 65
for name, mode in ("native", NATIVE), ("generic", GENERIC):
    for where, helper, by in ("tail", TAIL, 64), ("head", HEAD, -216), ("head", HEAD, -220):
        veth()
        links = [attach("vb", grow(helper, by), mode), attach("va", leave(PASS), NATIVE)]
        count = returned()
        print(name, where, abs(by), {0: "none", 10: "all"}.get(count, "few" if count < 5 else "most"))
        for link in links:
            os.close(link)
        shell("ip link delete va")
PYTHON
)
echo "$seen"
[ "$seen" = "native tail 64 few
native head 216 all
native head 220 none
generic tail 64 all
generic head 216 all
generic head 220 none" ]
