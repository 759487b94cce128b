"""A minimal Debian with the package in it, from where this machine's own apt takes its packages."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

INSIDE = Path(__file__).resolve().parent / "inside"
BASE = ["dbus", "kmod", "procps", "systemd", "systemd-sysv", "udev"]
KERNEL = ["initramfs-tools", "linux-image-cloud-amd64", "zstd"]
# Names of suites that move from release to release: taken when no source names the release itself.
MOVING = ("stable", "testing", "unstable", "sid")


class Wrong(Exception):
    """What did not go as it should."""


def call(*command, **options):
    """Runs a command to its end; its output is part of the error."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          stdin=subprocess.DEVNULL, check=False, **options)
    if done.returncode != 0:
        raise Wrong(f"{command[0]} ended with {done.returncode}: {done.stdout[-2000:].strip()}")
    return done.stdout


def own_suite():
    """The release of this machine: what is built here runs there."""
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.split("=", 1)[1].strip('"')
    raise Wrong("/etc/os-release has no VERSION_CODENAME; name the release with --suite")


def one_line_sources(text, suite):
    """The lines of a sources.list that bring the main part of a suite (sources.list(5))."""
    for line in text.splitlines():
        found = re.match(r"deb\s+(\[[^]]*\]\s+)?\S+\s+(\S+)\s+(.*)", line)
        if found and found[2] == suite and "main" in found[3].split("#")[0].split():
            yield f"deb {found[1] or ''}{line[found.end(1) if found[1] else 3:].split()[0]} {suite} main\n"


def stanza_sources(text, suite):
    """The stanzas of a .sources file that bring the main part of a suite; other suites and parts are left out."""
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", text):
        fields = {name.lower(): body for name, body in re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, re.M)}
        listed = {name: fields.get(name, "").split() for name in ("types", "suites", "components")}
        if fields.get("enabled", "yes").strip() == "no" or "deb" not in listed["types"]:
            continue
        if suite in listed["suites"] and "main" in listed["components"]:
            fields |= {"types": " deb", "suites": f" {suite}", "components": " main"}
            yield "".join(f"{name}:{body}\n" for name, body in fields.items()) + "\n"


def apt_sources(suite):
    """What this machine's apt knows of a suite: the name it goes by there, and the sources in both forms of writing."""
    here = Path("/etc/apt")
    folder = here / "sources.list.d"
    lines = [path.read_text() for path in [here / "sources.list", *sorted(folder.glob("*.list"))] if path.exists()]
    stanzas = [path.read_text() for path in sorted(folder.glob("*.sources"))]
    for name in (suite, *MOVING):
        found = ["".join(entry for text in lines for entry in one_line_sources(text, name)),
                 "".join(entry for text in stanzas for entry in stanza_sources(text, name))]
        if any(found):
            return name, found
    raise Wrong(f"no source of this machine's apt brings {suite} main; name another release with --suite")


def base_tree(cache, suite, packages):
    """A minimal Debian with systemd; made once for each suite and list of packages."""
    key = hashlib.sha256(" ".join([suite, *packages]).encode()).hexdigest()[:12]
    tree = cache / f"debian-{suite}-{key}"
    if not tree.exists():
        print(f"making {tree}", flush=True)
        new = cache / f"{tree.name}.new.{os.getpid()}"
        files = [cache / f"{new.name}.{ending}" for ending in ("conf", "list", "sources")]
        try:
            name, sources = apt_sources(suite)
            # Proxies and certificates are in the configuration. No hooks, which may need what the tree has not.
            for path, text in zip(files, [call("apt-config", "dump", "Acquire"), *sources]):
                path.write_text(text)
            mirrors = [path for path in files[1:] if path.stat().st_size]
            call("mmdebstrap", "--variant=essential", "--format=directory", f"--include={','.join(packages)}", f"--aptopt={files[0]}",
                 "--dpkgopt=force-unsafe-io", name, new, *mirrors)
            new.rename(tree)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            for path in files:
                path.unlink(missing_ok=True)
    return tree


def older_package(deb, work):
    """The same package as an older version of itself, with another runner.cfg: what an upgrade begins from."""
    folder = work / "older"
    call("dpkg-deb", "-R", deb, folder)
    control = folder / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*", "Version: 0.0.1", control.read_text(), flags=re.M))
    config = folder / "etc/runner/runner.cfg"
    config.write_text("# as an older version shipped it\n" + config.read_text())
    call("dpkg-deb", "-b", folder, work / "older.deb")
    return work / "older.deb"


def installed_tree(base, deb, work):
    """A copy of the tree with the package in it, and what all scenes share."""
    tree = work / "tree"
    call("cp", "-a", "--reflink=auto", base, tree)
    shutil.copy(deb, tree / "runner.deb")
    shutil.copy(older_package(deb, work), tree / "older.deb")
    for name in ("result", "old"):
        (tree / name).mkdir()
    for name in ("mark", "collect"):
        shutil.copy(INSIDE / name, tree / "usr/local/bin" / name)
    (tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    call("chroot", tree, "dpkg", "--force-unsafe-io", "-i", "/runner.deb")
    return tree
