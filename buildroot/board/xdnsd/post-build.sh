#!/bin/sh
# Notes which release the root is of: after an update, that is the question. And where the examples keep the server's state
# is the data partition here, since the root cannot be written.

set -eu

version="$(sed -n 's/^XDNSD_VERSION = //p' "$BR2_EXTERNAL_XDNSD_PATH/package/xdnsd/xdnsd.mk")"
printf 'xdnsd %s, Buildroot %s\n' "$version" "$BR2_VERSION" >"$TARGET_DIR/etc/xdnsd-release"
mkdir -p "$TARGET_DIR/var/lib"
ln -sfn /data/xdnsd "$TARGET_DIR/var/lib/xdnsd"
