//! The status screen on a terminal: what the agent does, at a glance (agent 12.1).
//!
//! `screen` decides what stands where, `paint` which bytes that takes, `text` what of
//! a stranger's text may be shown; all three are without I/O. `gather` asks the agent.
//! [`Console`] is the thread that looks and writes. The terminal's own calls are in
//! [`crate::sys::terminal`].

mod gather;
mod paint;
#[cfg_attr(not(feature = "inspect"), path = "requests/stub.rs")]
mod requests;
mod screen;
mod text;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::agent::Handle;
use crate::config::ConsoleUi;
use crate::logging;
use crate::sys::eventfd::EventFd;
use crate::sys::{self, poll, terminal, threads};
use crate::time::Instant;
use screen::Connections;

/// Between two pictures, at least.
const FRAME_INTERVAL: Duration = Duration::from_millis(250);
/// Between two looks at an agent that does nothing.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long after the last change an agent counts as one that does something.
const ACTIVE_TIME: Duration = Duration::from_secs(3);

/// The screen while it is shown.
pub struct Console {
    shutting_down: Arc<AtomicBool>,
    wakeup: &'static EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Console {
    /// Shows the screen, if the configuration, the log and the terminal allow it. `web`
    /// is where the local API is.
    pub fn start(agent: &Handle, web: Option<SocketAddr>) -> Option<Console> {
        let config = agent.config();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let wanted = config.console_ui != ConsoleUi::Never;
        // A script's child in the background has a terminal for output alone.
        let somebody = io::stdin().is_terminal() && io::stdout().is_terminal();
        if !wanted || dumb || !somebody || !logging::is_off_the_terminal() {
            return None;
        }
        terminal::open(paint::ENTER, paint::LEAVE).ok()?;
        let console = Self::show(agent, web);
        if console.is_none() {
            terminal::give_back();
        }
        console
    }

    fn show(agent: &Handle, web: Option<SocketAddr>) -> Option<Console> {
        terminal::size()?;
        let wakeup = terminal::watch().ok()?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            terminal::leave();
            before(panic);
        }));
        let shutting_down = Arc::new(AtomicBool::new(false));
        let screen = Screen {
            agent: agent.clone(),
            web,
            painter: paint::Painter::new(agent.config().console_transparent),
            shutting_down: Arc::clone(&shutting_down),
            wakeup,
            last: Activity::default(),
        };
        let thread = threads::CONSOLE.spawn(Box::new(move || screen.run())).ok()?;
        logging::leave_the_terminal();
        Some(Console { shutting_down, wakeup, thread: Some(thread) })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.shutting_down.store(true, Ordering::Relaxed);
        self.wakeup.notify();
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, the hook gave the terminal back.
            let _ = thread.join();
        }
        terminal::give_back();
    }
}

struct Screen {
    agent: Handle,
    web: Option<SocketAddr>,
    painter: paint::Painter,
    shutting_down: Arc<AtomicBool>,
    wakeup: &'static EventFd,
    /// What was going on at the last look.
    last: Activity,
}

/// What changes when visitors come, unlike rates and latencies, which change when nobody
/// does: of what is captured, connections in all and open.
type Activity = (u32, u64, u64);

impl Screen {
    fn run(mut self) {
        let mut next = sys::clock();
        let mut changed = next;
        loop {
            let now = sys::clock();
            if self.shutting_down.load(Ordering::Relaxed) {
                return;
            }
            if terminal::take_stop() {
                terminal::leave();
                terminal::stop();
            }
            if terminal::take_resumed() {
                self.painter.forget();
                next = now;
            }
            if now >= next {
                if self.draw(now) {
                    changed = now;
                }
                let active = now.since(changed) < ACTIVE_TIME;
                next = now + if active { FRAME_INTERVAL } else { IDLE_INTERVAL };
            }
            // A resize rings, too: then the next picture is due after a frame.
            let wait = next.since(sys::clock());
            if poll::readable(self.wakeup, Some(wait)).unwrap_or(false) {
                self.wakeup.clear();
                next = next.min(now + FRAME_INTERVAL);
            }
        }
    }

    /// Draws what changed. Whether anything happened.
    fn draw(&mut self, now: Instant) -> bool {
        if !terminal::is_held() {
            if !terminal::take() {
                return false;
            }
            self.painter.forget();
        }
        let Some((width, height)) = terminal::size() else { return false };
        let snapshot = gather::snapshot(&self.agent, self.web, height, now);
        let captured = requests::sequence(&self.agent);
        let Connections { total, open, .. } = snapshot.connections;
        let activity = (captured, total, open);
        let active = std::mem::replace(&mut self.last, activity) != activity;
        let lines = screen::lines(&snapshot, width, height);
        let bytes = self.painter.paint(&lines, width, height);
        if !bytes.is_empty() && !terminal::draw(bytes.as_bytes()) {
            self.painter.forget();
        }
        active
    }
}
