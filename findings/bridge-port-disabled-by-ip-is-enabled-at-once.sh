#!/usr/bin/env bash
# Linux 6.18.44 with iproute2 6.1.0: a bridge without STP, and the state of a port set by hand, by `ip link set` and by `bridge link
#   set`, which send the same attribute (IFLA_BRPORT_STATE) in two kinds of messages.
# Guess: both do the same, for every state.
# Seen: `ip link set PORT type bridge_slave state 0` succeeds and the port goes on forwarding. States 1 and 2 hold, and so does 0 by
#   `bridge link set`. The kernel tells everybody of a change that came with a link message, the bridge itself among them, which
#   looks at the carrier of the port then and enables a disabled one. So who closes a port for frames by `ip` has an open one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
command -v bridge > /dev/null || apt-get -q -y install iproute2 > install.log
cat > inside.sh <<'SH'
set -euo pipefail
state() { bridge link show dev port | sed -n 's/.* state \([a-z]*\) .*/\1/p'; }
ip link add lan type bridge
ip link add port type veth peer name host
ip link set port master lan
for device in lan port host; do ip link set "$device" up; done
for _ in {1..50}; do [ "$(state)" = forwarding ] && break; sleep 0.1; done
for value in 0 1 2 4; do
    ip link set port type bridge_slave state "$value"
    echo "ip $value $(state)"
done
for value in 0 1 2 4; do
    bridge link set dev port state "$value"
    echo "bridge $value $(state)"
done
SH
seen=$(unshare --net bash inside.sh)
echo "$seen"
[ "$seen" = "ip 0 forwarding
ip 1 listening
ip 2 learning
ip 4 forwarding
bridge 0 disabled
bridge 1 listening
bridge 2 learning
bridge 4 forwarding" ]
