#!/usr/bin/env bash
# dnsmasq 2.90 as DHCP server alone (Debian 12: dnsmasq-base), asked by busybox' udhcpc 1.35.
# Guess: `port=0` switches DNS off and changes nothing about DHCP: clients are told to ask this machine, as before, where
#   another server has port 53 by then.
# Seen: the DNS option is left out as soon as the port is not 53, in DHCP over IPv4, over IPv6 and in router advertisements,
#   and clients have no DNS server at all. `dhcp-option=option:dns-server,0.0.0.0` names this machine, and
#   `option6:dns-server,[::]` does over IPv6.
# Needs root.
set -euo pipefail
for package in dnsmasq-base busybox; do
    dpkg-query -W "$package" > /dev/null 2>&1 || apt-get -q -y --no-install-recommends install "$package" > /dev/null
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > told.sh <<'SH'
#!/bin/sh
[ "$1" != bound ] || echo "router $router, DNS server ${dns:-none}"
SH
chmod +x told.sh
# trial OPTION...: what a client is told by a dnsmasq with these options.
trial() {
    # shellcheck disable=SC2016 # for the inner shell
    unshare --net --mount --pid --fork --kill-child sh -c '
        mount -t proc proc /proc
        unshare --net sleep 60 &
        client=$!
        until [ "$(readlink /proc/$client/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
        ip link add lan type veth peer name eth0 netns "$client"
        ip addr add 192.0.2.1/24 dev lan
        ip link set lan up
        nsenter -t "$client" -n ip link set eth0 up
        dnsmasq -k -C /dev/null -i lan --bind-interfaces -R -u root -l leases --dhcp-range=192.0.2.100,192.0.2.200 "$@" 2> log &
        until nsenter -t "$client" -n busybox udhcpc -i eth0 -s ./told.sh -n -q -t 5 2> /dev/null; do :; done' sh "$@"
}
seen=$(
    trial --port=53
    trial --port=0
    trial --port=0 --dhcp-option=option:dns-server,0.0.0.0
)
echo "$seen"
[ "$seen" = "router 192.0.2.1, DNS server 192.0.2.1
router 192.0.2.1, DNS server none
router 192.0.2.1, DNS server 192.0.2.1" ]
