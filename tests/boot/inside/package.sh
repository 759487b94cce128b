#!/bin/sh
# The life of the package, inside a Debian that has it: fresh, changed, upgraded, removed, purged. Says what is wrong.
wrong() { echo "$*"; exit 1; }
[ "$(systemctl is-enabled runner.service)" = disabled ] || wrong "the unit is enabled after installation"
said=$(systemd-analyze verify --man=no runner.service 2>&1 | grep -v 'running with root privileges')
[ -z "$said" ] || wrong "systemd-analyze verify: $said"
runner check >/dev/null 2>&1 || wrong "the shipped configuration does not pass runner check"
runner >/dev/null 2>&1 || wrong "runner does not end with 0 on an empty task directory"
cp -r /usr/share/doc/runner/examples /root/examples
runner -c /root/examples/runner.cfg check >/dev/null 2>&1 || wrong "the example does not pass runner check"

echo '# mine' >>/etc/runner/runner.cfg
echo 'max_tryes = 3' >>/etc/runner/runner.cfg
printf '#!/bin/sh\n' >/etc/runner/tasks.d/10-mine.sh
chmod +x /etc/runner/tasks.d/10-mine.sh
systemctl enable runner.service >/dev/null 2>&1
said=$(dpkg -i /runner.deb 2>&1) || wrong "an upgrade fails when the configuration is wrong: $said"
case $said in *max_tryes*) ;; *) wrong "an upgrade does not say what check finds: $said" ;; esac
grep -q '^# mine$' /etc/runner/runner.cfg || wrong "an upgrade lost a change of runner.cfg"
[ "$(systemctl is-enabled runner.service)" = enabled ] || wrong "an upgrade disabled the unit"

dpkg -r runner >/dev/null 2>&1 || wrong "cannot be removed"
[ ! -e /usr/bin/runner ] || wrong "/usr/bin/runner is there after removal"
grep -q '^# mine$' /etc/runner/runner.cfg || wrong "removal took runner.cfg"
dpkg -i /runner.deb >/dev/null 2>&1 || wrong "cannot be installed again"
grep -q '^# mine$' /etc/runner/runner.cfg || wrong "installing again lost a change of runner.cfg"
[ "$(systemctl is-enabled runner.service)" = enabled ] || wrong "removing and installing disabled the unit"
dpkg -P runner >/dev/null 2>&1 || wrong "cannot be purged"
[ ! -e /etc/runner/runner.cfg ] || wrong "runner.cfg is there after purge"
[ -x /etc/runner/tasks.d/10-mine.sh ] || wrong "purge took a task that the package did not bring"
[ -z "$(find /etc/systemd -name 'runner*')" ] || wrong "purge left the links of the unit"
rm -r /etc/runner
dpkg -i /runner.deb >/dev/null 2>&1 && dpkg -P runner >/dev/null 2>&1
[ ! -e /etc/runner ] || wrong "an untouched /etc/runner is there after purge"
