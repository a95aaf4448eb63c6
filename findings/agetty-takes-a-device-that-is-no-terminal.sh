#!/usr/bin/env bash
# agetty of util-linux 2.38.1 (Debian 12).
# Guess: a device that is no terminal, such as the null device in the place of a container's console, is refused and left as it is.
# Seen: it is refused, but first it becomes root's and tty's with mode 0620. Where /dev/console of a container is a bind mount of the
# host's /dev/null, the host's has these rights from then on: accounts of its own cannot write to it, apt's for downloads among them.
# Needs root. The device is one of its own, in a mount namespace.
set -euo pipefail
dpkg-query -W util-linux > /dev/null
version=$(dpkg-query -W -f '${Version}' util-linux)
unshare --mount --propagation private bash <<'INSIDE'
set -euo pipefail
mount -t tmpfs tmpfs /mnt
mknod -m 0666 /mnt/null c 1 3
mknod -m 0666 /mnt/own c 1 3
mount --bind /mnt /dev
before=$(stat -c '%a %U %G' /dev/own)
status=0
said=$(timeout 20 agetty --noclear own 115200 2>&1 < /dev/null) || status=$?
after=$(stat -c '%a %U %G' /dev/own)
echo "before: $before, after: $after, status $status: $said"
[ "$before" = '666 root root' ]
[ "$after" = '620 root tty' ]
[ "$status" -ne 0 ] && [ "$status" -ne 124 ]
INSIDE
echo "util-linux $version"
