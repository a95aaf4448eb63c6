#!/usr/bin/env bash
# Linux 6.18.44, bind(2) of a UNIX socket to a path, after fchmod(2) and fchown(2) of the socket; by Python 3.11's os and socket.
# Guess: both calls succeed and fstat(2) shows what they set, so the name that bind makes has that mode, owner and group: a
#   control socket for a group is there in one step, with no moment in which somebody else may connect. Or neither counts.
# Seen: the name has the socket's mode (less the umask), and the owner and group of the process all the same. After bind, fchmod
#   succeeds and fstat shows it, but the name keeps its mode. So a mode for a group is best set before bind, with a umask of 0, and
#   the group by chown of the path after it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
command -v python3 > /dev/null || apt-get -q -y install python3 > install.log
cat > finding.py <<'PY'
import os
import socket


def shown(status):
    return f"{status.st_mode & 0o7777:o} {status.st_uid} {status.st_gid}"


def bound(name, umask):
    os.umask(umask)
    listener = socket.socket(socket.AF_UNIX)
    os.fchmod(listener.fileno(), 0o660)
    os.fchown(listener.fileno(), 4711, 4712)
    print(f"socket {shown(os.fstat(listener.fileno()))}")
    listener.bind(name)
    print(f"name   {shown(os.stat(name))}")
    return listener


bound("one", 0)
listener = bound("other", 0o022)
os.fchmod(listener.fileno(), 0o600)
print(f"socket {shown(os.fstat(listener.fileno()))}")
print(f"name   {shown(os.stat('other'))}")
PY
seen=$(python3 finding.py)
echo "$seen"
[ "$seen" = "socket 660 4711 4712
name   660 0 0
socket 660 4711 4712
name   640 0 0
socket 600 4711 4712
name   640 0 0" ]
