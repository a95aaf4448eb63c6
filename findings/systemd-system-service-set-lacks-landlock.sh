#!/usr/bin/env bash
# systemd 252.38 (Debian 12): the set of system calls that systemd.exec(5) names as the start for services, SystemCallFilter=@system-service.
# Guess: a service may always give rights up, so the set has what it takes without any privilege: prctl(2), capset(2), seccomp(2) and the
#   three calls of Landlock. A unit with this line and a service that confines itself go together.
# Seen: prctl and capset are there; seccomp and landlock_* are in no part of the set, nor in any other
#   set but @known. With SystemCallErrorNumber=EPERM such a service runs and believes that the kernel has no Landlock; without it, it is killed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
command -v systemd-analyze > /dev/null || apt-get -q -y install systemd > install.log
# All calls of a set, those of the sets inside it included.
calls() {
    systemd-analyze syscall-filter --no-pager "$1" | sed 's/#.*//' | tail -n +2 | while read -r word; do
        case $word in
            '') ;;
            @*) calls "$word" ;;
            *) echo "$word" ;;
        esac
    done
}
calls @system-service | sort -u > service
wanted="prctl capset seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"
seen=$(for call in $wanted; do if grep -qx "$call" service; then echo "$call"; else echo "no $call"; fi; done)
echo "$seen"
echo "sets that have seccomp:"
sets=$(for set in $(systemd-analyze syscall-filter --no-pager | sed -n 's/^\(@[a-z-]*\).*/\1/p'); do
    if systemd-analyze syscall-filter --no-pager "$set" | grep -qx ' *seccomp'; then echo "$set"; fi
done)
echo "$sets"
[ "$sets" = "@known" ] && [ "$seen" = "prctl
capset
no seccomp
no landlock_create_ruleset
no landlock_add_rule
no landlock_restrict_self" ]
