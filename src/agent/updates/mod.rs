//! Updates while the agent runs: the daily check, the requests of the status screen and of the
//! edge, and the first session of a new program. Each check and each download has a thread of
//! its own, one at a time. A restart is not begun here. Files and feeds are in
//! [`crate::update`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::commands;
use crate::config;
use crate::event;
use crate::mux::{StreamId, StreamType};
use crate::net::Dialer;
use crate::proto::messages::UpdateRequest;
use crate::session::Session;
use crate::sys::sync::Mutex;
use crate::sys::{self, threads};
use crate::time::{Deadline, Instant};
use crate::update::version::Version;
use crate::update::{Feed, Offer, Release, Trial, Updater, Wanted};

/// Time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest delay of the first check, so that a fleet does not check at once after an outage.
const MAX_FIRST_DELAY_SECONDS: u64 = 60 * 60;

const NO_FEED: &str = "remote update is not supported: no update_url is configured; update the \
                       agent on its host";
const CHECK_IS_OFF: &str = "remote update is switched off by update_check: false";
const BUSY: &str = "an update is running";

/// State of the updates, for the status screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpdateState {
    /// Nothing newer is known.
    #[default]
    Idle,
    /// This version can be installed.
    Available(String),
    /// It is being installed.
    Installing(String),
    /// It is installed and runs after a restart.
    Installed(String),
    /// The last attempt failed, with the reason.
    Failed(String),
}

/// Handle by which other threads read the state and request an update.
#[derive(Clone)]
pub struct UpdateHandle(Arc<UpdateShared>);

struct UpdateShared {
    feed: Option<Feed>,
    /// Whether the feed may be used without a request of the user on this machine.
    check: bool,
    dialer: Arc<Dialer>,
    state: Mutex<UpdateState>,
    busy: AtomicBool,
}

/// Checks the options for updates.
pub(super) fn check(config: &config::Agent) -> Result<(), String> {
    Feed::of(config).map(|_| ())
}

/// Returns why the edge cannot update this agent; empty if it can.
pub(super) fn unsupported(config: &config::Agent) -> &'static str {
    match Feed::of(config) {
        Ok(Some(_)) if config.update.check => "",
        Ok(Some(_)) => CHECK_IS_OFF,
        _ => NO_FEED,
    }
}

impl UpdateHandle {
    pub(super) fn new(config: &config::Agent, dialer: &Arc<Dialer>) -> Result<Self, String> {
        Ok(UpdateHandle(Arc::new(UpdateShared {
            feed: Feed::of(config)?,
            check: config.update.check,
            dialer: Arc::clone(dialer),
            state: Mutex::default(),
            busy: AtomicBool::new(false),
        })))
    }

    /// Returns the state.
    pub fn state(&self) -> UpdateState {
        self.0.state.lock().clone()
    }

    /// Returns whether the feed is checked without a request.
    pub fn is_checked(&self) -> bool {
        self.0.feed.is_some() && self.0.check
    }

    /// Returns whether there is a feed.
    pub fn is_configured(&self) -> bool {
        self.0.feed.is_some()
    }

    /// Checks the feed in the background.
    pub fn check(&self) {
        let _ = self.spawn(|updates| _ = updates.look());
    }

    /// Installs the newest version in the background.
    pub fn install(&self) {
        let _ = self.spawn(|updates| {
            if let Some(release) = updates.look() {
                updates.replace(&release);
            }
        });
    }

    /// Starts a thread, unless one is running or no feed is configured.
    fn spawn(&self, work: impl FnOnce(&UpdateHandle) + Send + 'static) -> Result<(), &'static str> {
        if self.0.feed.is_none() {
            return Err(NO_FEED);
        }
        if self.0.busy.swap(true, Ordering::SeqCst) {
            return Err(BUSY);
        }
        let updates = self.clone();
        let started = threads::UPDATE.spawn(Box::new(move || {
            work(&updates);
            updates.0.busy.store(false, Ordering::SeqCst);
        }));
        if started.is_err() {
            self.0.busy.store(false, Ordering::SeqCst);
        }
        started.map(|_| ()).map_err(|_| threads::NO_THREAD)
    }

    fn set(&self, state: UpdateState) {
        *self.0.state.lock() = state;
    }

    fn fail(&self, why: String) {
        event!(error, obj = "update", "update failed", err = why);
        self.set(UpdateState::Failed(why));
    }

    fn updater(&self) -> Result<Updater<'_>, String> {
        let feed = self.0.feed.as_ref().ok_or(NO_FEED)?;
        Updater::new(feed, &self.0.dialer)
    }

    /// Checks the feed. Returns a newer version.
    fn look(&self) -> Option<Box<Release>> {
        // The user of this machine decides about another major version.
        let wanted = Wanted { version: None, permit_major: true };
        match self.updater().and_then(|updater| updater.check(&wanted)) {
            Ok(Offer::Current(why)) => {
                event!(debug, obj = "update", "no update available", reason = why);
                // An installed version stays on the screen until the restart.
                if !matches!(self.state(), UpdateState::Installed(_)) {
                    self.set(UpdateState::Idle);
                }
                None
            }
            Ok(Offer::Release(release)) => {
                let version = release.version.to_string();
                let installed = UpdateState::Installed(version.clone());
                if self.state() == installed {
                    return None;
                }
                event!(info, obj = "update", "update available", version = version);
                self.set(UpdateState::Available(version));
                Some(release)
            }
            Err(why) => {
                event!(warn, obj = "update", "update check failed", err = why);
                self.set(UpdateState::Failed(why));
                None
            }
        }
    }

    /// Installs a release.
    fn replace(&self, release: &Release) {
        let version = release.version.to_string();
        self.set(UpdateState::Installing(version.clone()));
        let installed = self.updater().and_then(|updater| {
            let prepared = updater.prepare(release)?;
            updater.install(release, prepared)
        });
        self.installed(version, installed);
    }

    fn installed(&self, version: String, result: Result<String, String>) {
        match result {
            Ok(path) => {
                event!(info, obj = "update", "update installed", version = version, path = path);
                self.set(UpdateState::Installed(version));
            }
            Err(why) => self.fail(why),
        }
    }

    /// Carries out Update of the edge: the answer is sent before the download.
    fn remote(&self, request: &UpdateRequest, answer: &dyn Fn(Option<&str>)) {
        let wanted = match request.version.as_str() {
            "" => Ok(None),
            text => Version::parse(text).map(Some),
        };
        let permit_major = request.permit_major_version;
        let prepared = wanted.and_then(|version| {
            let updater = self.updater()?;
            match updater.check(&Wanted { version, permit_major })? {
                Offer::Current(why) => Err(why),
                Offer::Release(release) => {
                    let prepared = updater.prepare(&release)?;
                    Ok((updater, release, prepared))
                }
            }
        });
        match prepared {
            Err(why) => answer(Some(&why)),
            Ok((updater, release, prepared)) => {
                answer(None);
                let version = release.version.to_string();
                self.set(UpdateState::Installing(version.clone()));
                self.installed(version, updater.install(&release, prepared));
            }
        }
    }
}

/// Schedule of the checks, and the new program until its first session.
pub(super) struct Updates {
    handle: UpdateHandle,
    next_check: Deadline,
    trial: Option<Trial>,
}

impl Updates {
    pub(super) fn new(handle: UpdateHandle) -> Self {
        Updates { handle, next_check: Deadline::Never, trial: None }
    }

    /// Puts a new program on trial.
    pub(super) fn on_trial(&mut self, trial: Trial) {
        self.trial = Some(trial);
    }

    /// Records that the edge was reached over TLS.
    pub(super) fn reached(&mut self, now: Instant) {
        if let Some(trial) = &mut self.trial {
            trial.reached(now);
        }
    }

    /// Records that a session is set up.
    pub(super) fn online(&mut self, now: Instant) {
        match self.trial.take().map(Trial::confirm) {
            None => {}
            Some(Ok(version)) => {
                event!(info, obj = "update", "new program confirmed", version = version);
            }
            Some(Err(why)) => {
                event!(warn, obj = "update", "cannot confirm new program", err = why);
            }
        }
        if self.handle.is_checked() && self.next_check == Deadline::Never {
            let delay = sys::random_seed() % MAX_FIRST_DELAY_SECONDS;
            self.next_check = Deadline::At(now + Duration::from_secs(delay));
        }
    }

    /// Returns the time of the next check or the end of the trial.
    pub(super) fn deadline(&self) -> Deadline {
        let trial = self.trial.as_ref().map_or(Deadline::Never, Trial::deadline);
        trial.min(self.next_check)
    }

    /// Does what is due. Returns whether the old program was put back and has to be started.
    pub(super) fn turn(&mut self, now: Instant) -> bool {
        if self.next_check.due(now) {
            self.next_check = Deadline::At(now + CHECK_INTERVAL);
            self.handle.check();
        }
        let Some(trial) = self.trial.take_if(|trial| trial.has_failed(now)) else { return false };
        match trial.roll_back() {
            Ok(old) => {
                old.log("no session");
                true
            }
            Err(why) => {
                event!(error, obj = "update", "cannot restore old program", err = why);
                false
            }
        }
    }

    /// Carries out Update of the edge.
    pub(super) fn remote(&self, request: UpdateRequest, session: Session, stream: StreamId) {
        let respond = move |session: &Session, why: Option<&str>| {
            commands::answer(StreamType::UPDATE, session, stream, why);
        };
        if self.handle.0.feed.is_some() && !self.handle.0.check {
            return respond(&session, Some(CHECK_IS_OFF));
        }
        let later = session.clone();
        let started = self.handle.spawn(move |updates| {
            updates.remote(&request, &|why| respond(&later, why));
        });
        if let Err(why) = started {
            respond(&session, Some(why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Agent;
    use crate::config::update_key::UpdateKey;

    fn with_feed() -> Agent {
        let mut config = Agent::default();
        // Port 9 is `discard`: the check fails at once.
        config.update.url = "http://127.0.0.1:9/feed".to_owned();
        config.update.keys.push(UpdateKey { number: [1; 8], key: [2; 32] });
        config
    }

    fn updates(config: &Agent) -> Updates {
        let dialer = Arc::new(Dialer::new(config).unwrap());
        Updates::new(UpdateHandle::new(config, &dialer).unwrap())
    }

    #[test]
    fn a_check_follows_the_first_session_within_an_hour_and_then_each_day() {
        let mut updates = updates(&with_feed());
        let start = Instant::ZERO + Duration::from_secs(100);
        assert_eq!(updates.deadline(), Deadline::Never, "not before a session");
        updates.online(start);
        let Deadline::At(first) = updates.deadline() else { panic!("no check is scheduled") };
        assert!(first.since(start) < Duration::from_secs(3600));
        updates.online(first);
        assert_eq!(updates.deadline(), Deadline::At(first), "further sessions change nothing");
        assert!(!updates.turn(first));
        assert_eq!(updates.deadline(), Deadline::At(first + CHECK_INTERVAL));
    }

    #[test]
    fn without_a_feed_or_with_update_check_off_nothing_is_sent() {
        let mut off = with_feed();
        off.update.check = false;
        for (config, reason) in [(Agent::default(), NO_FEED), (off, CHECK_IS_OFF)] {
            let mut updates = updates(&config);
            updates.online(Instant::ZERO);
            assert_eq!(updates.deadline(), Deadline::Never);
            assert_eq!(unsupported(&config), reason);
        }
        assert_eq!(unsupported(&with_feed()), "");
    }
}
