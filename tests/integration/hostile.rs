//! What a hostile user or an unlucky operator puts in the way: files that are no files, names that are more than a
//! name, readers that do not read.

use std::fmt::Write as _;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::scene::Scene;

fn make_fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

// ---- configurations ----------------------------------------------------------------------------

#[test]
fn a_pipe_is_no_configuration_and_nobody_waits_for_its_writer() {
    let scene = Scene::new().config("[runner]\ninclude_dir = conf.d\n").dir("conf.d").tasks(["1-a.sh"]);
    make_fifo(&scene.path("pipe.cfg"));
    let pipe = scene.path("pipe.cfg");
    scene.run(&["-c", pipe.to_str().unwrap(), "check"]).exits(78).says("pipe.cfg cannot be read: it is a pipe");
    scene.runner_config(&["-c", pipe.to_str().unwrap(), "-l"]).exits(78).says("it is a pipe");
    make_fifo(&scene.path("conf.d/10-pipe.cfg"));
    scene.run(&[]).exits(78).ran_nothing().says("10-pipe.cfg cannot be read: it is a pipe");
}

#[test]
fn a_file_without_end_is_no_configuration() {
    Scene::new().tasks(["1-a.sh"]).run(&["-c", "/dev/zero", "check"]).exits(78).ran_nothing().says("/dev/zero").says("longer than 16 MiB");
}

#[test]
fn a_section_may_hold_very_many_keys() {
    let mut text = "[mine]\n".to_owned();
    for number in 0..60_000 {
        writeln!(text, "key{number} = {number}").unwrap();
    }
    let scene = Scene::new().config(&text);
    scene.runner_config(&["-g", "mine.key59999"]).exits(0).prints_line("59999");
}
