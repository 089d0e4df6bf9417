//! The status screen on a terminal (agent 12.1).
//!
//! `screen` decides the layout, `paint` the bytes for it, and `text` which characters of
//! external text may be shown; all three are without I/O. `gather` reads the agent. [`Console`]
//! is the thread that updates and writes. The terminal's own calls are in
//! [`crate::sys::terminal`].

mod gather;
mod paint;
#[cfg_attr(not(feature = "inspect"), path = "requests/stub.rs")]
mod requests;
mod screen;
mod text;
#[cfg_attr(not(feature = "update"), path = "update/stub.rs")]
mod update;

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
use crate::sys::poll::PollFd;
use crate::sys::{self, poll, terminal, threads};
use crate::time::Instant;
use screen::Connections;

/// Shortest time between two updates.
const FRAME_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two updates of an idle agent.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// Time after the last change during which an agent counts as active.
const ACTIVE_TIME: Duration = Duration::from_secs(3);

/// The screen while it is shown.
pub struct Console {
    shutting_down: Arc<AtomicBool>,
    wakeup: &'static EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Console {
    /// Shows the screen, if the configuration, the log and the terminal allow it. `web` is the
    /// address of the local API.
    pub fn start(agent: &Handle, web: Option<SocketAddr>) -> Option<Console> {
        let config = agent.config();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let wanted = config.console_ui != ConsoleUi::Never;
        // A background child of a script has a terminal for output only.
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
            // It does not panic. After a panic the hook would have released the terminal.
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
    /// Activity at the last update.
    last: Activity,
}

/// Values that change with visitors, unlike rates and latencies: the sequence of captured
/// requests, all connections, open connections.
type Activity = (u32, u64, u64);

impl Screen {
    fn run(mut self) {
        let mut next = sys::clock();
        let mut changed = next;
        let mut keys = update::Keys::new(&self.agent);
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
            // A resize notifies too. Then the next update is due after a frame.
            let wait = next.since(sys::clock());
            let mut fds = [PollFd::readable(self.wakeup), PollFd::readable(&keys.fd())];
            let [woken, typed] = match poll::wait(&mut fds, Some(wait)) {
                Ok(()) => fds.map(|fd| fd.is_ready()),
                Err(_) => [false; 2],
            };
            if woken {
                self.wakeup.clear();
            }
            if typed {
                keys.read(&self.agent);
            }
            if woken || typed {
                next = next.min(now + FRAME_INTERVAL);
            }
        }
    }

    /// Draws the changes. Returns whether there was activity.
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
        update::check_once(&self.agent);
        let lines = screen::lines(&snapshot, width, height);
        let bytes = self.painter.paint(&lines, width, height);
        if !bytes.is_empty() && !terminal::draw(bytes.as_bytes()) {
            self.painter.forget();
        }
        active
    }
}
