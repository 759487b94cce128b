//! The record of who holds a lock, as it is written beside it: for people, and for whoever takes over on the same
//! machine. Decides only; reads and writes JSON, keys are only ever added.

use serde::{Deserialize, Serialize};

/// Where a process id means something: one boot of one machine, one PID namespace, one time namespace (start times are
/// counted in it). A container on the same machine is another place.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The name of the machine.
    pub host: String,
    /// What its kernel was given at its start; empty where it does not tell.
    pub boot_id: String,
    /// The PID and the time namespace.
    pub namespaces: String,
}

impl Place {
    /// Whether process ids of the one can be looked up in the other. Unknown places are never the same. The name is asked
    /// as well: machines that were started from one image of a running one share their boot id.
    pub fn is_same(&self, other: &Self) -> bool {
        !self.boot_id.is_empty() && !self.namespaces.is_empty() && self == other
    }
}

/// A process group that runs under a lock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskGroup {
    /// Its leader, which is the group's number.
    pub pid: i32,
    /// When the leader started (field 22 of proc(5) stat): with the pid it names a process for ever.
    pub start_time: u64,
    /// `RUNNER_TASK` of its processes.
    pub task: String,
    /// `RUNNER_TRY` of its processes.
    pub try_num: u32,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// The process that holds it.
    pub pid: i32,
    /// When that process started.
    pub start_time: u64,
    /// `RUNNER_RUN_ID` of what runs under the lock.
    pub run_id: String,
    /// Since when, RFC 3339, by the holder's own clock.
    pub time: String,
    /// What runs under it.
    pub groups: Vec<TaskGroup>,
    /// Everything that carries the run id belongs to it (`runner lock`); else only the groups do: what a task that went
    /// well left running on purpose carries the id, too.
    pub whole_run: bool,
}

impl Owner {
    /// The record as it is stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a record; `None` when it is none of ours.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {} on {} since {}, ", self.pid, self.place.host, self.time)?;
        // The id of a command under `runner lock` marks its processes; no run of a chain has it.
        if self.whole_run { f.write_str("by runner lock") } else { write!(f, "run {}", self.run_id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of the first version is read for ever.
    #[test]
    fn old_records_are_read() {
        const FIRST: &str = r#"{"host":"a","boot_id":"b","namespaces":"n","pid":7,"start_time":9,"run_id":"r","time":"2026-11-21T07:00:00Z","groups":[{"pid":8,"start_time":10,"task":"t","try_num":2}],"whole_run":true}"#;
        let owner = Owner::from_json(FIRST).unwrap();
        assert_eq!(owner.to_json(), FIRST);
        assert_eq!((owner.groups[0].task.as_str(), owner.place.host.as_str(), owner.whole_run), ("t", "a", true));
        assert_eq!(owner.to_string(), "pid 7 on a since 2026-11-21T07:00:00Z, by runner lock");
        assert_eq!(Owner { whole_run: false, ..owner }.to_string(), "pid 7 on a since 2026-11-21T07:00:00Z, run r");
        assert_eq!(Owner::from_json(r#"{"host":"h","new":1}"#).unwrap().place.host, "h");
        assert_eq!(Owner::from_json("junk"), None);
    }

    #[test]
    fn places_are_the_same_only_when_everything_is_known() {
        let named = |host: &str| Place { host: host.into(), boot_id: "b".into(), namespaces: "n".into() };
        assert!(!named("a").is_same(&named("clone")));
        let place = |boot: &str, namespaces: &str| Place { host: "h".into(), boot_id: boot.into(), namespaces: namespaces.into() };
        assert!(place("b", "n").is_same(&place("b", "n")));
        assert!(!place("b", "n").is_same(&place("b", "m")) && !place("b", "n").is_same(&place("c", "n")));
        assert!(!place("", "n").is_same(&place("", "n")) && !place("b", "").is_same(&place("b", "")));
    }
}
