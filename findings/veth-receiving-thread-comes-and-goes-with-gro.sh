#!/usr/bin/env bash
# veth without an XDP program, threaded NAPI (Documentation/networking/napi.rst), Linux 6.18; ethtool 6.1.
# Guess: /sys/class/net/DEVICE/threaded is a property of the device. Written once, its kernel thread stays, with the core and the
#   priority that an administrator gives it, whatever offload is switched later.
# Seen: a veth has NAPI only while it has GRO or an XDP program, so the switch is refused ("Operation not supported") on a new pair.
#   With GRO it is taken. GRO off takes the thread away, and the file goes on saying 1. GRO on again makes another thread, on all
#   cores and without the priority.
# Needs root and two cores.
set -euo pipefail
for package in ethtool iproute2 util-linux procps; do
    dpkg-query -W "$package" > /dev/null 2>&1 || apt-get -q -y --no-install-recommends install "$package" > /dev/null
done
seen=$(unshare --net --mount bash -euo pipefail <<'INSIDE'
mount -t sysfs sysfs /sys
ip link add nr0 type veth peer name fr0
ip link set nr0 up
ip link set fr0 up
threaded=/sys/class/net/nr0/threaded
switch() { (echo 1 > "$threaded") 2> /dev/null && echo taken || echo refused; }
# PIDs of kernel threads are those of the whole machine, so the interface's name finds it.
thread() { pgrep -x 'napi/nr0-[0-9]*' || true; }
settled() { for _ in $(seq 50); do [ -n "$(thread)" ] && break; sleep 0.1; done; thread; }
terms() { echo "cores $(taskset -cp "$1" | sed 's/.*: //'), $(chrt -p "$1" | sed -n 's/.*policy: //p')"; }
ethtool -K nr0 gro off
echo "without GRO: $(switch)"
ethtool -K nr0 gro on
echo "with GRO: $(switch)"
first=$(settled)
taskset -cp 0 "$first" > /dev/null
chrt --fifo -p 50 "$first"
echo "pinned: $(terms "$first")"
ethtool -K nr0 gro off
echo "GRO off: $([ -z "$(thread)" ] && echo no thread), threaded says $(cat "$threaded")"
ethtool -K nr0 gro on
second=$(settled)
every=$(taskset -cp $$ | sed 's/.*: //')
echo "GRO on again: $([ "$first" != "$second" ] && echo another thread), $(terms "$second" | sed "s/cores $every,/every core,/")"
INSIDE
)
expected="without GRO: refused
with GRO: taken
pinned: cores 0, SCHED_FIFO
GRO off: no thread, threaded says 1
GRO on again: another thread, every core, SCHED_OTHER"
diff <(echo "$expected") <(echo "$seen")
