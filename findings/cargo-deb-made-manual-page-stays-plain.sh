#!/usr/bin/env bash
# cargo-deb 3.8.0.
# Guess: manual pages below usr/share/man are compressed, as Debian's policy wants it and as cargo-deb does by itself. One that is made
#   of what the program prints, and so lies below target/release, is a page like the others.
# Seen: a page from the source tree becomes NAME.8.gz, one from target/release stays NAME.8: what lies there counts as a program that
#   cargo built, whatever it is and wherever it goes. Nothing is said; lintian calls the second an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cargo install --quiet cargo-deb --version =3.8.0 --locked --debug --root "$folder/tools" --target-dir "$folder/build"
mkdir src
echo 'fn main() {}' > src/main.rs
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
license = "MIT"
description = "Finding"
authors = ["Nobody"]
[package.metadata.deb]
depends = ""
assets = [
    ["target/release/finding", "usr/bin/", "755"],
    ["written.8", "usr/share/man/man8/", "644"],
    ["target/release/made.8", "usr/share/man/man8/", "644"],
]
TOML
unset CARGO_TARGET_DIR
cargo build --quiet --release
printf '.TH FINDING 8\n' | tee written.8 > target/release/made.8
package=$(tools/bin/cargo-deb --quiet --no-build)
seen=$(dpkg-deb --contents "$package" | grep -o 'man8/[^ ]*[0-9z]$' | sort | tr '\n' ' ')
echo "$seen"
[ "$seen" = "man8/made.8 man8/written.8.gz " ]
