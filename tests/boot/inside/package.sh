#!/bin/sh
# The life of the package, inside a Debian that has it: fresh, changed, upgraded, removed, purged. Says what is wrong.
wrong() { echo "$*"; exit 1; }
# As apt does it for who is not asked; without waiting for the disk.
get() { dpkg --force-unsafe-io --force-confdef --force-confold "$@" 2>&1 </dev/null; }
config=/etc/runner/runner.cfg

# ---- fresh
[ "$(systemctl is-enabled runner.service)" = disabled ] || wrong "the unit is enabled after installation"
said=$(systemd-analyze verify --man=no runner.service 2>&1 | grep -v 'running with root privileges')
[ -z "$said" ] || wrong "systemd-analyze verify: $said"
runner check >/dev/null 2>&1 || wrong "the shipped configuration does not pass runner check"
runner >/dev/null 2>&1 || wrong "runner does not end with 0 on an empty task directory"
cp -r /usr/share/doc/runner/examples /root/examples
runner -c /root/examples/runner.cfg check >/dev/null 2>&1 || wrong "the example does not pass runner check"
for program in runner runner-config; do
    if ldd "/usr/bin/$program" | grep -v -E 'linux-vdso|libc\.so|libgcc_s\.so|libm\.so|/ld-linux'; then
        wrong "$program needs a library that a minimal Debian has not"
    fi
done

# ---- man pages and completions are those of the program that is there
runner man /root/man
for page in /root/man/*.1; do
    [ -e "/usr/share/man/man1/${page##*/}.gz" ] || wrong "no man page ${page##*/}"
done
[ "$(find /root/man -name '*.1' | wc -l)" = "$(find /usr/share/man/man1 -name 'runner*' | wc -l)" ] || wrong "a man page of a command that is gone"
runner completions bash | cmp - /usr/share/bash-completion/completions/runner || wrong "completions of bash"
runner completions zsh >/root/zsh
cat /usr/share/zsh/vendor-completions/_runner /usr/share/zsh/vendor-completions/_runner-config | cmp - /root/zsh || wrong "completions of zsh"
runner completions fish | sort >/root/fish
sort /usr/share/fish/vendor_completions.d/runner.fish /usr/share/fish/vendor_completions.d/runner-config.fish |
    cmp - /root/fish || wrong "completions of fish"
for program in runner runner-config; do
    bash -c ". /usr/share/bash-completion/completions/$program && complete -p $program" >/dev/null || wrong "bash does not complete $program"
done

# ---- upgraded: a change survives, shipped changes come where there is none, and check speaks
get -i /older.deb >/root/said || wrong "an older version cannot be installed: $(cat /root/said)"
grep -q '^# as an older version' "$config" || wrong "an untouched runner.cfg does not follow the package down"
get -i /runner.deb >/root/said || wrong "an upgrade fails: $(cat /root/said)"
if grep -q '^# as an older version' "$config"; then wrong "an untouched runner.cfg does not follow the package up"; fi
grep -q '0 errors' /root/said || wrong "an upgrade does not run check: $(cat /root/said)"
get -i /older.deb >/root/said
echo '# mine' >>"$config"
echo 'max_tryes = 3' >>"$config"
printf '#!/bin/sh\n' >/etc/runner/tasks.d/10-mine.sh
chmod +x /etc/runner/tasks.d/10-mine.sh
systemctl enable runner.service >/dev/null 2>&1
mkdir -p /var/lib/runner/records
echo state >/var/lib/runner/runner.db
echo record >/var/lib/runner/records/1.json
get -i /runner.deb >/root/said || wrong "an upgrade fails when the configuration is wrong: $(cat /root/said)"
grep -q max_tryes /root/said || wrong "an upgrade does not say what check finds: $(cat /root/said)"
grep -q '^# mine$' "$config" || wrong "an upgrade to a version with another runner.cfg lost a change"
[ -e "$config.dpkg-dist" ] || wrong "an upgrade does not leave the new runner.cfg beside a changed one"
get -i /runner.deb >/root/said
grep -q '^# mine$' "$config" || wrong "installing the same version lost a change of runner.cfg"
[ "$(systemctl is-enabled runner.service)" = enabled ] || wrong "an upgrade disabled the unit"

# ---- removed, and back
get -r runner >/root/said || wrong "cannot be removed: $(cat /root/said)"
[ ! -e /usr/bin/runner ] || wrong "/usr/bin/runner is there after removal"
grep -q '^# mine$' "$config" || wrong "removal took runner.cfg"
[ -e /var/lib/runner/runner.db ] || wrong "removal took the state"
get -i /runner.deb >/root/said || wrong "cannot be installed again: $(cat /root/said)"
grep -q '^# mine$' "$config" || wrong "installing again lost a change of runner.cfg"
[ "$(systemctl is-enabled runner.service)" = enabled ] || wrong "removing and installing disabled the unit"

# ---- purged
get -P runner >/root/said || wrong "cannot be purged: $(cat /root/said)"
[ ! -e "$config" ] || wrong "runner.cfg is there after purge"
[ ! -e /var/lib/runner ] || wrong "the state is there after purge"
[ -x /etc/runner/tasks.d/10-mine.sh ] || wrong "purge took a task that the package did not bring"
[ -z "$(find /etc/systemd -name 'runner*')" ] || wrong "purge left the links of the unit"
rm -r /etc/runner
get -i /runner.deb >/root/said || wrong "cannot be installed after a purge: $(cat /root/said)"
get -P runner >/root/said || wrong "cannot be purged after that: $(cat /root/said)"
[ ! -e /etc/runner ] || wrong "an untouched /etc/runner is there after purge"
left=$(find / -xdev \( -path /root -o -path /proc -o -path /result -o -path /usr/local -o -path /runner.deb \) -prune -o -name 'runner*' -print)
[ -z "$left" ] || wrong "purge left $left"
