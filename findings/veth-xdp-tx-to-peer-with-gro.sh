#!/usr/bin/env bash
# veth with native XDP, Linux 6.18; ethtool 6.1.
# Guess: XDP_TX needs a peer that has NAPI: a peer with an XDP program has it, and so has one with GRO on. What cannot be sent is
#   counted as an error.
# Seen: to a peer with nothing, the frames are lost and counted in xdp_tx_errors. To a peer with GRO alone they are counted as
#   sent, without an error, and none arrives. bpf_redirect() back to the same device arrives there. So the counters of the device
#   that sends cannot tell whether XDP_TX works.
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


def errors():
    counted = shell("ethtool -S vb | grep xdp_tx_errors").split()
    return "errors" if int(counted[-1]) else "no errors"

# r1 = the field ingress_ifindex of xdp_md, r2 = 0, bpf_redirect(), return what it says.
REDIRECT = (instruction(0x61, 1, 1, 12) + instruction(0xB7, 2) + instruction(0x85, value=23) + instruction(0x95))

for peer in "nothing", "GRO", "program":
    for name, code in ("XDP_TX", leave(TX)), ("redirect", REDIRECT):
        veth()
        links = [attach("vb", code, NATIVE)]
        if peer == "program":
            links.append(attach("va", leave(PASS), NATIVE))
        elif peer == "GRO":
            shell("ethtool -K va gro on")
        print(f"peer has {peer}, {name}: {returned()} of 10 came back, {errors()}")
        for link in links:
            os.close(link)
        shell("ip link delete va")
PYTHON
)
echo "$seen"
[ "$seen" = "peer has nothing, XDP_TX: 0 of 10 came back, errors
peer has nothing, redirect: 0 of 10 came back, no errors
peer has GRO, XDP_TX: 0 of 10 came back, no errors
peer has GRO, redirect: 10 of 10 came back, no errors
peer has program, XDP_TX: 10 of 10 came back, no errors
peer has program, redirect: 10 of 10 came back, no errors" ]
