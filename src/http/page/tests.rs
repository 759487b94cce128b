//! What the page shows, and that nothing a task says becomes markup.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// A status of version 1 as it was written when that was new; it must be read for ever.
const PINNED: &str = include_str!("../../../tests/data/status-v1.json");

fn pinned() -> Status {
    serde_json::from_str(PINNED).unwrap()
}

fn text(page: Vec<u8>) -> String {
    String::from_utf8(page).unwrap()
}

/// The pages of a status: all chains, and each chain's newest runs.
fn pages(status: &Status) -> Vec<String> {
    let runs = status.chains.iter().flat_map(|chain| chain.running.iter().chain(chain.runs.first()));
    let runs = runs.filter_map(|run| super::run(status, &run.id, None));
    let pages = [overview(status, None), no_run(status, &status.host)].into_iter().chain(runs);
    pages.map(text).collect()
}

/// Everything that was there is there: keys are only ever added.
fn assert_holds(new: &Value, old: &Value) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => old.iter().for_each(|(key, old)| assert_holds(&new[key], old)),
        (Value::Array(new), Value::Array(old)) => {
            assert_eq!(new.len(), old.len());
            new.iter().zip(old).for_each(|(new, old)| assert_holds(new, old));
        }
        (new, old) => assert_eq!(new, old),
    }
}

#[test]
fn an_old_status_is_read_and_written_as_it_was() {
    let value: Value = serde_json::from_str(PINNED).unwrap();
    assert_holds(&serde_json::to_value(pinned()).unwrap(), &value);
    assert_eq!(pinned().version, crate::status::VERSION);
}

#[test]
fn the_overview_says_what_runs_what_failed_and_what_is_due() {
    let page = text(overview(&pinned(), None));
    for words in [
        "<strong>1 chain failed</strong>",
        "The changed configuration was refused",
        "/etc/runner/conf.d/20-nightly.cfg:7</code>",
        "module 41 of 64",
        "in Europe/Prague",
        "value=\"64\"",
        "1 of 5 tasks done",
        "disabled",
        "Due next",
        "in 12 min",
        "photo 105 of 250",
        "build-03.example.org",
    ] {
        assert!(page.contains(words), "{words} in {page}");
    }
    assert!(!page.contains("http-equiv"), "it stays as it is while it is read");
    assert!(text(overview(&pinned(), Some(10))).contains("content=\"10; url=/?refresh=10\""));
}

#[test]
fn queues_that_cannot_be_worked_or_counted_say_so() {
    let mut status = pinned();
    status.chains.clear();
    let page = text(overview(&status, None));
    assert!(page.contains("class=\"verdict\"") && !page.contains("cannot be worked"), "{page}");
    assert!(!page.contains("does not work it"), "somebody does");
    status.queues[0].running = 0;
    let page = text(overview(&status, None));
    assert!(page.contains("</strong>: this daemon does not work it"), "{page}");
    status.queues[0].trouble = Some("the <disk> is away".to_owned());
    status.queues[1].uncounted = Some("no answer".to_owned());
    let page = text(overview(&status, None));
    for words in [
        "class=\"verdict failing\"",
        "<strong>1 queue</strong> cannot be worked",
        "jobs are not taken: the &lt;disk&gt; is away",
        "jobs could not be counted: no answer",
        "<strong class=\"bad\">–</strong>",
    ] {
        assert!(page.contains(words), "{words} in {page}");
    }
}

#[test]
fn what_did_not_begin_is_a_remark_beside_the_last_run() {
    let mut status = pinned();
    let chain = &mut status.chains[1];
    chain.running.clear();
    let last = chain.runs[0].clone();
    chain.runs.insert(0, Run { id: "x".to_owned(), outcome: Some(Ended::NotStarted), why: Some("w".to_owned()), ..last });
    let given_up =
        |reason: &str| crate::status::GivenUp { count: 3, last_at: status.time, reason: reason.to_owned(), why: Some("<why>".to_owned()) };
    chain.given_up = Some(given_up("skipped"));
    let page = text(overview(&status, None));
    assert!(page.contains("<strong>1 chain failed</strong>") && page.contains("3 slots given up since: &lt;why&gt;"), "{page}");
    assert!(!page.contains("did not run</strong>"), "{page}");
    let metrics = crate::metrics::prometheus(&status);
    assert!(!metrics.contains("runner_last_run_outcome{chain=\"nightly\",outcome=\"not_started\"}"), "{metrics}");
    status.chains[1].given_up = Some(given_up("lock"));
    let page = text(overview(&status, None));
    assert!(page.contains("<strong>1 chain did not run</strong>") && page.contains("3 runs refused since"), "{page}");
}

#[test]
fn a_chain_that_is_done_and_whose_tasks_say_that_not_all_is_well_is_seen() {
    let mut status = pinned();
    let chain = &mut status.chains[1];
    chain.running.clear();
    let last = &mut chain.runs[0];
    (last.outcome, last.said, last.why) = (Some(Ended::Done), Some("warning".to_owned()), Some("20-upload.py says warning".to_owned()));
    last.tasks[0].tries[0].said = Some("warning".to_owned());
    let id = last.id.clone();
    chain.totals.said = vec![crate::status::SaidTotal { said: "warning".to_owned(), count: 2 }];
    let page = text(overview(&status, None));
    for words in [
        "<strong>No chain failed</strong>",
        "In 1 chain tasks say that not all is well: ",
        "class=\"state warn\">done, says warning<",
        ">20-upload.py says warning<",
        "done, says warning, ",
    ] {
        assert!(page.contains(words), "{words} in {page}");
    }
    let page = text(run(&status, &id, None).unwrap());
    assert!(page.contains("class=\"warn\">done, says warning<") && page.contains(", says warning"), "{page}");
    let metrics = crate::metrics::prometheus(&status);
    assert!(metrics.contains("# TYPE runner_said_results_total counter\n"), "{metrics}");
    assert!(metrics.contains("runner_said_results_total{chain=\"nightly\",said=\"warning\"} 2\n"), "{metrics}");
    status.chains[1].runs[0].said = Some("success".to_owned());
    let page = text(overview(&status, None));
    assert!(!page.contains("not all is well") && page.contains("class=\"state good\">done<"), "{page}");
}

#[test]
fn a_run_shows_its_tries_and_what_they_wrote() {
    let status = pinned();
    let failed = status.chains[1].runs[0].id.clone();
    let page = text(run(&status, &failed, Some(5)).unwrap());
    for words in [
        "gave up",
        "the last to fail was 20-upload.py",
        "TimeoutError",
        "Try 2",
        "timed out: max_time",
        "18234 bytes before this are not shown",
        "&lt;script&gt;",
        "uploaded  31 %\n",
        &format!("url=/?run={failed}&amp;refresh=5"),
    ] {
        assert!(page.contains(words), "{words} in {page}");
    }
    assert!(!page.contains("<script") && !page.contains('\u{1b}'));
    // The beginning of an id is enough if no other run has it.
    let beginning = &failed[..failed.rfind('-').unwrap() + 4];
    assert!(run(&status, beginning, None).is_some());
    assert_eq!((run(&status, "4f1c", None), run(&status, "x", None)), (None, None));
}

#[test]
fn the_words_for_times_are_short() {
    let now: Date = "2026-11-21T08:47:10.250+01:00".parse().unwrap();
    let shown = |text: &str| when(text.parse().unwrap(), now);
    assert_eq!(shown("2026-11-21T08:00:00.000+01:00"), "08:00:00");
    assert_eq!(shown("2026-11-20T08:00:00.000+01:00"), "20 Nov 08:00");
    assert_eq!(shown("2025-11-20T08:00:00.000+01:00"), "20 Nov 2025 08:00");
    assert_eq!([about(0.4), about(119.0), about(121.0), about(7200.0), about(-90.0 * 3600.0)], ["0 s", "119 s", "2 min", "2 h", "3 d"]);
}

#[test]
fn a_page_without_anything_is_a_page() {
    let mut status = pinned();
    (status.chains, status.queues, status.locks, status.configuration.refused, status.since) = (vec![], vec![], vec![], None, None);
    let page = text(overview(&status, None));
    assert!(page.contains("No chain failed") && page.contains("The configuration has no chain."));
    assert!(page.ends_with("</html>\n"));
}

/// The markup without its text: tags with the names of their attributes. Fails where a tag is none of ours.
fn skeleton(page: &str) -> Vec<String> {
    let mut tags = Vec::new();
    let mut rest = page;
    while let Some(begin) = rest.find('<') {
        let mut quoted = false;
        let inside = &rest[begin + 1..];
        let end = inside
            .find(|c| {
                quoted ^= c == '"';
                c == '>' && !quoted
            })
            .expect("every tag is closed");
        let tag: String = inside[..end].split('"').step_by(2).collect();
        tags.push(tag);
        rest = &inside[end + 1..];
    }
    tags
}

/// Every string of a JSON document that may come from outside, replaced.
fn replace_strings(value: &mut Value, word: &str) {
    match value {
        Value::Object(object) => object.iter_mut().filter(|(key, _)| !key.ends_with("_at") && *key != "at").for_each(|(key, value)| {
            let ours = ["time", "since", "next", "until", "outcome", "state", "oldest_ready", "last_success", "totals"];
            if !ours.contains(&key.as_str()) {
                replace_strings(value, word);
            }
        }),
        Value::Array(values) => values.iter_mut().for_each(|value| replace_strings(value, word)),
        Value::String(text) if text.starts_with("4f1c2a9b-") => text.push_str(word),
        Value::String(text) => word.clone_into(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn with_words(word: &str) -> Status {
    let mut value: Value = serde_json::from_str(PINNED).unwrap();
    replace_strings(&mut value, word);
    serde_json::from_value(value).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn nothing_from_outside_becomes_markup(word in "x[<>\"'&/=a-z!\\-\\p{Cc}\\p{Any}\u{1b}\u{202e}]{0,24}") {
        // A tail of nothing is no tail; what a terminal would not show is left out.
        let plain = pages(&with_words("x"));
        let wild = pages(&with_words(&word));
        prop_assert_eq!(plain.len(), wild.len());
        for (plain, wild) in plain.iter().zip(&wild) {
            prop_assert_eq!(skeleton(plain), skeleton(wild));
            prop_assert!(!wild.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
        }
    }

    #[test]
    fn labels_of_metrics_stay_in_their_line(word in "[\\\\\"\n{}a-z,=\\p{Any}]{1,16}") {
        let lines = |word: &str| crate::metrics::prometheus(&with_words(word)).lines().count();
        prop_assert_eq!(lines(&word), lines("x"));
    }
}

#[test]
fn output_is_cut_at_its_beginning_and_never_inside_a_character() {
    let mut attempt = pinned().chains[1].runs[0].tasks[1].tries[0].clone();
    attempt.output = Some("ž".repeat(OUTPUT));
    let (text, lost) = tail(&attempt);
    assert_eq!((text.len(), lost), (OUTPUT, OUTPUT as u64));
    attempt.output = Some(format!("x{}", "ž".repeat(OUTPUT)));
    assert_eq!(tail(&attempt).0.len(), OUTPUT);
}
