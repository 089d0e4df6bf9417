//! Updates on the status screen: the line about them, and the key that requests one.

use std::os::fd::RawFd;
use std::sync::Once;

use crate::agent::{AgentState, Handle, UpdateState};
use crate::sys::terminal;

/// Ctrl-U as a character.
const CTRL_U: u8 = 0x15;

/// Returns the value of the line; empty without news.
pub fn text(agent: &Handle) -> String {
    match agent.updates().state() {
        UpdateState::Idle => String::new(),
        UpdateState::Available(version) => {
            format!("update available (version {version}, Ctrl-U to update)")
        }
        UpdateState::Installing(version) => format!("installing (version {version})"),
        UpdateState::Installed(version) => {
            format!("installed (version {version}, runs after a restart)")
        }
        UpdateState::Failed(why) => format!("failed ({why})"),
    }
}

/// Checks the feed once, when the agent is online: a person waits for the result.
pub fn check_once(agent: &Handle) {
    static CHECKED: Once = Once::new();
    if CHECKED.is_completed() || !agent.updates().is_checked() {
        return;
    }
    if agent.status().state == AgentState::Online {
        CHECKED.call_once(|| agent.updates().check());
    }
}

/// Typed characters.
pub struct Keys {
    open: bool,
}

impl Keys {
    /// Reads characters only for an agent that has a feed.
    pub fn new(agent: &Handle) -> Self {
        Keys { open: agent.updates().is_configured() && terminal::read_keys() }
    }

    /// Returns the descriptor to wait for; -1 if no character is expected.
    pub fn fd(&self) -> RawFd {
        if self.open && terminal::is_held() { terminal::fd() } else { -1 }
    }

    /// Reads what was typed.
    pub fn read(&mut self, agent: &Handle) {
        let mut typed = [0; 64];
        match terminal::read(&mut typed) {
            Some(n) if typed.iter().take(n).any(|c| *c == CTRL_U) => agent.updates().install(),
            Some(_) => {}
            // The terminal has disconnected.
            None => self.open = false,
        }
    }
}
