#!/bin/sh
# Buildroot's side of make-disk.sh: where its loader is, and an empty data partition.

set -eu

board="$(cd "$(dirname "$0")" && pwd)"
# Left beside GRUB's modules, since the target has no use for it.
for image in "$BUILD_DIR"/grub2-*/build-i386-pc/grub-core/boot.img; do
	[ ! -e "$image" ] || cp "$image" "$BINARIES_DIR/boot.img"
done
data="$(mktemp -d)"
trap 'rm -rf "$data"' EXIT
"$board/make-disk.sh" "$BINARIES_DIR" "$data"
