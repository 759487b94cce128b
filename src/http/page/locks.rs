//! The locks on the page: who holds them. Decides only.

use super::{Html, time, when};
use crate::status::{Date, Lock, Status};

/// The list of the locks.
pub fn list(html: &mut Html, status: &Status) {
    if status.locks.is_empty() {
        return;
    }
    html.raw("<section aria-labelledby=\"locks\"><h2 id=\"locks\">Locks</h2><dl>");
    for lock in &status.locks {
        html.raw("<dt>").text(&lock.name).raw("<span class=\"block small quiet\">").text(&lock.chains.join(", ")).raw("</span></dt><dd>");
        holder(html, lock, status.time);
        html.raw("</dd>");
    }
    html.raw("</dl></section>\n");
}

fn holder(html: &mut Html, lock: &Lock, now: Date) {
    html.raw(if lock.held_here { "<strong>held on this machine</strong>" } else { "" });
    match &lock.holder {
        Some(holder) => {
            html.raw(if lock.held_here { ", by " } else { "held by " }).text(&holder.host).raw(", pid ").text(&holder.pid.to_string());
            html.raw(", since ");
            time(html, holder.since, &when(holder.since, now));
            if let Some(run) = &holder.run_id {
                html.raw(", run <code>").text(run).raw("</code>");
            }
            if let Some(token) = lock.token {
                html.raw(", token ").text(&token.to_string());
            }
        }
        None if lock.unknown.is_some() => {
            html.raw("<strong>unknown</strong>: ").text(lock.unknown.as_deref().unwrap_or_default());
        }
        None => {
            html.raw(if lock.held_here { "" } else { "<span class=\"quiet\">free</span>" });
        }
    }
}
