//! A real browser without a screen: Chromium, steered by its DevTools protocol over two pipes.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::scene::{DEADLINE, Scene, skipped, spawn, succeeds};

/// What it may be called; the first is Debian's package that has nothing but this.
const PROGRAMS: [&str; 2] = ["chromium-headless-shell", "chromium"];
/// It starts no programs, asks nobody, and needs no graphics.
const OPTIONS: &str = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-extensions --no-first-run \
                       --disable-background-networking --no-proxy-server --remote-debugging-pipe --user-data-dir=\"$HOME/profile\"";

/// The browser and its one page.
pub(crate) struct Browser {
    child: Child,
    orders: RefCell<File>,
    answers: RefCell<File>,
    pending: RefCell<Vec<u8>>,
    session: RefCell<Option<String>>,
    count: Cell<u32>,
    events: RefCell<Vec<Value>>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Starts it; says that the test is skipped where there is none.
    pub(crate) fn start(scene: &Scene) -> Option<Self> {
        let Some(program) = PROGRAMS.into_iter().find(|name| succeeds(Command::new(name).args(["--version", "--no-sandbox"]))) else {
            skipped("neither chromium-headless-shell nor chromium is installed");
            return None;
        };
        let home = scene.path("browser");
        std::fs::create_dir(&home).unwrap();
        for pipe in ["orders", "answers"] {
            rustix::fs::mknodat(CWD, home.join(pipe), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        // Opened for both ways: nobody waits for the other side, and the ends that are too many are closed below.
        let both = |pipe: &str| File::from(rustix::fs::open(home.join(pipe), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap());
        let (orders, answers) = (both("orders"), both("answers"));
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("exec {program} {OPTIONS} about:blank 3<\"$HOME/orders\" 4>\"$HOME/answers\"")])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &home)
            .env("LANG", "C.UTF-8")
            .current_dir(&home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(home.join("stderr")).unwrap())
            .process_group(0);
        let (child, _) = spawn(&mut command).unwrap();
        let browser = Self {
            child,
            orders: orders.into(),
            answers: answers.into(),
            pending: RefCell::default(),
            session: RefCell::default(),
            count: Cell::default(),
            events: RefCell::default(),
        };
        let target = browser.order("Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let session = browser.order("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        browser.session.replace(session["sessionId"].as_str().map(str::to_owned));
        for part in ["Page", "Runtime", "Log", "Network", "Audits"] {
            browser.order(&format!("{part}.enable"), &json!({}));
        }
        Some(browser)
    }

    /// Gives an order, and waits for its result.
    pub(crate) fn order(&self, method: &str, parameters: &Value) -> Value {
        let id = self.count.get() + 1;
        self.count.set(id);
        let mut order = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &*self.session.borrow() {
            order["sessionId"] = session.clone().into();
        }
        let mut text = order.to_string().into_bytes();
        text.push(0);
        self.orders.borrow_mut().write_all(&text).unwrap();
        loop {
            let answer = self.next_message();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.borrow_mut().push(answer);
        }
    }

    fn next_message(&self) -> Value {
        let begun = Instant::now();
        let mut pending = self.pending.borrow_mut();
        loop {
            if let Some(end) = pending.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = pending.drain(..=end).collect();
                return serde_json::from_slice(&message[..end]).unwrap();
            }
            let left = rustix::time::Timespec::try_from(DEADLINE.saturating_sub(begun.elapsed())).unwrap();
            let mut answers = self.answers.borrow_mut();
            let ready = poll(&mut [PollFd::new(&*answers, PollFlags::IN)], Some(&left));
            assert!(ready.is_ok_and(|ready| ready > 0), "the browser says nothing");
            let mut part = vec![0; 65536];
            let length = answers.read(&mut part).unwrap();
            pending.extend(&part[..length]);
        }
    }

    /// Goes to a page and waits until it is there with all that belongs to it.
    pub(crate) fn visit(&self, url: &str) {
        let result = self.order("Page.navigate", &json!({ "url": url }));
        assert!(result["errorText"].is_null(), "{url}: {result}");
        self.wait_for("Page.loadEventFired");
    }

    /// Waits for an event that has not been waited for yet.
    pub(crate) fn wait_for(&self, method: &str) -> Value {
        loop {
            let at = self.events.borrow().iter().position(|event| event["method"] == method);
            if let Some(at) = at {
                return self.events.borrow_mut().remove(at);
            }
            let message = self.next_message();
            self.events.borrow_mut().push(message);
        }
    }

    /// What came so far of events of this name.
    pub(crate) fn events(&self, method: &str) -> Vec<Value> {
        self.events.borrow().iter().filter(|event| event["method"] == method).map(|event| event["params"].clone()).collect()
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&self, expression: &str) -> Value {
        let result = self.order("Runtime.evaluate", &json!({ "expression": expression, "returnByValue": true }));
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// The size of the window, and whether its user wants a dark one.
    pub(crate) fn look(&self, width: u32, height: u32, dark: bool) {
        let phone = width < 500;
        self.order(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone }),
        );
        let scheme = if dark { "dark" } else { "light" };
        self.order("Emulation.setEmulatedMedia", &json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }));
    }

    /// Presses and releases a key: `Tab`, `Enter`.
    pub(crate) fn press(&self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            other => panic!("the key {other}"),
        };
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        for kind in [down, "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" {
                event["text"] = text.into();
            }
            self.order("Input.dispatchKeyEvent", &event);
        }
    }

    /// Leaves a picture of the whole page in a file, for people.
    pub(crate) fn picture(&self, file: &Path) {
        use base64::Engine as _;
        let shot = self.order("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }));
        let bytes = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
}
