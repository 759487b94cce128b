//! The queues on the page: how many jobs of each state, why they are not taken, what runs. Decides only.

use super::{Html, about, bar, of_tries};
use crate::status::{Date, Job, Queue, Status};

/// The table of the queues, and the jobs that run.
pub fn table(html: &mut Html, status: &Status) {
    if status.queues.is_empty() {
        return;
    }
    html.raw("<section aria-labelledby=\"queues\"><h2 id=\"queues\">Queues</h2><table class=\"stack\" role=\"table\">");
    html.raw("<thead role=\"rowgroup\"><tr role=\"row\"><th role=\"columnheader\" scope=\"col\">Queue</th>");
    html.raw("<th role=\"columnheader\" scope=\"col\" class=\"number\">Ready</th><th role=\"columnheader\" scope=\"col\" class=\"number\">Oldest waits</th>");
    html.raw("<th role=\"columnheader\" scope=\"col\" class=\"number\">Running</th><th role=\"columnheader\" scope=\"col\" class=\"number\">Due later</th>");
    html.raw("<th role=\"columnheader\" scope=\"col\" class=\"number\">Failed</th></tr></thead><tbody role=\"rowgroup\">\n");
    for queue in &status.queues {
        queue_row(html, queue, status.time);
    }
    html.raw("</tbody></table>\n");
    for (queue, why) in status.queues.iter().filter_map(|queue| Some((queue, queue.trouble.as_ref().or(queue.uncounted.as_ref())?))) {
        html.raw("<p class=\"bad\"><strong>").text(&queue.name).raw("</strong>: ");
        html.text(if queue.trouble.is_some() { "jobs are not taken: " } else { "jobs could not be counted: " }).text(why).raw("</p>\n");
    }
    let left = |queue: &&Queue| queue.places.is_none() && queue.running == 0 && queue.ready > 0;
    for queue in status.queues.iter().filter(left) {
        html.raw("<p class=\"warn\"><strong>")
            .text(&queue.name)
            .raw("</strong>: this daemon does not work it, and nobody works on a job of it now</p>\n");
    }
    for (queue, job) in status.queues.iter().flat_map(|queue| queue.jobs.iter().map(move |job| (queue, job))) {
        job_line(html, queue, job, status.time);
    }
    html.raw("</section>\n");
}

fn queue_row(html: &mut Html, queue: &Queue, now: Date) {
    html.raw("<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">").text(&queue.name);
    html.raw("</th><td role=\"cell\" class=\"number\" data-label=\"Ready\">");
    number(html, queue, queue.ready);
    html.raw("</td><td role=\"cell\" class=\"number\" data-label=\"Oldest waits\">");
    match queue.oldest_ready {
        Some(since) => html.text(&about(since.seconds_until(now).max(0.0))),
        None => html.raw("–"),
    };
    html.raw("</td><td role=\"cell\" class=\"number\" data-label=\"Running\">");
    number(html, queue, queue.running);
    html.raw("</td><td role=\"cell\" class=\"number\" data-label=\"Due later\">");
    number(html, queue, queue.scheduled);
    html.raw("</td><td role=\"cell\" class=\"number\" data-label=\"Failed\">");
    html.raw(if queue.failed > 0 { "<strong class=\"bad\">" } else { "<span>" });
    number(html, queue, queue.failed);
    html.raw(if queue.failed > 0 { "</strong></td></tr>\n" } else { "</span></td></tr>\n" });
}

/// What nobody could count is not zero.
fn number(html: &mut Html, queue: &Queue, count: u64) {
    match queue.uncounted {
        Some(_) => html.raw("–"),
        None => html.number(count),
    };
}

fn job_line(html: &mut Html, queue: &Queue, job: &Job, now: Date) {
    html.raw("<ul class=\"jobs\"><li><span>").text(&job.name).raw(" <span class=\"quiet small\">").text(&queue.name);
    html.raw(" ").text(&job.id).raw("</span></span><span class=\"small quiet\">attempt ").text(&of_tries(job.attempt, job.max_attempts));
    html.raw("</span><span>");
    bar(html, job.progress, &job.name);
    html.raw("</span><span class=\"quiet\">").text(job.status.as_deref().unwrap_or_default());
    html.raw(" for ").text(&about(job.started_at.seconds_until(now))).raw("</span></li></ul>\n");
}
