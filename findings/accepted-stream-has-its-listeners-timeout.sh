#!/usr/bin/env bash
# Linux 6.18.44, SO_RCVTIMEO of a listening TCP socket; Rust's std, nix 0.31.3.
# Guess: a stream from accept(2) begins without a time limit, whatever its listener has: on Linux it does not inherit O_NONBLOCK
#   either, as accept(2) says, and std's TcpStream blocks without a limit unless somebody has set one.
# Seen: the time limit that was to end accept(2) after a while is the stream's, too. A read of a connection that is idle for as
#   long fails with EAGAIN, which std calls WouldBlock on a socket that blocks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
nix = { version = "=0.31.3", features = ["fs", "socket"] }
TOML
cat > src/main.rs <<'RUST'
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::Read;
use std::net::{TcpListener, TcpStream};

fn main() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    setsockopt(&listener, ReceiveTimeout, &TimeVal::milliseconds(50)).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let flags = OFlag::from_bits_retain(fcntl(&stream, FcntlArg::F_GETFL).unwrap());
    let is_blocking = !flags.contains(OFlag::O_NONBLOCK);
    let limit = stream.read_timeout().unwrap();
    let error = stream.read(&mut [0]).unwrap_err().kind();
    println!("blocking: {is_blocking}, limit: {limit:?}, an idle read: {error:?}");
}
RUST
seen=$(cargo run --quiet)
echo "$seen"
case $seen in
    "blocking: true, limit: Some("*"), an idle read: WouldBlock") ;;
    *) exit 1 ;;
esac
