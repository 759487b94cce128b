"""The two kinds of machine that boot a tree: namespaces (under a second), QEMU without KVM (half a minute).

A scene is a directory: upper/ lies over the tree, result/ is what the machine leaves.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

from tree import BASE, KERNEL, Wrong, call

HERE = Path(__file__).resolve().parent
INSIDE = HERE / "inside"
# How the kernel, mount(8) and unshare(1) refuse something. Any other failure is a fault of this test.
REFUSALS = ("not permitted", "permission denied", "read-only file system", "must be superuser", "unknown filesystem type",
            "wrong fs type", "not supported", "not implemented")


class Refused(Exception):
    """What this machine does not allow, in its own words."""


def allowed(command, **options):
    """Runs a command to its end; Refused when the machine did not allow it."""
    try:
        return call(*command, **options)
    except Wrong as reason:
        if any(word in str(reason).lower() for word in REFUSALS):
            raise Refused(str(reason)) from reason
        raise


def wait_until(fact, limit, what):
    """Waits for a fact; the limit is only there to fail."""
    end = time.monotonic() + limit
    while not fact():
        if time.monotonic() > end:
            raise Wrong(f"waited {limit} s for {what}")
        time.sleep(0.05)


def overlay(tree, scene, script):
    """Runs a shell script while the scene lies over the tree, at $ROOT, and nobody else sees the mounts."""
    lines = f'set -eu; mount --make-rprivate /; mount -t overlay root -o "lowerdir={tree},upperdir={scene}/upper,workdir={scene}/work" "$ROOT"; '
    return call("unshare", "-m", "sh", "-c", lines + script, env={**os.environ, "ROOT": str(scene / "root")})


def remove_groups(top):
    """Takes away a control group and all below it; nobody is in them any more."""
    for folder, _, _ in os.walk(top, topdown=False):
        os.rmdir(folder)


def writable_group(work):
    """A control group (version 2) of our own. It is asked for where they are mounted, then where we mount them ourselves."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    tops = [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]
    reasons = []
    for top in [*tops, None]:
        if top is None:
            top = work / "cgroup"
            top.mkdir()
            try:
                allowed(["mount", "-t", "cgroup2", "none", top])
            except Refused as reason:
                reasons.append(str(reason))
                continue
        group = top / f"runner-boot-{os.getpid()}"
        try:
            group.mkdir()
            (group / "probe").mkdir()
            subprocess.run(["sh", "-c", 'echo $$ >"$0/cgroup.procs"', group / "probe"], check=True, capture_output=True, text=True)
            (group / "probe").rmdir()
            return group
        except OSError as reason:
            reasons.append(str(reason))
        except subprocess.CalledProcessError as reason:
            reasons.append(reason.stderr.strip())
        remove_groups(group)
    raise Refused(f"no control groups of version 2 that may be written: {'; '.join(reasons)}")


class Namespaces:
    """systemd as PID 1 in namespaces and a control group of its own, which also is how everything in it is ended."""

    kind = "namespaces"
    limit = 120
    needs = ("unshare", "mmdebstrap", "chroot")
    packages = BASE

    def __init__(self, work):
        self.tree = None
        self.child = None
        # In memory: quick, and a container whose own root is an overlay could not lie over a tree.
        self.scenes = work / "scenes"
        self.scenes.mkdir()
        allowed(["mount", "-t", "tmpfs", "scenes", self.scenes])
        self.group = writable_group(work)
        try:
            self.try_out(work)
        except (Refused, Wrong):
            remove_groups(self.group)
            raise

    def try_out(self, work):
        """Goes the whole way of a machine but its last step, with an empty tree."""
        ids = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
        if ids < 65536:
            raise Refused(f"only {ids} of the 65536 user ids that a Debian has")
        allowed(["chroot", "/", "true"])
        tree, scene = work / "empty", self.scenes / "try"
        for part in ("proc", "sys", "dev", "run", "result", "old"):
            (tree / part).mkdir(parents=True)
        for part in ("upper", "work", "root", "result", "disk"):
            (scene / part).mkdir(parents=True)
        allowed(["sh", "-c", *self.command(scene, tree, "try")])

    def command(self, scene, tree, mode):
        """The words after `sh -c`; a group of its own for each boot: systemd leaves its own groups behind in the last one."""
        group = self.group / f"boot-{time.monotonic_ns()}"
        group.mkdir()
        return ['echo $$ >"$0/cgroup.procs"; exec unshare -mpfnCiu --kill-child "$@"', group, INSIDE / "setup.sh", tree, scene, mode]

    def prepare(self, scene):
        """Next to nothing: a scene is a directory, and the machine runs in it."""
        (scene / "disk").mkdir()

    def start(self, scene, mode):
        with open(scene / "console", "ab") as console:
            self.child = subprocess.Popen(["sh", "-c", *self.command(scene, self.tree, mode)],
                                          stdin=subprocess.DEVNULL, stdout=console, stderr=console)

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
        remove_groups(self.group)


class Qemu:
    """A full machine with a kernel of its own. Never KVM: what runs this is often a virtual machine itself."""

    kind = "qemu"
    limit = 300
    needs = ("qemu-system-x86_64", "mke2fs", "debugfs", "e2fsck", "unshare", "mmdebstrap", "chroot")
    packages = BASE + KERNEL

    def __init__(self, work):
        self.tree = None
        self.child = None
        self.scenes = work / "scenes"
        self.scenes.mkdir()

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
