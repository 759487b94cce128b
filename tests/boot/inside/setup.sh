#!/bin/sh
# Makes the root of a machine in namespaces of its own, and becomes its PID 1.
# setup.sh TREE SCENE MODE: MODE is rw, ro, full (the changes lie on a disk of 16 MB), or try: all but becoming PID 1, to
# see whether it is allowed here.
set -eu
tree=$1 scene=$2 mode=$3
mount --make-rprivate /
changes=$scene
if [ "$mode" = full ]; then
    mount -t tmpfs -o size=16m disk "$scene/disk"
    cp -a "$scene/upper" "$scene/disk/upper"
    mkdir "$scene/disk/work"
    changes=$scene/disk
fi
root=$scene/root
mount -t overlay root -o "lowerdir=$tree,upperdir=$changes/upper,workdir=$changes/work" "$root"
[ "$mode" != ro ] || mount -o remount,bind,ro "$root"
mount --bind "$scene/result" "$root/result"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sys "$root/sys"
mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
mkdir "$root/sys/fs/cgroup/try.scope"
rmdir "$root/sys/fs/cgroup/try.scope"
mount -t tmpfs run "$root/run"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
cd "$root"
pivot_root . old
[ "$mode" != try ] || exit 0
umount -l /old
container=boot-test exec /lib/systemd/systemd
