#!/bin/sh
# Puts the disk together that is flashed: genimage lays out the partitions, then the loader of a BIOS goes
# into the gap before the first one. Both images use this script.
#
#   make-disk.sh IMAGES DATA    IMAGES: rootfs.squashfs, the loader, and where disk.img goes
#                               DATA:   what is on the data partition at first
#
# The loader is boot.img and grub.img for a BIOS, efi-part/ for UEFI, or both.

set -eu

board="$(cd "$(dirname "$0")" && pwd)"
images="$1"
data="$2"
disk="$images/disk.img"

# Bytes of the master boot record in front of the disk's signature and the partition table.
BOOT_CODE_BYTES=440
# Of GRUB's environment block. xdnsd-update finds it in the first partition by how it begins.
ENVIRONMENT_BYTES=1024
# The loader of a BIOS has the sectors from 1 up to the first partition.
LOADER_SECTORS=2047

write_at() {
	dd of="$disk" conv=notrunc status=none "$@"
}

for directory in boot/grub EFI/BOOT; do
	mkdir -p "$images/boot-part/$directory"
	cp "$board/grub.cfg" "$images/boot-part/$directory/grub.cfg"
done
if [ -d "$images/efi-part/EFI/BOOT" ]; then
	find "$images/efi-part/EFI/BOOT" -name '*.efi' -exec cp {} "$images/boot-part/EFI/BOOT/" \;
fi

{
	printf '# GRUB Environment Block\ngood=a\ntry=\n'
	head -c "$ENVIRONMENT_BYTES" /dev/zero | tr '\0' '#'
} | head -c "$ENVIRONMENT_BYTES" >"$images/boot-part/boot/grub/grubenv"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
genimage --config "$board/genimage.cfg" --rootpath "$data" --tmppath "$work/tmp" \
	--inputpath "$images" --outputpath "$images"

if [ -e "$images/grub.img" ]; then
	if [ "$(wc -c <"$images/grub.img")" -gt $((LOADER_SECTORS * 512)) ]; then
		echo "make-disk.sh: grub.img reaches into the first partition" >&2
		exit 1
	fi
	write_at if="$images/boot.img" bs="$BOOT_CODE_BYTES" count=1
	write_at if="$images/grub.img" bs=512 seek=1
fi
