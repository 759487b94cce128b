//! Which process on which machine: what tells the owner of a slot or a run that lives from one that is gone.

use std::fs;

use crate::process::tree::Stat;

/// A process, and the machine it runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The machine-id and the host name: containers of one image may share the former, machines of one name the latter.
    /// Empty where nobody needs it (see [`Owner::look_quickly`]).
    pub machine: String,
    /// The host name.
    pub host: String,
    /// The id of the boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// The process.
    pub pid: i32,
    /// When it began, in clock ticks since the boot.
    pub start_time: u64,
}

impl Owner {
    /// This process.
    pub fn look() -> Self {
        let owner = Self::look_quickly(&read("/proc/sys/kernel/random/boot_id"));
        let id = Some(read("/etc/machine-id")).filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| read("/var/lib/dbus/machine-id"));
        Self { machine: if id.is_empty() { owner.host.clone() } else { format!("{id} {}", owner.host) }, ..owner }
    }

    /// This process without its machine: opens nothing but our own line in /proc.
    pub fn look_quickly(boot_id: &str) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let start_time = Stat::parse(&read("/proc/self/stat")).map_or(0, |stat| stat.start_time);
        let pid = rustix::process::getpid().as_raw_pid();
        Self { machine: String::new(), host, boot_id: boot_id.trim().to_owned(), pid, start_time }
    }

    /// Whether that process may still live, as seen from `here`; of another machine nobody knows.
    pub fn is_alive(&self, here: &Self) -> Option<bool> {
        if self.host != here.host {
            return None;
        }
        if self.boot_id != here.boot_id {
            return Some(false);
        }
        let stat = rustix::process::Pid::from_raw(self.pid).and_then(Stat::of);
        Some(stat.is_some_and(|stat| stat.alive() && stat.start_time == self.start_time))
    }
}

impl super::record::RunRecord {
    /// The process that runs it, without its machine.
    pub fn owner(&self) -> Owner {
        let (host, boot_id) = (self.host.clone(), self.boot_id.clone());
        Owner { machine: String::new(), host, boot_id, pid: self.pid, start_time: self.start_time }
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(file).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let here = Owner::look();
        assert!(here.start_time > 0 && !here.boot_id.is_empty() && here.machine.ends_with(&here.host));
        assert_eq!(here.is_alive(&here), Some(true));
        assert_eq!(Owner { start_time: here.start_time + 1, ..here.clone() }.is_alive(&here), Some(false));
        assert_eq!(Owner { boot_id: "another".into(), ..here.clone() }.is_alive(&here), Some(false));
        assert_eq!(Owner { host: "another".into(), ..here.clone() }.is_alive(&here), None);
    }
}
