#!/usr/bin/env bash
# hping3 3.a2.ds2 (Debian 12).
# Guess: -c, "stop after sending (and receiving) count response packets", holds in every mode, as the bound of a test's flood has to.
# Seen: with --faster it ends after so many. With --flood it is not looked at: it sends until somebody ends it.
# Needs root.
set -euo pipefail
dpkg-query -W hping3 iproute2 > /dev/null 2>&1 || apt-get -q -y --no-install-recommends install hping3 iproute2 > /dev/null
export COUNT=10
# In a namespace that has a loopback device and no way out.
sent() {
    MODE=$1 unshare --net bash <<'INSIDE'
ip link set lo up
status=0
timeout --signal=INT --kill-after=5 2 hping3 "$MODE" -c "$COUNT" -S -p 80 127.0.0.1 > /dev/null 2> said < /dev/null || status=$?
ended=by_itself
[ "$status" -ne 124 ] || ended=by_force
echo "$ended $(sed -n 's/^\([0-9]*\) packets transmitted.*/\1/p' said)"
INSIDE
}
cd "$(mktemp -d)"
trap 'rm -r "$PWD"' EXIT
read -r faster_ended faster < <(sent --faster)
read -r flood_ended flood < <(sent --flood)
echo "-c $COUNT: --faster sent $faster and was ended $faster_ended, --flood sent $flood and was ended $flood_ended"
[ "$faster_ended" = by_itself ] && [ "$faster" -eq "$COUNT" ]
[ "$flood_ended" = by_force ] && [ "$flood" -gt $((100 * COUNT)) ]
