//! The daemon's page in a real browser: both colour schemes, a phone, the keyboard, and tasks that try to get markup into it.

use rustix::process::Signal;
use serde_json::Value;

use crate::browser::Browser;
use crate::scene::{Running, Scene};

/// What a task would have to get past to have the page run something.
const ATTACK: &str =
    "</pre></span>\"'><script>window.pwned = 1</script><img src=x onerror=\"window.pwned = 2\"><svg onload=window.pwned=3>";

/// A daemon with a chain that runs, one that failed, one in order, one that waits for its next try, and one that is off.
fn daemon() -> Scene {
    let scene = Scene::new();
    let attack = ATTACK.replace('\'', "'\\''");
    let talks = format!("play notify 'STATUS={attack}' notify X_RUNNER_PROGRESS=40 notify-barrier touch talks wait-file go");
    let once = "schedule = every 1s\nrandom_delay = 0\n";
    let chains = format!(
        "[daemon]\nlisten = 127.0.0.1:0\n[runner]\nmax_tries = 1\noutput = capture\n\
         [chain:runs]\ntask_dir = runs\nmax_parallel = 2\n{once}[chain:fails]\ntask_dir = fails\n{once}timezone = Asia/Tokyo\n[chain:good]\ntask_dir = good\n{once}\
         [chain:waits]\ntask_dir = waits\nmax_tries = 3\nsleep_time = 1h\n{once}\
         [chain:off]\ntask_dir = good\nenabled = no\nschedule = @daily\n"
    );
    scene
        .config(&chains)
        .task_at("runs/1-talks.sh", &talks)
        .task_at("runs/1-<script>alert(1)<&quot;.sh", "play touch odd wait-file go")
        .task_at(
            "fails/1-a-task-with-quite-a-long-name-that-no-phone-has-room-for.sh",
            &format!("echo '{attack}'; echo \"$(head -c 300 /dev/zero | tr '\\0' x)\"; exit 7"),
        )
        .task_at("good/1-a.sh", "exit 0")
        .task_at("waits/1-a.sh", "exit 1")
}

fn address(running: &mut Running) -> String {
    running.wait_for_message("answers on", "");
    let log = std::fs::read_to_string(running.path("stderr.1")).unwrap();
    let line = log.lines().find(|line| line.contains("answers on")).unwrap();
    let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:") || word.contains("//127.0.0.1:")).unwrap();
    format!("http://{}", address.trim_start_matches("http://").trim_end_matches(['/', ',']))
}

/// Text that has too little contrast with what is behind it (WCAG 2, 1.4.3: 4.5 to 1), with its colours.
const PALE: &str = r"(() => {
    const parse = (text) => text.match(/[\d.]+/g).map(Number);
    const light = (rgb) => { const [r, g, b] = rgb.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const ground = (node) => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
    const pale = [];
    for (const node of document.querySelectorAll('body *')) {
        if (![...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())) continue;
        const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) pale.push(node.textContent.trim().slice(0, 40) + ' ' + ratio.toFixed(2));
    }
    return pale;
})()";

/// What is in the document that only somebody else could have put there.
const FOREIGN: &str = "[...document.querySelectorAll('script, img, iframe, object, embed, form, input, style, base')].map((n) => n.outerHTML)\
    .concat([...document.querySelectorAll('*')].filter((n) => n.getAttributeNames().some((name) => name.startsWith('on'))).map((n) => n.outerHTML))";

/// The page as it is seen with this width and these colours.
fn judge(browser: &Browser, width: u32, dark: bool, name: &str) {
    browser.look(width, 900, dark);
    let ground = browser.value("getComputedStyle(document.documentElement).backgroundColor");
    assert_eq!(ground, if dark { "rgb(15, 19, 23)" } else { "rgb(245, 246, 248)" }, "{name}");
    let pale = browser.value(PALE);
    assert_eq!(pale, Value::Array(Vec::new()), "{name}, dark: {dark}");
    let wide = browser.value("document.documentElement.scrollWidth").as_u64().unwrap();
    assert!(wide <= u64::from(width), "{name}: {wide} of {width} pixels");
    let shade = if dark { "dark" } else { "light" };
    browser.picture(&std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}-{width}-{shade}.png")));
}

fn judge_all(browser: &Browser, name: &str) {
    for (width, dark) in [(1100, false), (1100, true), (360, false), (360, true)] {
        judge(browser, width, dark, name);
    }
    assert_eq!(browser.value(FOREIGN), Value::Array(Vec::new()), "{name}");
    assert_eq!(browser.value("typeof window.pwned"), "undefined", "{name}");
}

/// Walks through the page by keyboard, and tells where the focus was.
fn walk(browser: &Browser) -> Vec<String> {
    let mut seen = Vec::new();
    let all = browser.value("document.querySelectorAll('a[href], summary, pre[tabindex]').length").as_u64().unwrap();
    for _ in 0..all {
        browser.press("Tab");
        let focus = "(() => { const n = document.activeElement, s = getComputedStyle(n); \
             return [n.tagName + ' ' + n.textContent.trim().slice(0, 30), s.outlineStyle, parseFloat(s.outlineWidth), n.getBoundingClientRect().height]; })()";
        let focus = browser.value(focus);
        assert!(focus[1] != "none" && focus[2].as_f64().unwrap() >= 2.0 && focus[3].as_f64().unwrap() > 0.0, "it cannot be seen: {focus}");
        seen.push(focus[0].as_str().unwrap().to_owned());
    }
    seen
}

#[test]
fn people_can_read_it_and_nothing_a_task_says_gets_into_it() {
    let scene = daemon();
    let Some(browser) = Browser::start(&scene) else { return };
    let mut running = scene.start(&["-v", "daemon"]);
    let address = address(&mut running);
    running.wait_for_file("talks").wait_for_file("odd");
    running.wait_for_message("chain fails: gave up", "").wait_for_message("chain good: done", "").wait_for_message("chain waits: from", "");
    browser.look(1100, 900, false);
    browser.visit(&format!("{address}/"));
    judge_all(&browser, "all");
    let text = browser.value("document.body.innerText").as_str().unwrap().to_owned();
    for words in [ATTACK, "1-<script>alert(1)<&quot;.sh", "40 %", "chain failed", "gave up", "disabled", "waiting", "begins at", "+09:00"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    // By keyboard: everything is reached in the order of the page, and a run is opened.
    let seen = walk(&browser);
    assert!(seen[0].starts_with("A Reload") && seen.iter().any(|focus| focus == "A fails"), "{seen:?}");
    browser.order("Page.reload", &serde_json::json!({}));
    browser.wait_for("Page.loadEventFired");
    for _ in 0..=seen.iter().position(|focus| focus == "A fails").unwrap() {
        browser.press("Tab");
    }
    browser.press("Enter");
    browser.wait_for("Page.loadEventFired");
    assert!(browser.value("location.search").as_str().unwrap().starts_with("?run="));
    judge_all(&browser, "run");
    let text = browser.value("document.body.innerText").as_str().unwrap().to_owned();
    assert!(text.contains(ATTACK) && text.contains("exit 7"), "{text}");
    walk(&browser);
    // Nothing was complained about, nothing ran, nobody else was asked.
    for event in
        ["Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening", "Audits.issueAdded"]
    {
        assert_eq!(browser.events(event), Vec::<Value>::new(), "{event}");
    }
    let asked = browser.events("Network.requestWillBeSent");
    let foreign: Vec<_> = asked.iter().filter(|request| !request["request"]["url"].as_str().unwrap().starts_with(&address)).collect();
    assert!(foreign.is_empty() && asked.len() >= 4, "{foreign:?}");
    std::fs::write(running.path("go"), "").unwrap();
    running.signal(Signal::TERM);
    running.finish().exits(0);
}
