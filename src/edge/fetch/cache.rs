//! Documents by URL, such as key sets. A document is fetched again from time to time, by one
//! thread; the others use the former one meanwhile. If a server fails, its former document
//! stays in use for some hours.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::message::{Fetch, FetchError, FetchErrorKind, FetchRequest};
use crate::sys::sync::{Mutex, RwLock};
use crate::time::Instant;

/// Age at which a document is fetched again.
const REFRESH_AGE: Duration = Duration::from_secs(15 * 60);

/// Greatest age of a document that is used while its server fails.
const MAX_AGE: Duration = Duration::from_secs(6 * 3600);

/// Time between two attempts for one URL, after a success and after a failure.
const MIN_PAUSE: Duration = Duration::from_secs(30);
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// Time for one attempt.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a document, and most documents.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
const MAX_DOCUMENTS: usize = 64;

/// Documents of one kind.
#[derive(Debug)]
pub struct FetchCache<T> {
    fetch: Arc<dyn Fetch>,
    parse: fn(&[u8]) -> Result<T, String>,
    entries: Mutex<HashMap<String, Arc<CacheEntry<T>>>>,
}

#[derive(Debug)]
struct CacheEntry<T> {
    current: RwLock<Option<Cached<T>>>,
    /// Held during an attempt. With the time and the error of the last one.
    attempt: Mutex<Option<(Instant, Option<FetchError>)>>,
    used: Mutex<Instant>,
}

/// A document with the time of its fetch.
#[derive(Debug)]
struct Cached<T> {
    value: Arc<T>,
    since: Instant,
}

impl<T> FetchCache<T> {
    /// Returns an empty cache of documents that `parse` reads.
    pub fn new(fetch: Arc<dyn Fetch>, parse: fn(&[u8]) -> Result<T, String>) -> Self {
        FetchCache { fetch, parse, entries: Mutex::default() }
    }

    /// Returns the document at a URL. May block for a fetch.
    pub fn get(&self, url: &str, now: Instant) -> Result<Arc<T>, FetchError> {
        let entry = self.entry(url, now);
        match entry.current(now) {
            Some((value, age)) if age < REFRESH_AGE => Ok(value),
            Some((value, _)) => {
                if let Some(mut attempt) = entry.attempt.try_lock() {
                    // The former document is used if this fails.
                    let _ = self.attempt(url, &entry, &mut attempt, now);
                }
                Ok(entry.current(now).map_or(value, |(value, _)| value))
            }
            None => {
                let mut attempt = entry.attempt.lock();
                if let Some((value, _)) = entry.current(now) {
                    return Ok(value);
                }
                self.attempt(url, &entry, &mut attempt, now)?;
                let missing = || FetchError::new(FetchErrorKind::Failed, "no document");
                entry.current(now).map(|(value, _)| value).ok_or_else(missing)
            }
        }
    }

    /// Returns what `read` returns for the document at a URL. If that is outdated, such as for a
    /// key set that lacks a key, `read` runs again with a newer document. May block for a fetch.
    pub fn read<R>(
        &self,
        url: &str,
        now: Instant,
        read: impl Fn(&T) -> R,
        is_outdated: impl Fn(&R) -> bool,
    ) -> Result<R, FetchError> {
        let document = self.get(url, now)?;
        let result = read(&document);
        if is_outdated(&result)
            && let Some(newer) = self.newer(url, &document, now)
        {
            return Ok(read(&newer));
        }
        Ok(result)
    }

    /// Returns a document that is newer than `old`. `None`: the URL was fetched a moment ago, or
    /// it fails.
    fn newer(&self, url: &str, old: &Arc<T>, now: Instant) -> Option<Arc<T>> {
        let entry = self.entry(url, now);
        let mut attempt = entry.attempt.lock();
        let is_old = |value: &Arc<T>| Arc::ptr_eq(value, old);
        if entry.current(now).is_some_and(|(value, _)| is_old(&value)) {
            self.attempt(url, &entry, &mut attempt, now).ok()?;
        }
        entry.current(now).map(|(value, _)| value).filter(|value| !is_old(value))
    }

    /// Fetches a document, unless that was tried a moment ago.
    fn attempt(
        &self,
        url: &str,
        entry: &CacheEntry<T>,
        last: &mut Option<(Instant, Option<FetchError>)>,
        now: Instant,
    ) -> Result<(), FetchError> {
        if let Some((at, error)) = last {
            let pause = if error.is_some() { FAILURE_PAUSE } else { MIN_PAUSE };
            if now.since(*at) < pause {
                return error.clone().map_or(Ok(()), Err);
            }
        }
        let fetched = self.fetch_document(url);
        *last = Some((now, fetched.as_ref().err().cloned()));
        let value = Arc::new(fetched?);
        *entry.current.write() = Some(Cached { value, since: now });
        Ok(())
    }

    fn fetch_document(&self, url: &str) -> Result<T, FetchError> {
        let failed = |text: String| FetchError::new(FetchErrorKind::Failed, text);
        let request = FetchRequest::document(url, MAX_DOCUMENT_BYTES, TIMEOUT);
        let response = self.fetch.fetch(&request)?;
        if response.status != 200 {
            return Err(failed(format!("{url} returned {}, not 200", response.status)));
        }
        (self.parse)(&response.body).map_err(|e| failed(format!("{url}: {e}")))
    }

    /// Returns the entry of a URL. A new one replaces the one that was not used for the
    /// longest time.
    fn entry(&self, url: &str, now: Instant) -> Arc<CacheEntry<T>> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(url) {
            *entry.used.lock() = now;
            return Arc::clone(entry);
        }
        if entries.len() >= MAX_DOCUMENTS {
            let oldest = entries.iter().min_by_key(|(_, entry)| *entry.used.lock());
            if let Some(oldest) = oldest.map(|(url, _)| url.clone()) {
                entries.remove(&oldest);
            }
        }
        let entry = Arc::new(CacheEntry {
            current: RwLock::new(None),
            attempt: Mutex::new(None),
            used: Mutex::new(now),
        });
        entries.insert(url.to_owned(), Arc::clone(&entry));
        entry
    }
}

impl<T> CacheEntry<T> {
    /// Returns the document and its age, unless it is too old.
    fn current(&self, now: Instant) -> Option<(Arc<T>, Duration)> {
        let current = self.current.read();
        let cached = current.as_ref()?;
        let age = now.since(cached.since);
        (age < MAX_AGE).then(|| (Arc::clone(&cached.value), age))
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::FetchResponse;
    use super::*;

    /// Server with a body; without one it fails.
    #[derive(Debug, Default)]
    struct FakeServer {
        body: Mutex<Option<String>>,
        requests: Mutex<Vec<String>>,
    }

    impl Fetch for FakeServer {
        fn fetch(&self, request: &FetchRequest<'_>) -> Result<FetchResponse, FetchError> {
            self.requests.lock().push(request.url.to_owned());
            let body = self.body.lock().clone();
            let body = body.ok_or_else(|| FetchError::new(FetchErrorKind::Timeout, "slow"))?;
            Ok(FetchResponse {
                status: 200,
                headers: Vec::new(),
                body: body.into_bytes(),
                address: None,
            })
        }
    }

    fn text(bytes: &[u8]) -> Result<String, String> {
        match bytes {
            b"bad" => Err("not a document".into()),
            _ => Ok(String::from_utf8_lossy(bytes).into_owned()),
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(1_000_000 + seconds)
    }

    fn cache() -> (Arc<FakeServer>, FetchCache<String>) {
        let server = Arc::new(FakeServer::default());
        let cache = FetchCache::new(Arc::clone(&server) as Arc<dyn Fetch>, text);
        (server, cache)
    }

    #[test]
    fn a_document_is_fetched_again_after_a_quarter_of_an_hour() {
        let (server, cache) = cache();
        *server.body.lock() = Some("one".into());
        for seconds in [0, 1, 899] {
            assert_eq!(*cache.get("u", at(seconds)).unwrap(), "one");
        }
        assert_eq!(server.requests.lock().len(), 1);
        *server.body.lock() = Some("two".into());
        assert_eq!(*cache.get("u", at(900)).unwrap(), "two");
        // The server fails: the former document stays for hours, and attempts are rare.
        *server.body.lock() = None;
        for seconds in [1800, 1801, 1804, 900 + 6 * 3600 - 1] {
            assert_eq!(*cache.get("u", at(seconds)).unwrap(), "two");
        }
        assert_eq!(server.requests.lock().len(), 4);
        let error = cache.get("u", at(901 + 6 * 3600)).unwrap_err();
        assert_eq!(error.kind, FetchErrorKind::Timeout);
    }

    #[test]
    fn a_server_that_fails_is_not_flooded() {
        let (server, cache) = cache();
        for seconds in [0, 1, 4] {
            assert_eq!(cache.get("u", at(seconds)).unwrap_err().to_string(), "slow");
        }
        assert_eq!(server.requests.lock().len(), 1);
        *server.body.lock() = Some("bad".into());
        assert!(cache.get("u", at(5)).unwrap_err().to_string().contains("not a document"));
        *server.body.lock() = Some("good".into());
        assert!(cache.get("u", at(9)).is_err());
        assert_eq!(*cache.get("u", at(10)).unwrap(), "good");
    }

    #[test]
    fn a_newer_document_is_fetched_at_most_twice_a_minute() {
        let (server, cache) = cache();
        *server.body.lock() = Some("one".into());
        let read = |seconds| cache.read("u", at(seconds), String::clone, |text| text == "one");
        assert_eq!(read(0).unwrap(), "one");
        assert_eq!(read(29).unwrap(), "one");
        *server.body.lock() = Some("two".into());
        assert_eq!(read(31).unwrap(), "two");
        assert_eq!(read(32).unwrap(), "two", "without a request");
        assert_eq!(server.requests.lock().len(), 2);
    }

    #[test]
    fn the_number_of_documents_is_bounded() {
        let (server, cache) = cache();
        *server.body.lock() = Some("x".into());
        for n in 0..200 {
            assert!(cache.get("first", at(n)).is_ok());
            assert!(cache.get(&format!("u{n}"), at(n)).is_ok());
        }
        assert_eq!(cache.entries.lock().len(), MAX_DOCUMENTS);
        assert_eq!(server.requests.lock().iter().filter(|url| *url == "first").count(), 1);
    }
}
