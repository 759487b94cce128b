//! `runner import crontab`: what cron did, as chains that `check` and `schedule` take and that run.

use std::fs;

use crate::scene::{Outcome, Scene};

const CRONTAB: &str = "\
# what a user has
MAILTO=ops@example.org
GREETING=\"it's me\"
30 4 * * mon-fri /opt/backup.sh --all >\"$OUT\"
5-59/25 * * * * printf '\\%s' \"$GREETING\" >\"$SCENE/said\"
CRON_TZ=Europe/Prague
@daily cat >\"$SCENE/mail\"%Hello 100\\%,%bye
@reboot true
";

/// A scene whose configuration is what became of a user's crontab, and what was printed.
fn imported(crontab: &str) -> (Scene, Outcome) {
    let scene = Scene::new().file("crontab", crontab).no_config();
    let printed = scene.run(&["import", "crontab", "--user", "--into", "chains", "crontab"]).exits(0);
    (scene.raw_config(printed.stdout.clone()), printed)
}

#[test]
fn check_and_schedule_take_what_comes_out() {
    let (scene, printed) = imported(CRONTAB);
    printed.prints("# MAILTO was ops@example.org: runner sends no mail by itself").prints("# crontab:4\n[chain:backup]\n");
    scene.run(&["check", "--strict"]).exits(0).prints("0 errors, 0 warnings");
    let json = scene.run(&["schedule", "--after", "2026-11-21T00:00:00Z", "-n", "1", "--json"]).exits(0).json();
    let first = |chain: &str| {
        let chain = json["chains"].as_array().unwrap().iter().find(|one| one["name"] == chain).unwrap().clone();
        (chain["slots"][0]["at"].as_str().unwrap_or_default().to_owned(), chain["at_boot"].as_bool().unwrap())
    };
    assert_eq!(first("backup"), ("2026-11-23T04:30:00.000+00:00".to_owned(), false));
    assert_eq!(first("printf"), ("2026-11-21T00:05:00.000+00:00".to_owned(), false));
    assert_eq!(first("cat"), ("2026-11-22T00:00:00.000+01:00".to_owned(), false));
    assert_eq!(first("true"), (String::new(), true));
}

#[test]
fn the_scripts_do_what_cron_did() {
    let (scene, _) = imported(CRONTAB);
    let run = scene.run(&["now", "printf", "cat"]).exits(0);
    assert_eq!((run.text_of("said"), run.text_of("mail")), ("it's me".to_owned(), "Hello 100%,\nbye\n".to_owned()));
    let script = run.text_of("chains/backup/10-backup.sh");
    let wanted =
        "#!/bin/sh\n# crontab:4\nexport GREETING='it'\\''s me'\ncd \"${HOME:-/}\" 2>/dev/null || cd /\n/opt/backup.sh --all >\"$OUT\"\n";
    assert_eq!((script.as_str(), run.mode_of("chains/backup/10-backup.sh") & 0o777), (wanted, 0o700));
    // As with cron: a code of its own, once.
    let (scene, _) = imported("@daily exit 2\n");
    scene.run(&["now"]).exits(1).says("exit 2");
}

#[test]
fn nothing_is_overwritten() {
    let (scene, _) = imported(CRONTAB);
    fs::remove_dir_all(scene.path("chains/printf")).unwrap();
    let again = scene.no_config();
    again
        .run(&["import", "crontab", "--user", "--into", "chains", "crontab"])
        .exits(64)
        .says("backup is there already, and nothing is overwritten");
    assert!(!again.path("chains/printf").exists(), "nothing was written at all");
}

#[test]
fn without_a_directory_the_scripts_are_shown_and_nothing_is_written() {
    let scene = Scene::new().file("crontab", CRONTAB).no_config();
    let run = scene.run(&["import", "crontab", "--user", "crontab"]).exits(0);
    run.prints("task_dir = backup.d\n").prints("# backup.d/10-backup.sh:\n#   #!/bin/sh\n").prints("# cat.d/");
    let json = scene.run(&["import", "crontab", "--user", "crontab", "--json"]).exits(0).json();
    assert_eq!((&json["version"], &json["chains"][0]["name"], json["chains"].as_array().unwrap().len()), (&1.into(), &"backup".into(), 4));
}

#[test]
fn a_system_crontab_names_users_and_what_is_not_translated_is_a_comment() {
    let crontab = "SHELL=/bin/bash\n17 * * * * root cd / && run-parts /etc/cron.hourly\n5/10 * * * * root /bin/a\n0 1 * * * nobody /bin/b\n0 1 * * * /bin/c d\n";
    let scene = Scene::new().file("crontab", crontab).no_config();
    let run = scene.run(&["import", "crontab", "crontab"]).exits(0);
    run.prints("[chain:cron.hourly]\ntask_dir = cron.hourly.d\nschedule = 17 * * * *\n")
        .prints("user = root\n")
        .prints("user = nobody\n")
        .prints("# crontab:3 is not translated: ")
        .prints("# 5/10 * * * * root /bin/a\n")
        .prints("# crontab:5 is not translated: `/bin/c` is no name of a user; with --user")
        .says("crontab:3: not translated: ")
        .prints("#   #!/bin/bash\n");
}

#[test]
fn a_user_who_is_not_there_is_told_with_the_line() {
    let scene = Scene::new().file("crontab", "1 1 * * * root true\n2 2 * * * no-such-user true\n").no_config();
    let run = scene.run(&["import", "crontab", "crontab"]).exits(0).prints("user = no-such-user\n");
    run.says("crontab:2: there is no user `no-such-user`: with it in chain true-2").never_says("crontab:1:");
}

#[test]
fn a_line_that_is_not_translated_takes_nobody_s_name() {
    let scene = Scene::new().file("crontab", "61 * * * * echo a\n@daily echo b\n").no_config();
    let run = scene.run(&["import", "crontab", "--user", "crontab"]).exits(0).says("crontab:1: not translated: ");
    run.prints("[chain:echo]\n").never_prints("echo-2");
}

#[test]
fn what_cannot_be_read_is_told() {
    let scene = Scene::new().no_config();
    scene.run(&["import", "crontab", "gone"]).exits(64).says("the crontab gone cannot be read");
    scene.run(&["import"]).exits(64);
    let scene = Scene::new().file("stdin", "@daily true\n").no_config();
    let run = scene.run(&["import", "crontab", "--user", "-"]).exits(0);
    run.prints("# The jobs of standard input. ").prints("\n# standard input:1\n[chain:true]\n");
}
