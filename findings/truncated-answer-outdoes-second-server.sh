#!/usr/bin/env bash
# getaddrinfo of glibc 2.36 and of musl 1.2.3 (Debian 12: libc6, musl-tools), two servers in resolv.conf.
# Guess: where the first server truncates its answer over UDP and its TCP port is closed, the second server, which has the
#   whole answer, is believed: a first server that says REFUSED or SERVFAIL is passed over as well.
# Seen: both fail at once. glibc stays with TCP and never asks the second server over UDP. musl asks both servers at the
#   same time, and takes the truncated answer as the end. So TC=1 is worse than REFUSED where TCP is not served.
# Needs root.
set -euo pipefail
for package in musl-tools gcc python3; do
    dpkg-query -W "$package" > /dev/null 2>&1 || apt-get -q -y --no-install-recommends install "$package" > /dev/null
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > ask.c <<'C'
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
int main(void)
{
    struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;
    puts(getaddrinfo("www.example.test", "80", &hints, &found) ? "failed" : "resolved");
}
C
cat > server.py <<'PYTHON'
import socket, struct, sys, threading

ANSWER = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
FLAGS = {"whole": 0x8180, "truncated": 0x8380, "refused": 0x8185}

def serve(server, kind):
    while True:
        query, client = server.recvfrom(4096)
        question = query[12:query.index(b"\0", 12) + 5]
        answer = ANSWER if kind == "whole" else b""
        head = query[:2] + struct.pack(">HHHHH", FLAGS[kind], 1, 1 if answer else 0, 0, 0)
        server.sendto(head + question + answer, client)

for address, kind in ("127.0.0.2", sys.argv[1]), ("127.0.0.3", "whole"):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    threading.Thread(target=serve, args=(server, kind)).start()
print("ready", flush=True)
PYTHON
printf 'nameserver 127.0.0.2\nnameserver 127.0.0.3\n' > resolv.conf
musl-gcc -static -o ask-musl ask.c
gcc -o ask-glibc ask.c
# trial KIND: what both say where the first server's answers are of that kind.
trial() {
    # shellcheck disable=SC2016 # for the inner shell
    unshare --net --mount --pid --fork --kill-child sh -c '
        ip link set lo up
        mount --bind resolv.conf /etc/resolv.conf
        python3 server.py "$1" > ready &
        until grep -q ready ready; do :; done
        echo "$1: glibc $(./ask-glibc), musl $(./ask-musl)"' sh "$1"
}
: > ready
seen=$(for kind in whole refused truncated; do : > ready; trial "$kind"; done)
echo "$seen"
[ "$seen" = "whole: glibc resolved, musl resolved
refused: glibc resolved, musl resolved
truncated: glibc failed, musl failed" ]
