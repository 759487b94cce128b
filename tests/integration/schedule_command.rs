//! `runner schedule`: the next slots, their zones, what the changes of the clock do to them.

use serde_json::Value;

use crate::scene::Scene;

/// Before the clocks of Prague go forward (29 March) and back (25 October 2026).
const SPRING: &str = "2026-03-28T12:00:00+01:00";
const AUTUMN: &str = "2026-10-24T12:00:00+02:00";

fn scene() -> Scene {
    Scene::new().dir("a").config(
        "[chain:night]\ntask_dir = a\nschedule = 30 2 * * *\ntimezone = Europe/Prague\n\
         [chain:often]\ntask_dir = a\nschedule =\n  */30 2 * * *\n  @boot\ntimezone = Europe/Prague\nenabled = no\n\
         [chain:hand]\ntask_dir = a\n",
    )
}

fn slots(document: &Value, chain: &str) -> Vec<(String, String)> {
    let chain = document["chains"].as_array().unwrap().iter().find(|one| one["name"] == chain).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    chain["slots"].as_array().unwrap().iter().map(|slot| (text(&slot["at"]), text(&slot["dst"]))).collect()
}

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    wanted.iter().map(|(at, dst)| ((*at).to_owned(), (*dst).to_owned())).collect()
}

#[test]
fn the_changes_of_the_clock_are_told() {
    let spring = scene().run(&["schedule", "--after", SPRING, "--count", "2", "--json"]).exits(0).json();
    assert_eq!(spring["version"], 1);
    assert_eq!(slots(&spring, "night"), pairs(&[("2026-03-29T03:00:00.000+02:00", "moved"), ("2026-03-30T02:30:00.000+02:00", "")]));
    assert_eq!(slots(&spring, "often")[0], ("2026-03-30T02:00:00.000+02:00".to_owned(), String::new()));
    let autumn = scene().run(&["schedule", "night", "often", "--after", AUTUMN, "-n", "4", "--json"]).exits(0).json();
    assert_eq!(slots(&autumn, "night")[0], ("2026-10-25T02:30:00.000+02:00".to_owned(), "first_pass".to_owned()));
    let twice = ["02:00:00.000+02:00", "02:30:00.000+02:00", "02:00:00.000+01:00", "02:30:00.000+01:00"];
    let passes = ["first_pass", "first_pass", "second_pass", "second_pass"];
    let wanted: Vec<_> = twice.iter().zip(passes).map(|(at, pass)| (format!("2026-10-25T{at}"), pass.to_owned())).collect();
    assert_eq!(slots(&autumn, "often"), wanted);
}

#[test]
fn a_table_for_people() {
    let run = scene().run(&["schedule", "--after", SPRING, "--count", "1"]).exits(0);
    let text = run.stdout_text();
    let line = |word: &str| text.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}: {text}")).to_owned();
    assert!(line("2026-03-29T03:00:00+02:00").ends_with("the clock skips 02:30"), "{text}");
    assert!(line("@boot").contains("not enabled; once for each start of the machine"), "{text}");
    assert!(line("2026-03-30T02:00").contains("Europe/Prague") && line("2026-03-30T02:00").ends_with("not enabled"), "{text}");
    assert!(line("hand").contains("no schedule: runner now runs it"), "{text}");
}

#[test]
fn what_comes_next_is_by_time_unless_chains_are_named() {
    let chain = |name: &str, schedule: &str| format!("[chain:{name}]\ntask_dir = tasks.d\nschedule = {schedule}\ntimezone = UTC\n");
    let scene = Scene::new().config(&[chain("a", "daily 3:00"), chain("hand", "@boot"), chain("b", "daily 2:00 4:00")].concat());
    let names = |scene: &Scene, args: &[&str]| {
        let run = scene.run(&[&["schedule", "--after", SPRING], args].concat()).exits(0);
        let lines: Vec<String> = run.stdout_text().lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        lines.concat()
    };
    assert_eq!(names(&scene, &["-n", "2"]), "babahand");
    assert_eq!(names(&scene, &["-n", "2", "a", "b"]), "aabb");
    let many = scene.config(&[chain("c", "daily 3:30"), chain("d", "daily 5:00")].concat());
    assert_eq!(names(&many, &[]), "bacdhand", "the next of each");
    assert_eq!(slots(&many.run(&["schedule", "--json"]).exits(0).json(), "a").len(), 5);
}

#[test]
fn a_stretch_of_time_has_all_its_slots() {
    let args = ["schedule", "night", "--after", SPRING, "--before", "2026-04-28T12:00:00+02:00", "--json"];
    let all = scene().run(&args).exits(0).json();
    assert_eq!(slots(&all, "night").len(), 31);
    let run = scene().run(&["schedule", "night", "--after", "+1h", "--before", "+1h"]).exits(64);
    run.says("--before names no time after the first one");
    scene().run(&["schedule", "--after", "soon"]).exits(64).says("--after `soon`: expected a time");
}

#[test]
fn a_time_of_day_behind_before_is_the_first_one_after_the_beginning() {
    let scene = Scene::new().config("[chain:c]\ntask_dir = tasks.d\nschedule = 0 * * * *\ntimezone = UTC\n");
    let hours = |args: &[&str]| {
        let all = scene.run(&[&["schedule", "--json"], args].concat()).exits(0).json();
        slots(&all, "c").into_iter().map(|(at, _)| at[..16].to_owned()).collect::<Vec<_>>()
    };
    // Whatever the time is now: the night that begins then.
    let night = hours(&["--after", "2031-05-04T21:30:00Z", "--before", "1:30"]);
    assert_eq!(night, ["2031-05-04T22:00", "2031-05-04T23:00", "2031-05-05T00:00", "2031-05-05T01:00"]);
    assert_eq!(hours(&["--after", "22:30", "--before", "3:00"]).len(), 4, "23 to 2 o'clock");
    assert_eq!(hours(&["--after", "3:30", "--before", "3:30"]).len(), 24, "a day");
    assert_eq!(hours(&["--after", "2020-05-04T21:30:00Z", "--before", "22:30"]), ["2020-05-04T22:00"]);
}

#[test]
fn a_random_delay_moves_when_it_fires_and_not_its_name() {
    let scene = Scene::new().dir("a").config("[chain:c]\ntask_dir = a\nschedule = daily 4:00\ntimezone = UTC\nrandom_delay = 1h\n");
    let json = scene.run(&["schedule", "--json"]).exits(0).json();
    let (chain, slot) = (&json["chains"][0], &json["chains"][0]["slots"][0]);
    let seconds = |key: &str| slot[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    let delay = chain["delay_s"].as_i64().unwrap();
    assert!((0..=3600).contains(&delay) && seconds("fires_at") == seconds("at") + delay, "{json}");
    assert!(slot["at"].as_str().unwrap().contains("T04:00:00"), "{json}");
}

#[test]
fn what_is_unknown_or_wrong_is_told() {
    scene().run(&["schedule", "nihgt"]).exits(64).says("no chain with a schedule is called `nihgt`; did you mean `night`?");
    scene().run(&["schedule", "main"]).exits(64).says("it runs when runner is called");
    scene()
        .config("[chain:x]\ntask_dir = a\nschedule = @daily\n  0 25 * * *\n")
        .run(&["schedule"])
        .exits(78)
        .says("runner.cfg:17: schedule:");
    Scene::new().run(&["schedule"]).exits(0).says("there is no [chain:NAME]").prints("");
    scene().run(&["shedule"]).exits(64).says("did you mean `schedule`?");
}
