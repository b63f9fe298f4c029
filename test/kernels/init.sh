#!/bin/sh
# First process of the machine, in the root image: the disk with the checkout, then its own script as pid 1.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
mount -t ext4 /dev/nvme0n2 /weft && exec sh /weft/test/kernels/machine.sh
echo 'init: the disk with the checkout cannot be mounted'
echo o >/proc/sysrq-trigger
sleep 60
