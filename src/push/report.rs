//! What is told of a run: as metrics, as points of InfluxDB, as a sign of life. Decides only.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use serde::{Deserialize, Serialize};

use crate::metrics::{self, LastRun, LastTries};
use crate::status::{Date, Ended, Queue};

/// What happened to a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The machine.
    pub host: String,
    /// The chain, or the queue.
    pub chain: String,
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A run ended.
    Ended(RunEnd),
    /// One did not begin.
    Refused {
        /// Why, in a word.
        reason: String,
    },
    /// Nothing happened: this is how a queue stands.
    Queue(Box<Queue>),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnd {
    /// Its id.
    pub run_id: String,
    /// What made it begin.
    pub trigger: &'static str,
    /// How it ended.
    pub outcome: Ended,
    /// The exit code of such an end.
    pub exit_code: u8,
    /// How long it took.
    pub duration: Duration,
    /// Tries of tasks that were started.
    pub tries: u32,
    /// How many of them failed.
    pub failed: u32,
    /// How many of them said so of themselves, in the order of [`crate::opinion::Opinion::ALL`].
    pub said: [u32; 3],
}

/// The sign of life, in the words of jobslib; what is behind `time_local` is ours. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// The machine.
    pub fqdn: String,
    /// When a run last ended well, in Unix seconds.
    pub timestamp: i64,
    /// The same in UTC, `YYYY-MM-DD HH:MM:SS`.
    pub time_utc: String,
    /// The same in the zone of the machine.
    pub time_local: String,
    /// The chain.
    #[serde(default)]
    pub chain: Option<String>,
    /// The run.
    #[serde(default)]
    pub run_id: Option<String>,
}

impl Report {
    /// Whether it tells of a run that ended well.
    pub fn is_good(&self) -> bool {
        match &self.what {
            What::Ended(end) => end.outcome == Ended::Done,
            What::Refused { .. } | What::Queue(_) => false,
        }
    }

    /// Whom it tells of: the label that says so, and its value.
    pub fn subject(&self) -> (&'static str, &str) {
        match &self.what {
            What::Ended(_) | What::Refused { .. } => ("chain", &self.chain),
            What::Queue(_) => ("queue", &self.chain),
        }
    }

    /// In Prometheus' text format.
    pub fn prometheus(&self) -> String {
        let at = self.at.as_duration().as_secs_f64();
        match &self.what {
            What::Ended(end) => metrics::of_run(&LastRun {
                chain: &self.chain,
                outcome: end.outcome,
                exit_code: Some(end.exit_code),
                ended_at: at,
                seconds: end.duration.as_secs_f64(),
                tries: Some(LastTries { all: end.tries, failed: end.failed, said: end.said }),
            }),
            What::Refused { reason } => metrics::of_refusal(&self.chain, reason, at),
            What::Queue(queue) => metrics::of_queue(queue, Date { at: self.at, offset: Offset::UTC }),
        }
    }

    /// In InfluxDB's line protocol, times in milliseconds. The last two measurements are those of jobslib: one field
    /// `value`, tags `task` and `type`.
    pub fn influx(&self) -> String {
        let (host, chain, at) = (tag(&self.host), tag(&self.chain), self.at.as_millisecond());
        let mut lines = String::new();
        let (status, seconds) = match &self.what {
            What::Ended(end) => {
                let (outcome, trigger, seconds) = (end.outcome.word(), end.trigger, end.duration.as_secs_f64());
                let (code, tries, failed, run) = (end.exit_code, end.tries, end.failed, &end.run_id);
                let [success, warning, error] = end.said;
                let _ = writeln!(
                    lines,
                    "runner_run,chain={chain},host={host},outcome={outcome},trigger={trigger} duration_seconds={seconds},exit_code={code}i,failed_tries={failed}i,run_id=\"{run}\",said_error={error}i,said_success={success}i,said_warning={warning}i,tries={tries}i {at}"
                );
                (end.outcome.of_jobslib(), seconds)
            }
            What::Refused { reason } => {
                let _ = writeln!(lines, "runner_refusal,chain={chain},host={host},reason={} value=1i {at}", tag(reason));
                (Ended::NotStarted.of_jobslib(), 0.0)
            }
            What::Queue(queue) => {
                let age = queue.oldest_ready.map_or(0.0, |oldest| self.at.duration_since(oldest.at).as_secs_f64().max(0.0));
                let total = |outcome: &str| queue.totals.jobs.iter().find(|total| total.outcome == outcome).map_or(0, |total| total.count);
                let (done, failed) = (total("done"), total("failed"));
                let (scheduled, ready, running, kept) = (queue.scheduled, queue.ready, queue.running, queue.failed);
                let _ = writeln!(
                    lines,
                    "runner_queue,host={host},queue={chain} done_total={done}i,failed={kept}i,failed_total={failed}i,oldest_ready_seconds={age},ready={ready}i,running={running}i,scheduled={scheduled}i {at}"
                );
                return lines;
            }
        };
        let _ = writeln!(lines, "job_duration_seconds,host={host},status={status},task={chain},type=task value={seconds} {at}");
        if self.is_good() {
            let _ = writeln!(lines, "last_successful_run_timestamp,host={host},task={chain} value={} {at}", self.at.as_second());
        }
        lines
    }

    /// The sign of life; only a run that ended well gives one.
    pub fn liveness(&self, zone: &TimeZone) -> Option<Liveness> {
        const FORM: &str = "%Y-%m-%d %H:%M:%S";
        let What::Ended(end) = &self.what else { return None };
        self.is_good().then(|| Liveness {
            fqdn: self.host.clone(),
            timestamp: self.at.as_second(),
            time_utc: self.at.strftime(FORM).to_string(),
            time_local: self.at.to_zoned(zone.clone()).strftime(FORM).to_string(),
            chain: Some(self.chain.clone()),
            run_id: Some(end.run_id.clone()),
        })
    }
}

impl Liveness {
    /// Reads a record, also one of jobslib.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As one line of JSON.
    pub fn json(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

/// The value of a tag: a comma, a blank and an equals sign are escaped; a line feed would end the point, a backslash at
/// the end would take the separator away, and an empty value is none.
fn tag(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            ',' | ' ' | '=' => {
                value.push('\\');
                value.push(letter);
            }
            '\\' => value.push('/'),
            letter if letter.is_control() => value.push('_'),
            letter => value.push(letter),
        }
    }
    if value.is_empty() { "-".to_owned() } else { value }
}

/// What `file` will hold after `new` is told of a chain or queue: in each metric that `new` has, the samples of this one
/// give way to its own; everything else stays. `None` where somebody else wrote `file`.
pub fn merged(file: &str, new: &str, (label, name): (&str, &str)) -> Option<String> {
    if !file.is_empty() && !file.starts_with(MARK) {
        return None;
    }
    let own = format!("{label}=\"{name}\"");
    let mut families = families(file);
    for (name, (head, samples)) in self::families(new) {
        let kept = families.iter().position(|(known, _)| *known == name).map(|at| families.remove(at).1.1).unwrap_or_default();
        let mut samples: Vec<&str> = kept.into_iter().filter(|sample| !sample.contains(&own)).chain(samples).collect();
        samples.sort_unstable();
        families.push((name, (head, samples)));
    }
    families.sort_by(|one, two| one.0.cmp(two.0));
    let mut text = format!("{MARK}\n");
    for (_, (head, samples)) in families {
        head.iter().chain(&samples).for_each(|line| {
            text.push_str(line);
            text.push('\n');
        });
    }
    Some(text)
}

/// The first line of a textfile of ours.
const MARK: &str = "# written by runner after each run; what others write here is lost";

type Lines<'a> = Vec<&'a str>;

/// The metrics of a text: name, lines above the samples, samples.
fn families(text: &str) -> Vec<(&str, (Lines<'_>, Lines<'_>))> {
    let mut found: Vec<(&str, (Lines<'_>, Lines<'_>))> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && *line != MARK) {
        let head = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let name = head.unwrap_or(line).split([' ', '{']).next().unwrap_or_default();
        let at = found.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            found.push((name, (Vec::new(), Vec::new())));
            found.len() - 1
        });
        let lines = &mut found[at].1;
        if head.is_some() { lines.0.push(line) } else { lines.1.push(line) }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{JobTotal, JobTotals};

    fn end(chain: &str, outcome: Ended, second: i64) -> Report {
        let end = RunEnd {
            run_id: "4062abca-0-491c45375bfc07b4".into(),
            trigger: "now",
            outcome,
            exit_code: u8::from(outcome != Ended::Done),
            duration: Duration::from_millis(1500),
            tries: 3,
            failed: 1,
            said: [0, 2, 1],
        };
        Report { host: "a b".into(), chain: chain.into(), at: Timestamp::from_second(second).unwrap(), what: What::Ended(end) }
    }

    #[test]
    fn chains_share_a_textfile_and_the_last_success_outlives_a_failure() {
        let add = |file: &str, report: &Report| merged(file, &report.prometheus(), report.subject()).unwrap();
        let file = add("", &end("a", Ended::Done, 1000));
        let file = add(&file, &end("b", Ended::Done, 2000));
        let file = add(&file, &end("a", Ended::GaveUp, 3000));
        for line in [
            "runner_last_run_timestamp_seconds{chain=\"a\"} 3000",
            "runner_last_run_timestamp_seconds{chain=\"b\"} 2000",
            "runner_last_run_outcome{chain=\"a\",outcome=\"gave_up\"} 1",
            "runner_last_success_timestamp_seconds{chain=\"a\"} 1000",
            "job_duration_seconds{chain=\"a\",status=\"failed\"} 1.5",
            "runner_last_run_failed_tries{chain=\"a\"} 1",
            "runner_last_run_said_results{chain=\"a\",said=\"success\"} 0",
            "runner_last_run_said_results{chain=\"a\",said=\"warning\"} 2",
            "runner_last_run_said_results{chain=\"a\",said=\"error\"} 1",
        ] {
            assert!(file.lines().any(|known| known == line), "{line}:\n{file}");
        }
        assert!(!file.contains("chain=\"a\",outcome=\"done\"") && !file.contains("chain=\"a\",status=\"succeeded\""), "{file}");
        let refused = Report { what: What::Refused { reason: "overlap".into() }, ..end("a", Ended::Done, 4000) };
        let after = add(&file, &refused);
        assert!(file.lines().all(|line| after.contains(line)) && after.contains("chain=\"a\",reason=\"overlap\"} 4000"), "{after}");
        assert_eq!(after.lines().filter(|line| line.starts_with("# TYPE job_duration_seconds ")).count(), 1);
    }

    #[test]
    fn a_queue_stands_beside_the_chains() {
        let totals = JobTotals { jobs: vec![JobTotal { outcome: "done".into(), count: 7 }], tries: Vec::new() };
        let oldest_ready = Some(Date { at: Timestamp::from_second(90).unwrap(), offset: Offset::UTC });
        let queue: Queue = serde_json::from_str(
            r#"{"name": "mail", "scheduled": 4, "ready": 3, "running": 2, "failed": 1, "oldest_ready": null, "jobs": []}"#,
        )
        .unwrap();
        let queue = Queue { totals, oldest_ready, ..queue };
        let report = Report { chain: "mail".into(), what: What::Queue(Box::new(queue)), ..end("a", Ended::Done, 100) };
        let file = merged("", &end("mail", Ended::Done, 50).prometheus(), ("chain", "mail")).unwrap();
        let file = merged(&file, &report.prometheus(), report.subject()).unwrap();
        let file = merged(&file, &report.prometheus(), report.subject()).unwrap();
        for line in [
            "runner_last_run_timestamp_seconds{chain=\"mail\"} 50",
            "runner_queue_jobs{queue=\"mail\",state=\"ready\"} 3",
            "runner_queue_oldest_ready_seconds{queue=\"mail\"} 10",
            "runner_jobs_total{queue=\"mail\",outcome=\"done\"} 7",
        ] {
            assert_eq!(file.lines().filter(|known| *known == line).count(), 1, "{line}:\n{file}");
        }
        let point = "runner_queue,host=a\\ b,queue=mail done_total=7i,failed=1i,failed_total=0i,oldest_ready_seconds=10,ready=3i,running=2i,scheduled=4i 100000\n";
        assert_eq!(report.influx(), point);
        assert!(!report.is_good() && report.liveness(&TimeZone::UTC).is_none());
    }

    #[test]
    fn what_somebody_else_wrote_stays() {
        assert_eq!(merged("root:x:0:0\n", "", ("chain", "a")), None);
    }

    #[test]
    fn points_have_the_names_of_jobslib() {
        let lines = end("night", Ended::Done, 7).influx();
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [
                "runner_run,chain=night,host=a\\ b,outcome=done,trigger=now duration_seconds=1.5,exit_code=0i,failed_tries=1i,run_id=\"4062abca-0-491c45375bfc07b4\",said_error=1i,said_success=0i,said_warning=2i,tries=3i 7000",
                "job_duration_seconds,host=a\\ b,status=succeeded,task=night,type=task value=1.5 7000",
                "last_successful_run_timestamp,host=a\\ b,task=night value=7 7000",
            ]
        );
        assert!(!end("night", Ended::Halted, 7).influx().contains("last_successful"));
        assert_eq!(tag("a,b=c\\\n"), "a\\,b\\=c/_");
    }

    #[test]
    fn only_success_is_a_sign_of_life() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let json = end("main", Ended::Done, 1_800_000_000).liveness(&zone).unwrap().json();
        assert!(
            json.starts_with(
                r#"{"fqdn":"a b","timestamp":1800000000,"time_utc":"2027-01-15 08:00:00","time_local":"2027-01-15 09:00:00","#
            ),
            "{json}"
        );
        assert_eq!(end("main", Ended::GaveUp, 1).liveness(&zone), None);
        let old = Liveness::read(r#"{"fqdn": "h", "timestamp": 1, "time_utc": "u", "time_local": "l"}"#).unwrap();
        assert_eq!((old.timestamp, old.chain), (1, None));
    }
}
