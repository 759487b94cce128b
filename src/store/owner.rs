//! Which process on which machine: what tells the owner of a slot or a run that lives from one that is gone.

use std::fs;

use crate::process::tree::{self, Stat};

/// A process, and the machine it runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The machine-id and the host name: containers of one image may share the former, machines of one name the latter.
    /// Empty where nobody needs it (see [`Owner::look_quickly`]).
    pub machine: String,
    /// Where its number means something, as far as that is known: the machine-id or `-`, and the PID and the time namespace
    /// (start times are counted in it). A container with the name of its host is another place. Empty in what a version
    /// wrote that did not know it.
    pub place: String,
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
        if id.is_empty() {
            return Self { machine: owner.host.clone(), ..owner };
        }
        Self { machine: format!("{id} {}", owner.host), place: format!("{id} {}", tree::namespaces()), ..owner }
    }

    /// This process without its machine: opens nothing but our own line in /proc.
    pub fn look_quickly(boot_id: &str) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let start_time = Stat::parse(&read("/proc/self/stat")).map_or(0, |stat| stat.start_time);
        let pid = rustix::process::getpid().as_raw_pid();
        let place = format!("- {}", tree::namespaces());
        Self { machine: String::new(), place, host, boot_id: boot_id.trim().to_owned(), pid, start_time }
    }

    /// Whether that process may still live, as seen from `here`; of another machine or another container nobody knows.
    pub fn is_alive(&self, here: &Self) -> Option<bool> {
        let ((machine, namespaces), (our_machine, our_namespaces)) = (parts(&self.place), parts(&here.place));
        // Machines of one name are told apart by their ids, where both are known.
        let elsewhere = machine.zip(our_machine).is_some_and(|(theirs, ours)| theirs != ours);
        if self.host != here.host || elsewhere {
            return None;
        }
        if self.boot_id != here.boot_id {
            return Some(false);
        }
        // Nor do we know our own place where /proc is another namespace's.
        if namespaces.is_some_and(|theirs| theirs.is_empty() || Some(theirs) != our_namespaces) {
            return None;
        }
        let stat = rustix::process::Pid::from_raw(self.pid).and_then(Stat::of);
        Some(stat.is_some_and(|stat| stat.alive() && stat.start_time == self.start_time))
    }
}

/// The machine-id of a place and its namespaces, where they are known.
fn parts(place: &str) -> (Option<&str>, Option<&str>) {
    let (machine, namespaces) = place.split_once(' ').unzip();
    (machine.filter(|id| *id != "-"), namespaces)
}

impl super::record::RunRecord {
    /// The process that runs it, without its machine.
    pub fn owner(&self) -> Owner {
        let (place, host, boot_id) = (self.place.clone(), self.host.clone(), self.boot_id.clone());
        Owner { machine: String::new(), place, host, boot_id, pid: self.pid, start_time: self.start_time }
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

    #[test]
    fn a_container_of_the_same_name_and_a_machine_with_another_id_are_elsewhere() {
        let gone = Owner { place: "id pid:[1] time:[2]".into(), start_time: 1, ..Owner::look() };
        let seen_from = |place: &str| gone.is_alive(&Owner { place: place.into(), ..gone.clone() });
        assert_eq!([seen_from("id pid:[1] time:[2]"), seen_from("- pid:[1] time:[2]")], [Some(false), Some(false)]);
        for place in ["id pid:[7] time:[2]", "id pid:[1] time:[7]", "other pid:[1] time:[2]", "id ", "- ", ""] {
            assert_eq!(seen_from(place), None, "{place}");
        }
        let rebooted = Owner { boot_id: "another".into(), ..gone.clone() };
        assert_eq!(rebooted.is_alive(&Owner { place: "id pid:[7] time:[2]".into(), ..gone.clone() }), Some(false));
        assert_eq!(rebooted.is_alive(&Owner { place: "other pid:[7] time:[2]".into(), ..gone.clone() }), None, "one name, two machines");
        let unplaced = Owner { place: String::new(), ..gone.clone() };
        assert_eq!(unplaced.is_alive(&gone), Some(false), "what an older version wrote is judged as it judged");
        assert_eq!(Owner { place: "- ".into(), ..gone.clone() }.is_alive(&gone), None);
    }

    #[test]
    fn a_process_that_looks_quickly_is_known_to_whoever_looks_well() {
        let quick = Owner::look_quickly(&Owner::look().boot_id);
        assert_eq!(quick.is_alive(&Owner::look()), Some(true));
    }
}
