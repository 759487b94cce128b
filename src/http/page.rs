//! The page for people: what runs, what is wrong, what is due, and one run in detail. A pure function of the status;
//! it needs no script, and loads nothing but its style.

mod locks;
mod queues;

use std::time::Duration;

use super::html::{Html, plain};
use crate::clock::Seconds;
use crate::names::counted;
use crate::status::{Chain, Date, Ended, HISTORY_UNKNOWN, Run, Status, Task, TaskState, Try};

/// How many of a chain's last runs are drawn.
const STRIP: usize = 20;
/// How many slots are shown of all that come.
const DUE: usize = 8;
/// How much is shown of what one try wrote, in bytes; the end is what matters.
const OUTPUT: usize = 16 * 1024;

/// The page of all chains.
pub fn overview(status: &Status, refresh: Option<u32>) -> Vec<u8> {
    let mut html = Html::default();
    begin(&mut html, &title(status), refresh, "/");
    html.raw("<header><h1>runner <span class=\"quiet\">on ").text(&status.host).raw("</span></h1>");
    links(&mut html, refresh, "/");
    html.raw("</header>\n<main>\n");
    verdict(&mut html, status);
    refused(&mut html, status);
    remarks(&mut html, status);
    running(&mut html, status);
    chains(&mut html, status);
    due(&mut html, status);
    queues::table(&mut html, status);
    locks::list(&mut html, status);
    html.raw("</main>\n");
    end(&mut html, status);
    html.into_bytes()
}

/// The page of one run, by its id or a beginning that no other has.
pub fn run(status: &Status, id: &str, refresh: Option<u32>) -> Option<Vec<u8>> {
    let (chain, run) = find(status, id)?;
    let class = run.outcome.map_or("busy", |_| class(run));
    let word = run.words().unwrap_or_else(|| "running".to_owned());
    let here = format!("/?run={}", run.id);
    let mut html = Html::default();
    begin(&mut html, &format!("{}: {word}", chain.name), refresh, &here);
    html.raw("<header><div><p><a href=\"/\">All chains of ").text(&status.host).raw("</a></p><h1>").text(&chain.name);
    html.raw(": <span").attribute("class", class).raw(">").text(&word).raw("</span></h1></div>");
    links(&mut html, refresh, &here);
    html.raw("</header>\n<main>\n<section aria-labelledby=\"run\"><h2 id=\"run\">The run</h2><dl>");
    facts(&mut html, run, status.time);
    html.raw("</dl></section>\n");
    tasks(&mut html, run, status.time);
    outputs(&mut html, run);
    html.raw("</main>\n");
    end(&mut html, status);
    Some(html.into_bytes())
}

/// The page of a run that is not there.
pub fn no_run(status: &Status, id: &str) -> Vec<u8> {
    let mut html = Html::default();
    begin(&mut html, "no such run", None, "/");
    html.raw("<header><h1>No such run</h1></header>\n<main><section><p>No run, or more than one, is called <code>").text(id);
    html.raw("</code> here. Only the last runs are shown; <code>runner history</code> knows more.</p>");
    html.raw("<p><a href=\"/\">All chains</a></p></section></main>\n");
    end(&mut html, status);
    html.into_bytes()
}

fn find<'a>(status: &'a Status, id: &str) -> Option<(&'a Chain, &'a Run)> {
    let all = || status.chains.iter().flat_map(|chain| chain.running.iter().chain(&chain.runs).map(move |run| (chain, run)));
    let mut found = all().filter(|(_, run)| run.id.starts_with(id));
    let (first, second) = (found.next(), found.next());
    all().find(|(_, run)| run.id == id).or(first.filter(|_| second.is_none()))
}

// ---- around every page -------------------------------------------------------------------------

fn begin(html: &mut Html, title: &str, refresh: Option<u32>, here: &str) {
    html.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\">");
    if let Some(seconds) = refresh {
        let content = format!("{seconds}; url={}", with_refresh(here, seconds));
        html.raw("<meta http-equiv=\"refresh\"").attribute("content", &content).raw(">");
    }
    html.raw("<title>").text(title).raw("</title><link rel=\"stylesheet\" href=\"/style.css\"></head>\n<body>\n");
}

fn with_refresh(here: &str, seconds: u32) -> String {
    format!("{here}{}refresh={seconds}", if here.contains('?') { '&' } else { '?' })
}

/// A page that loads itself again takes the focus away from whoever walks through it by keyboard: it is a choice.
fn links(html: &mut Html, refresh: Option<u32>, here: &str) {
    html.raw("<nav aria-label=\"Page\"><ul class=\"small\"><li><a");
    match refresh {
        Some(seconds) => {
            html.attribute("href", here).raw(">Stop reloading</a> <span class=\"quiet\">(every ").number(seconds).raw(" s)</span></li>")
        }
        None => html.attribute("href", &with_refresh(here, 10)).raw(">Reload every 10 s</a></li>"),
    };
    html.raw("<li><a href=\"/status.json\">JSON</a></li><li><a href=\"/metrics\">Metrics</a></li></ul></nav>");
}

fn end(html: &mut Html, status: &Status) {
    html.raw("<footer class=\"quiet small\"><p>As of ");
    time(html, status.time, &status.time.show("%Y-%m-%d %H:%M:%S %:z"));
    html.raw(" · runner ").text(&status.program);
    if let Some(since) = status.since {
        html.raw(" · up for ").text(&about(since.seconds_until(status.time)));
    }
    html.raw(" · ").text(&status.configuration.file).raw(" read ");
    time(html, status.configuration.loaded_at, &when(status.configuration.loaded_at, status.time));
    html.raw("</p></footer>\n</body></html>\n");
}

// ---- words -------------------------------------------------------------------------------------

fn time(html: &mut Html, date: Date, words: &str) {
    html.raw("<time").attribute("datetime", &date.to_string()).raw(">").text(words).raw("</time>");
}

/// A moment, as short as it can be told apart today and here: by another clock than ours it has its offset.
fn when(date: Date, now: Date) -> String {
    let same = |pattern| date.show(pattern) == now.show(pattern);
    let offset = if same("%:z") { "" } else { " %:z" };
    if same("%Y-%m-%d") {
        date.show(&format!("%H:%M:%S{offset}"))
    } else if same("%Y") {
        date.show(&format!("%-d %b %H:%M{offset}"))
    } else {
        date.show(&format!("%-d %b %Y %H:%M{offset}"))
    }
}

/// A length of time in one word, for people who look at a clock anyway.
fn about(seconds: f64) -> String {
    let seconds = seconds.abs();
    let units = [(172_800.0, 86_400.0, "d"), (7200.0, 3600.0, "h"), (120.0, 60.0, "min")];
    let (size, unit) = units.into_iter().find(|(from, ..)| seconds >= *from).map_or((1.0, "s"), |(_, size, unit)| (size, unit));
    format!("{:.0} {unit}", (seconds / size).floor())
}

fn length(seconds: f64) -> String {
    Seconds(Duration::try_from_secs_f64(seconds).unwrap_or_default()).to_string()
}

fn of_tries(try_num: u32, max_tries: u32) -> String {
    if max_tries == u32::MAX { format!("{try_num}") } else { format!("{try_num} of {max_tries}") }
}

/// How a run ended, as a colour.
fn class(run: &Run) -> &'static str {
    match run.outcome.unwrap_or(Ended::Lost) {
        Ended::Done if run.doubt().is_none() => "good",
        Ended::Done | Ended::NotStarted | Ended::Signalled => "warn",
        Ended::GaveUp | Ended::Halted | Ended::Stopped | Ended::LockLost | Ended::Lost => "bad",
    }
}

fn is_bad(chain: &Chain) -> bool {
    chain.last_run().is_some_and(|run| class(run) == "bad")
}

fn title(status: &Status) -> String {
    let failing = status.chains.iter().filter(|chain| is_bad(chain)).count();
    let running: usize = status.chains.iter().map(|chain| chain.running.len()).sum();
    let mut words = Vec::new();
    if failing > 0 {
        words.push(format!("{failing} failed"));
    }
    if running > 0 {
        words.push(format!("{running} running"));
    }
    if words.is_empty() {
        words.push(if is_unknown(status) { "not known yet" } else { "well" }.to_owned());
    }
    let words = words.join(", ");
    format!("{words} · runner on {}", status.host)
}

/// Whether nobody knows yet what ran before.
fn is_unknown(status: &Status) -> bool {
    status.remarks.iter().any(|remark| remark.kind == HISTORY_UNKNOWN)
}

// ---- the overview ------------------------------------------------------------------------------

fn verdict(html: &mut Html, status: &Status) {
    let failing: Vec<_> = status.chains.iter().filter(|chain| is_bad(chain)).collect();
    let stuck = status.queues.iter().filter(|queue| queue.trouble.is_some()).count();
    let refused: Vec<&str> = status.chains.iter().filter(|chain| chain.refused().is_some()).map(|chain| chain.name.as_str()).collect();
    let class = if failing.is_empty() && refused.is_empty() && stuck == 0 { "verdict" } else { "verdict failing" };
    html.raw("<section").attribute("class", class).raw(" aria-label=\"Summary\"><p>");
    match failing.as_slice() {
        [] if is_unknown(status) => html.raw("<strong>Not known yet</strong> whether a chain failed when it last ran."),
        [] => html.raw("<strong>No chain failed</strong> when it last ran."),
        [..] => {
            html.raw("<strong>").text(&counted(failing.len(), "chain")).raw(" failed</strong> when last run: ");
            for (at, chain) in failing.iter().enumerate() {
                html.raw(if at == 0 { "" } else { ", " });
                run_link(html, chain.last_run(), &chain.name);
            }
            html.raw(".")
        }
    };
    if !refused.is_empty() {
        html.raw(" <strong>").text(&counted(refused.len(), "chain")).raw(" did not run</strong>: ").text(&refused.join(", ")).raw(".");
    }
    if stuck > 0 {
        html.raw(" <strong>").text(&counted(stuck, "queue")).raw("</strong> cannot be worked.");
    }
    let doubtful = || status.chains.iter().filter_map(|chain| Some((chain, chain.last_run().filter(|run| run.doubt().is_some())?)));
    if doubtful().next().is_some() {
        html.raw(" In ").text(&counted(doubtful().count(), "chain")).raw(" tasks say that not all is well: ");
        for (at, (chain, run)) in doubtful().enumerate() {
            html.raw(if at == 0 { "" } else { ", " });
            run_link(html, Some(run), &chain.name);
        }
        html.raw(".");
    }
    let running: usize = status.chains.iter().map(|chain| chain.running.len()).sum();
    let ready: u64 = status.queues.iter().map(|queue| queue.ready).sum();
    html.raw("</p><p class=\"quiet small\">").text(&counted(status.chains.len(), "chain")).raw(", ");
    html.text(&counted(running, "run")).raw(" under way");
    if !status.queues.is_empty() {
        html.raw(", ").text(&counted(usize::try_from(ready).unwrap_or(usize::MAX), "job")).raw(" ready in ");
        html.text(&counted(status.queues.len(), "queue"));
    }
    html.raw("</p></section>\n");
}

fn run_link(html: &mut Html, run: Option<&Run>, words: &str) {
    match run {
        Some(run) => html.raw("<a").attribute("href", &format!("/?run={}", run.id)).raw(">").text(words).raw("</a>"),
        None => html.text(words),
    };
}

fn refused(html: &mut Html, status: &Status) {
    let Some(refused) = &status.configuration.refused else { return };
    html.raw("<section class=\"alert\" role=\"alert\"><h2>The changed configuration was refused</h2><p>");
    if let Some(file) = &refused.file {
        html.raw("<code>").text(file);
        if let Some(line) = refused.line {
            html.raw(":").number(line);
        }
        html.raw("</code>: ");
    }
    html.text(&refused.message).raw("</p><p class=\"small\">Tried ");
    time(html, refused.at, &when(refused.at, status.time));
    html.raw(". What was read ");
    time(html, status.configuration.loaded_at, &when(status.configuration.loaded_at, status.time));
    html.raw(" is still in force; <code>runner check</code> shows all that is wrong.</p></section>\n");
}

fn remarks(html: &mut Html, status: &Status) {
    for remark in &status.remarks {
        html.raw("<section class=\"alert\" role=\"alert\"><p>").text(&remark.text).raw("</p></section>\n");
    }
}

fn running(html: &mut Html, status: &Status) {
    let runs: Vec<_> = status.chains.iter().flat_map(|chain| chain.running.iter().map(move |run| (chain, run))).collect();
    html.raw("<section aria-labelledby=\"running\"><h2 id=\"running\">Running now</h2>\n");
    if runs.is_empty() {
        html.raw("<p class=\"quiet\">Nothing.</p>");
    }
    for (chain, run) in runs {
        let done = run.tasks.iter().filter(|task| matches!(task.state, TaskState::Done | TaskState::Skipped)).count();
        html.raw("<div class=\"running\"><h3>");
        run_link(html, Some(run), &chain.name);
        html.raw("</h3><p class=\"quiet small\">for ").text(&about(run.seconds(status.time))).raw(", since ");
        time(html, run.started_at, &when(run.started_at, status.time));
        html.raw(" (").text(&run.trigger).raw(") · try ").text(&of_tries(run.try_num, run.max_tries));
        if let Some(until) = run.until {
            html.raw(" begins at ");
            time(html, until, &when(until, status.time));
        }
        html.raw(" · ").text(&format!("{done} of {}", counted(run.tasks.len(), "task"))).raw(" done</p><ul class=\"jobs\">");
        for task in run.tasks.iter().filter(|task| matches!(task.state, TaskState::Running | TaskState::Sleeping | TaskState::Failed)) {
            html.raw("<li><span>").text(&task.file).raw("</span>");
            task_state(html, task);
            html.raw("<span>");
            bar(html, task.progress, &task.file);
            html.raw("</span><span class=\"quiet\">").text(task.status.as_deref().unwrap_or_default());
            if let Some(until) = task.until {
                html.raw(" again at ");
                time(html, until, &when(until, status.time));
            }
            html.raw("</span></li>");
        }
        html.raw("</ul></div>\n");
    }
    html.raw("</section>\n");
}

fn bar(html: &mut Html, progress: Option<u8>, what: &str) {
    let Some(percent) = progress else { return };
    let percent = percent.min(100).to_string();
    html.raw("<progress max=\"100\"").attribute("value", &percent).attribute("aria-label", what).raw("></progress>");
    html.raw("<span class=\"percent small\">").text(&percent).raw(" %</span>");
}

fn task_state(html: &mut Html, task: &Task) {
    let class = match task.state {
        TaskState::Done => "state good",
        TaskState::Running => "state busy",
        TaskState::Failed => "state bad",
        TaskState::Sleeping => "state warn",
        TaskState::Waiting | TaskState::Skipped | TaskState::Cancelled => "state off",
    };
    html.raw("<span").attribute("class", class).raw(">").raw(task.state.word()).raw("</span>");
}

fn chains(html: &mut Html, status: &Status) {
    html.raw("<section aria-labelledby=\"chains\"><h2 id=\"chains\">Chains</h2>\n");
    if status.chains.is_empty() {
        html.raw("<p class=\"quiet\">The configuration has no chain.</p></section>\n");
        return;
    }
    html.raw(
        "<table class=\"stack\" role=\"table\"><caption>Each bar is a run, the newest on the right; a higher one took longer.</caption>",
    );
    html.raw("<thead role=\"rowgroup\"><tr role=\"row\"><th role=\"columnheader\" scope=\"col\">Chain</th><th role=\"columnheader\" scope=\"col\">State</th>");
    html.raw("<th role=\"columnheader\" scope=\"col\">Last runs</th><th role=\"columnheader\" scope=\"col\">Last ended</th>");
    html.raw("<th role=\"columnheader\" scope=\"col\">Last success</th><th role=\"columnheader\" scope=\"col\">Next</th></tr></thead><tbody role=\"rowgroup\">\n");
    for chain in &status.chains {
        html.raw("<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">").text(&chain.name);
        for line in &chain.schedule {
            html.raw("<span class=\"block small quiet\">").text(line).raw("</span>");
        }
        if let Some(zone) = &chain.timezone {
            html.raw("<span class=\"block small quiet\">in ").text(zone).raw("</span>");
        }
        html.raw("</th><td role=\"cell\" data-label=\"State\"><div>");
        chain_state(html, chain);
        html.raw("</div></td><td role=\"cell\" class=\"wide\" data-label=\"Last runs\">");
        strip(html, chain, status.time);
        html.raw("</td><td role=\"cell\" data-label=\"Last ended\">");
        ago(html, chain.last_run().and_then(|run| run.ended_at), status.time);
        html.raw("</td><td role=\"cell\" data-label=\"Last success\">");
        ago(html, chain.last_success, status.time);
        html.raw("</td><td role=\"cell\" data-label=\"Next\">");
        match chain.next.first() {
            Some(next) => in_time(html, *next, status.time),
            None => {
                html.raw("<span class=\"quiet none\">–</span>");
            }
        }
        html.raw("</td></tr>\n");
    }
    html.raw("</tbody></table></section>\n");
}

fn chain_state(html: &mut Html, chain: &Chain) {
    let last = chain.last_run();
    let ended = last.and_then(Run::words).unwrap_or_default();
    let (class, words) = match last {
        _ if !chain.running.is_empty() && chain.running.iter().all(|run| run.until.is_some()) => ("warn", "waiting"),
        _ if !chain.running.is_empty() => ("busy", "running"),
        _ if !chain.enabled => ("off", "disabled"),
        _ if chain.refused().is_some() => ("bad", Ended::NotStarted.words()),
        Some(run) => (class(run), ended.as_str()),
        None => ("off", "no run yet"),
    };
    html.raw("<span").attribute("class", &format!("state {class}")).raw(">").text(words).raw("</span>");
    let why = last.and_then(|run| run.why.as_deref());
    // That it is not enabled has been said.
    let waits = chain.waits_because.as_deref().filter(|_| chain.enabled);
    if let Some(why) = waits.or(why.filter(|_| chain.running.is_empty())) {
        html.raw("<span class=\"block small quiet\">").text(why).raw("</span>");
    }
    if let Some(given_up) = &chain.given_up {
        html.raw("<span class=\"block small quiet\">").text(&given_up.words()).raw("</span>");
    }
}

fn ago(html: &mut Html, date: Option<Date>, now: Date) {
    match date {
        Some(date) => {
            html.raw("<div>").text(&about(date.seconds_until(now))).raw(" ago<span class=\"block small quiet\">");
            time(html, date, &when(date, now));
            html.raw("</span></div>");
        }
        None => {
            html.raw("<span class=\"quiet none\">–</span>");
        }
    }
}

fn in_time(html: &mut Html, date: Date, now: Date) {
    let seconds = now.seconds_until(date);
    let words = if seconds < 1.0 { "now".to_owned() } else { format!("in {}", about(seconds)) };
    html.raw("<div>").text(&words).raw("<span class=\"block small quiet\">");
    time(html, date, &when(date, now));
    html.raw("</span></div>");
}

/// The last runs as bars. What failed has a cross above its bar and what did not run has an empty one, for whoever
/// does not see the colours; the words are there for whoever sees nothing.
fn strip(html: &mut Html, chain: &Chain, now: Date) {
    if chain.runs.is_empty() {
        html.raw("<span class=\"quiet none\">–</span>");
        return;
    }
    let runs: Vec<_> = chain.runs.iter().take(STRIP).collect();
    let longest = runs.iter().map(|run| run.seconds(now)).fold(0.0, f64::max);
    html.raw("<ol class=\"runs\">");
    for run in runs.into_iter().rev() {
        let seconds = run.seconds(now);
        let part = if longest > 0.0 { seconds.ln_1p() / longest.ln_1p() } else { 0.0 };
        let height = 5.0 + 16.0 * part;
        let how = run.words().unwrap_or_else(|| Ended::Lost.words().to_owned());
        let words = format!("{}: {how}, {}", when(run.started_at, now), length(seconds));
        html.raw("<li><a").attribute("href", &format!("/?run={}", run.id)).attribute("title", &words);
        html.raw("><svg viewBox=\"0 0 12 30\" aria-hidden=\"true\"><rect x=\"2\" width=\"8\" rx=\"1.5\"").attribute("class", class(run));
        html.attribute("y", &format!("{:.1}", 29.0 - height)).attribute("height", &format!("{height:.1}")).raw("/>");
        if class(run) == "bad" {
            let above = format!("translate(0 {:.1})", 21.0 - height);
            html.raw("<path class=\"cross\" d=\"M3.5 1.5l5 5m0-5l-5 5\"").attribute("transform", &above).raw("/>");
        }
        html.raw("</svg><span class=\"hidden\">").text(&words).raw("</span></a></li>");
    }
    html.raw("</ol>");
}

fn due(html: &mut Html, status: &Status) {
    let enabled = status.chains.iter().filter(|chain| chain.enabled);
    let mut slots: Vec<_> = enabled.flat_map(|chain| chain.next.iter().map(move |slot| (*slot, chain.name.as_str()))).collect();
    slots.sort_by_key(|(slot, _)| slot.at);
    if slots.is_empty() {
        return;
    }
    html.raw("<section aria-labelledby=\"due\"><h2 id=\"due\">Due next</h2><table class=\"slots\"><thead class=\"hidden\"><tr>");
    html.raw("<th scope=\"col\">At</th><th scope=\"col\">In</th><th scope=\"col\">Chain</th></tr></thead><tbody>\n");
    for (slot, name) in slots.into_iter().take(DUE) {
        html.raw("<tr><td>");
        time(html, slot, &when(slot, status.time));
        html.raw("</td><td class=\"quiet\">in ")
            .text(&about(status.time.seconds_until(slot).max(0.0)))
            .raw("</td><td>")
            .text(name)
            .raw("</td></tr>\n");
    }
    html.raw("</tbody></table></section>\n");
}

// ---- one run -----------------------------------------------------------------------------------

fn facts(html: &mut Html, run: &Run, now: Date) {
    if let Some(why) = &run.why {
        fact(html, "Why", why);
    }
    html.raw("<dt>Began</dt><dd>");
    time(html, run.started_at, &run.started_at.show("%Y-%m-%d %H:%M:%S %:z"));
    html.raw(" (").text(&run.trigger).raw(")</dd>");
    if let Some(slot) = run.scheduled_at {
        html.raw("<dt>For the slot</dt><dd>");
        time(html, slot, &slot.show("%Y-%m-%d %H:%M:%S %:z"));
        html.raw("</dd>");
    }
    fact(html, if run.ended_at.is_some() { "Took" } else { "Has taken" }, &length(run.seconds(now)));
    fact(html, "Try", &of_tries(run.try_num, run.max_tries));
    if let Some(code) = run.exit_code {
        fact(html, "Exit code", &code.to_string());
    }
    fact(html, "Run", &run.id);
}

fn fact(html: &mut Html, name: &'static str, value: &str) {
    html.raw("<dt>").raw(name).raw("</dt><dd>").text(value).raw("</dd>");
}

fn tasks(html: &mut Html, run: &Run, now: Date) {
    html.raw("<section aria-labelledby=\"tasks\"><h2 id=\"tasks\">Tasks</h2>\n");
    if run.tasks.is_empty() {
        let show = format!("runner show {}", run.id);
        html.raw("<p class=\"quiet\">");
        match run.outcome {
            Some(Ended::NotStarted) => html.raw("It did not begin."),
            // Of runs of others, and of those before we began, the page knows how they stand and no more.
            Some(_) => html.raw("The history has them: <code>").text(&show).raw("</code>"),
            None => html.raw("None is known yet."),
        };
        html.raw("</p></section>\n");
        return;
    }
    html.raw(
        "<table class=\"stack\" role=\"table\"><thead role=\"rowgroup\"><tr role=\"row\"><th role=\"columnheader\" scope=\"col\">Task</th>",
    );
    html.raw("<th role=\"columnheader\" scope=\"col\">State</th><th role=\"columnheader\" scope=\"col\">Last try</th>");
    html.raw("<th role=\"columnheader\" scope=\"col\" class=\"number\">Took</th><th role=\"columnheader\" scope=\"col\">It ended with</th></tr></thead><tbody role=\"rowgroup\">\n");
    for (at, task) in run.tasks.iter().enumerate() {
        let last = task.tries.last();
        html.raw("<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">");
        if task.tries.iter().any(has_output) {
            html.raw("<a").attribute("href", &format!("#task-{at}")).raw(">").text(&task.file).raw("</a>");
        } else {
            html.text(&task.file);
        }
        html.raw("</th><td role=\"cell\" data-label=\"State\">");
        task_state(html, task);
        html.raw("</td><td role=\"cell\" data-label=\"Last try\">");
        match last {
            Some(last) => html.number(last.try_num),
            None => html.raw("–"),
        };
        html.raw("</td><td role=\"cell\" class=\"number\" data-label=\"Took\">")
            .text(&took(last, now))
            .raw("</td><td role=\"cell\" data-label=\"It ended with\"><div>");
        html.text(last.and_then(|last| last.end.as_deref()).unwrap_or("–"));
        if task.state == TaskState::Running {
            bar(html, task.progress, &task.file);
        }
        if let Some(said) = task.said() {
            html.raw(", says ").text(said);
        }
        if let Some(words) = &task.status {
            html.raw("<span class=\"block small quiet\">").text(words).raw("</span>");
        }
        html.raw("</div></td></tr>\n");
    }
    html.raw("</tbody></table></section>\n");
}

#[expect(clippy::cast_precision_loss, reason = "a task does not take 10^13 milliseconds")]
fn took(attempt: Option<&Try>, now: Date) -> String {
    match attempt {
        None => "–".to_owned(),
        Some(attempt) => length(attempt.duration_ms.map_or_else(|| attempt.started_at.seconds_until(now), |millis| millis as f64 / 1000.0)),
    }
}

fn has_output(attempt: &Try) -> bool {
    attempt.output.as_deref().is_some_and(|output| !output.is_empty())
}

fn outputs(html: &mut Html, run: &Run) {
    let written: Vec<_> = run.tasks.iter().enumerate().filter(|(_, task)| task.tries.iter().any(has_output)).collect();
    if written.is_empty() {
        return;
    }
    html.raw("<section aria-labelledby=\"output\"><h2 id=\"output\">Output</h2>\n");
    for (at, task) in written {
        html.raw("<h3").attribute("id", &format!("task-{at}")).raw(">").text(&task.file).raw("</h3>\n");
        for attempt in task.tries.iter().filter(|attempt| has_output(attempt)) {
            let last = task.tries.last().is_some_and(|last| last.try_num == attempt.try_num);
            let open = last && !matches!(task.state, TaskState::Done | TaskState::Skipped);
            html.raw(if open { "<details open>" } else { "<details>" }).raw("<summary>Try ").number(attempt.try_num);
            for words in [attempt.result.as_deref(), attempt.end.as_deref()].into_iter().flatten() {
                html.raw(" · ").text(words);
            }
            let (text, lost) = tail(attempt);
            html.raw("</summary><pre tabindex=\"0\" role=\"region\"");
            html.attribute("aria-label", &format!("Output of {}, try {}", task.file, attempt.try_num)).raw(">");
            if lost > 0 {
                html.raw("<span class=\"quiet\">(").number(lost).raw(" bytes before this are not shown)</span>\n");
            }
            html.text(&text).raw("</pre></details>\n");
        }
    }
    html.raw("</section>\n");
}

/// The end of what a try wrote, and how many bytes stand before it.
fn tail(attempt: &Try) -> (String, u64) {
    let output = attempt.output.as_deref().unwrap_or_default();
    let begin = (output.len().saturating_sub(OUTPUT)..=output.len()).find(|at| output.is_char_boundary(*at)).unwrap_or(0);
    (plain(&output[begin..]), attempt.output_lost.saturating_add(begin as u64))
}

#[cfg(test)]
mod tests;
