"""Trees, and the two kinds of machine that boot them: namespaces (under a second), QEMU without KVM (half a minute).

A scene is a directory: upper/ lies over the tree, result/ is what the machine leaves.
"""

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
INSIDE = HERE / "inside"
PACKAGES = ["dbus", "initramfs-tools", "kmod", "linux-image-cloud-amd64", "procps", "systemd", "systemd-sysv", "udev", "zstd"]


class Wrong(Exception):
    """A scenario that did not go as it should."""


def call(*command, **options):
    """Runs a command to its end; its output is part of the error."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          stdin=subprocess.DEVNULL, check=False, **options)
    if done.returncode != 0:
        raise Wrong(f"{command[0]} ended with {done.returncode}: {done.stdout[-2000:].strip()}")
    return done.stdout


def wait_until(fact, limit, what):
    """Waits for a fact; the limit is only there to fail."""
    end = time.monotonic() + limit
    while not fact():
        if time.monotonic() > end:
            raise Wrong(f"waited {limit} s for {what}")
        time.sleep(0.05)


def base_tree(cache, suite):
    """A minimal Debian with systemd and a kernel; made once for each suite and list of packages."""
    key = hashlib.sha256(" ".join([suite, *PACKAGES]).encode()).hexdigest()[:12]
    tree = cache / f"debian-{suite}-{key}"
    if not tree.exists():
        print(f"making {tree}", flush=True)
        new = cache / f"{tree.name}.new.{os.getpid()}"
        try:
            call("mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, new)
            new.rename(tree)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return tree


def installed_tree(base, deb, work):
    """A copy of the tree with the package in it, and what all scenes share."""
    tree = work / "tree"
    call("cp", "-a", "--reflink=auto", base, tree)
    shutil.copy(deb, tree / "runner.deb")
    for name in ("result", "old"):
        (tree / name).mkdir()
    for name in ("mark", "collect"):
        shutil.copy(INSIDE / name, tree / "usr/local/bin" / name)
    (tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    call("chroot", tree, "dpkg", "-i", "/runner.deb")
    return tree


def overlay(tree, scene, script):
    """Runs a shell script while the scene lies over the tree, at $ROOT, and nobody else sees the mounts."""
    lines = f'set -eu; mount --make-rprivate /; mount -t overlay root -o "lowerdir={tree},upperdir={scene}/upper,workdir={scene}/work" "$ROOT"; '
    return call("unshare", "-m", "sh", "-c", lines + script, env={**os.environ, "ROOT": str(scene / "root")})


class Namespaces:
    """systemd as PID 1 in namespaces and a control group of its own, which also is how everything in it is ended."""

    kind = "namespaces"
    limit = 60
    needs = ("unshare", "mmdebstrap", "chroot")

    def __init__(self, tree, work):
        self.tree = tree
        self.mounted = None
        self.child = None
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        top = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
        if top is None:
            top = self.mounted = work / "cgroup"
            top.mkdir()
            call("mount", "-t", "cgroup2", "none", top)
        self.group = top / f"runner-boot-{os.getpid()}"
        self.group.mkdir()

    def prepare(self, scene):
        """Next to nothing: a scene is a directory, and the machine runs in it."""
        (scene / "disk").mkdir()

    def start(self, scene, mode):
        # A group of its own for each boot: systemd leaves its own groups behind in the last one.
        group = self.group / f"boot-{time.monotonic_ns()}"
        group.mkdir()
        with open(scene / "console", "ab") as console:
            self.child = subprocess.Popen(
                ["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec unshare -mpfnCiu --kill-child "$@"', group,
                 INSIDE / "setup.sh", self.tree, scene, mode], stdin=subprocess.DEVNULL, stdout=console, stderr=console)

    def has_marked(self, scene, text):
        trace = scene / "result/trace"
        return trace.exists() and text in trace.read_text().splitlines()

    def cut_power(self):
        self.child.kill()
        self.child.wait()
        (self.group / "cgroup.kill").write_text("1")
        wait_until(lambda: "populated 0" in (self.group / "cgroup.events").read_text(), 10, "the end of a killed machine")

    def wait(self, limit):
        wait_until(lambda: self.child.poll() is not None, limit, "the machine to power off")
        self.cut_power()

    def fetch(self, scene):
        """The results lie where the machine wrote them."""

    def close(self):
        if self.child is not None:
            self.cut_power()
        for folder, _, _ in os.walk(self.group, topdown=False):
            os.rmdir(folder)
        if self.mounted:
            call("umount", self.mounted)


class Qemu:
    """A full machine with a kernel of its own. Never KVM: what runs this is often a virtual machine itself."""

    kind = "qemu"
    limit = 300
    needs = ("qemu-system-x86_64", "mke2fs", "debugfs", "e2fsck", "unshare", "mmdebstrap", "chroot")

    def __init__(self, tree, work):
        del work
        self.tree = tree
        self.child = None

    def prepare(self, scene):
        (scene / "upper/etc/fstab").write_text("/dev/vdb /result ext4 sync 0 0\n")
        root, result = scene / "root.img", scene / "result.img"
        size = 'size=$(du -sm "$ROOT" | cut -f1); '
        overlay(self.tree, scene, size + f'mke2fs -q -t ext4 -m 0 -d "$ROOT" {root} $((size + size / 5 + 100))M')
        call("mke2fs", "-q", "-t", "ext4", result, "16M")

    def start(self, scene, mode):
        boot = self.tree / "boot"
        kernel, initrd = next(boot.glob("vmlinuz-*")), next(boot.glob("initrd.img-*"))
        words = f"root=/dev/vda {'ro' if mode == 'ro' else 'rw'} console=ttyS0 panic=-1"
        disks = [word for name in ("root", "result") for word in ("-drive", f"file={scene / name}.img,format=raw,if=virtio")]
        self.child = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot",
             "-chardev", f"file,id=tty,path={scene / 'console'},append=on", "-serial", "chardev:tty", "-kernel", kernel,
             "-initrd", initrd, "-append", words, *disks], stdin=subprocess.DEVNULL)

    def has_marked(self, scene, text):
        console = scene / "console"
        return console.exists() and f"MARK {text}" in console.read_text(errors="replace")

    def cut_power(self):
        self.child.kill()
        self.child.wait()

    def wait(self, limit):
        wait_until(lambda: self.child.poll() is not None, limit, "the machine to power off")

    def fetch(self, scene):
        image = scene / "result.img"
        # 1: repaired. After a power cut the journal of the disk is played back here.
        subprocess.run(["e2fsck", "-p", str(image)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        call("debugfs", "-R", f"rdump / {scene / 'result'}", image)

    def close(self):
        if self.child is not None:
            self.cut_power()
