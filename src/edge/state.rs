//! State directory: the key of bind tokens, the CA, the names that were online, and the files
//! that `dev` writes for its agents. A directory or file that other users can change is an
//! error. Secret files are readable for the owner only. Files are replaced as a whole. The
//! formats of certificates and tokens are elsewhere.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::certificates::Ca;
use super::token::{self, KEY_BYTES, TokenKey};
use crate::event;
use crate::proto::secret::Secret;
use crate::sys::private_file;

/// File with the key of the REST API for programs on this machine.
pub const API_KEY_FILE: &str = "api_key";

/// File with the URL of the REST API, from the last start of the edge.
pub const API_URL_FILE: &str = "api_url";

/// State directory of an edge.
pub struct EdgeStateDir(PathBuf);

impl EdgeStateDir {
    /// Opens the directory, or creates it.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| with_path("create the directory", path, &e))?;
        let path = fs::canonicalize(path).map_err(|e| with_path("open", path, &e))?;
        fs::metadata(&path)
            .and_then(|found| private_file::check(&found))
            .map_err(|e| with_path("use the state directory", &path, &e))?;
        Ok(EdgeStateDir(path))
    }

    /// Returns the text of the file with names, if there is one.
    pub fn read_names(&self) -> io::Result<Option<String>> {
        self.read("names.json", Secrecy::Secret)
    }

    /// Replaces the file with names.
    pub fn write_names(&self, text: &[u8]) -> io::Result<()> {
        write(&self.0.join("names.json"), text, Secrecy::Secret)
    }

    /// Returns the key of bind tokens and cookies.
    pub fn key(&self) -> io::Result<TokenKey> {
        let text = self.read_or_create("state.key", Secrecy::Secret, || {
            Ok(format!("{}\n", token::hex(&token::random::<KEY_BYTES>()?)))
        })?;
        let bytes = token::unhex(text.trim()).and_then(|b| <[u8; KEY_BYTES]>::try_from(b).ok());
        let bytes = bytes.ok_or_else(|| self.damaged("state.key"))?;
        Ok(TokenKey::new(&bytes))
    }

    /// Returns the CA, and the file with its certificate.
    pub fn ca(&self) -> io::Result<(Ca, PathBuf)> {
        let key = self.read_or_create("ca.key", Secrecy::Secret, Ca::new_key)?;
        let ca = Ca::new(&key).map_err(|_| self.damaged("ca.key"))?;
        self.read_or_create("ca.pem", Secrecy::Public, || ca.certificate())?;
        Ok((ca, self.0.join("ca.pem")))
    }

    /// Returns the authtoken of `dev`, and its file.
    pub fn authtoken(&self) -> io::Result<(Secret, PathBuf)> {
        let text = self.read_or_create("authtoken", Secrecy::Secret, || {
            Ok(format!("{}\n", token::authtoken()?.expose()))
        })?;
        let token = text.trim();
        if token.is_empty() {
            return Err(self.damaged("authtoken"));
        }
        Ok((Secret::new(token), self.0.join("authtoken")))
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the key of the REST API for programs on this machine, and its file.
    pub fn api_key(&self) -> io::Result<(Secret, PathBuf)> {
        let text = self.read_or_create(API_KEY_FILE, Secrecy::Secret, || {
            Ok(format!("{}\n", token::authtoken()?.expose()))
        })?;
        let key = text.trim();
        if key.is_empty() {
            return Err(self.damaged(API_KEY_FILE));
        }
        Ok((Secret::new(key), self.0.join(API_KEY_FILE)))
    }

    /// Writes the URL of the REST API, for programs on this machine.
    pub fn write_api_url(&self, url: &str) -> io::Result<()> {
        self.replace(API_URL_FILE, &format!("{url}\n"), Secrecy::Public)
    }

    /// Writes the agent's configuration for this edge. Returns its file.
    pub fn write_agent_config(
        &self,
        token: &Secret,
        addr: SocketAddr,
        ca: &Path,
    ) -> io::Result<PathBuf> {
        let name = "agent.yml";
        // A quoted JSON text is a quoted YAML text too.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let text = format!(
            "# Written by culvert-edge dev at each start.\nversion: 3\nagent:\n  authtoken: {}\n  \
             connect_url: {}\n  connect_cas: {}\n",
            quoted(token.expose()),
            quoted(&addr.to_string()),
            quoted(&ca.display().to_string()),
        );
        self.replace(name, &text, Secrecy::Secret)?;
        Ok(self.0.join(name))
    }

    /// Writes a file whose text has changed. One that is right stays: an edge starts on a full
    /// disk, too.
    fn replace(&self, name: &str, text: &str, secrecy: Secrecy) -> io::Result<()> {
        if self.read(name, secrecy).is_ok_and(|found| found.as_deref() == Some(text)) {
            return Ok(());
        }
        write(&self.0.join(name), text.as_bytes(), secrecy)
    }

    /// Returns the text of a file. A missing file is written first.
    fn read_or_create(
        &self,
        name: &str,
        secrecy: Secrecy,
        make: impl FnOnce() -> io::Result<String>,
    ) -> io::Result<String> {
        if let Some(text) = self.read(name, secrecy)? {
            return Ok(text);
        }
        let text = make()?;
        write(&self.0.join(name), text.as_bytes(), secrecy)?;
        Ok(text)
    }

    /// Returns the text of a file, if it exists. A file that other users can change is an
    /// error, because they may have written it.
    fn read(&self, name: &str, secrecy: Secrecy) -> io::Result<Option<String>> {
        let path = self.0.join(name);
        let read = private_file::open(&path).and_then(|mut file| {
            tighten(&path, &file, secrecy)?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(text)
        });
        match read {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(with_path("read", &path, &e)),
        }
    }

    fn damaged(&self, name: &str) -> io::Error {
        let path = self.0.join(name);
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} is damaged; restore it, or remove it to get a new one (agents must then get \
                 the new files too)",
                path.display()
            ),
        )
    }
}

/// Readers of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// The owner only.
    Secret,
    /// Every user of the machine.
    Public,
}

/// Removes the permissions of other users for a secret file.
fn tighten(path: &Path, file: &File, secrecy: Secrecy) -> io::Result<()> {
    let permissions = file.metadata()?.permissions();
    if secrecy == Secrecy::Secret && permissions.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
        event!(warn, obj = "edge", "file permissions tightened", path = path.display());
    }
    Ok(())
}

/// Writes a file as a whole: a reader sees the old or the new one.
pub fn write(path: &Path, bytes: &[u8], secrecy: Secrecy) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mode = if secrecy == Secrecy::Secret { 0o600 } else { 0o644 };
    // A killed process with the same id may have left a file.
    let _ = fs::remove_file(&temporary);
    let written = private_file::create(&temporary, mode)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        with_path("write", path, &e)
    })
}

fn with_path(what: &str, path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("cannot {what} {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("culvert-edge-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn everything_is_the_same_after_a_restart() {
        let scratch = Scratch::new("restart");
        let run = || {
            let dir = EdgeStateDir::open(&scratch.0).unwrap();
            let bind_token = dir.key().unwrap().bind_token("a", "b").expose().to_owned();
            let (_, ca) = dir.ca().unwrap();
            let token = dir.authtoken().unwrap().0.expose().to_owned();
            (bind_token, fs::read(ca).unwrap(), token)
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn a_file_that_is_right_is_not_written_again() {
        let scratch = Scratch::new("right");
        let dir = EdgeStateDir::open(&scratch.0).unwrap();
        let inode = |url: &str| {
            dir.write_api_url(url).unwrap();
            let file = scratch.0.join(API_URL_FILE);
            assert_eq!(fs::read_to_string(&file).unwrap(), format!("{url}\n"));
            std::os::unix::fs::MetadataExt::ino(&fs::metadata(file).unwrap())
        };
        let first = inode("http://127.0.0.1:1");
        assert_eq!(inode("http://127.0.0.1:1"), first);
        assert_ne!(inode("http://127.0.0.1:2"), first, "written to a new file");
    }

    #[test]
    fn secrets_are_for_the_owner_only() {
        let scratch = Scratch::new("modes");
        let dir = EdgeStateDir::open(&scratch.0).unwrap();
        dir.key().unwrap();
        let (_, ca) = dir.ca().unwrap();
        let (token, _) = dir.authtoken().unwrap();
        let agent = dir.write_agent_config(&token, "127.0.0.1:1".parse().unwrap(), &ca).unwrap();
        for entry in fs::read_dir(&scratch.0).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            let public = entry.file_name() == "ca.pem";
            assert_eq!(mode, if public { 0o644 } else { 0o600 }, "{:?}", entry.file_name());
        }
        let text = fs::read_to_string(agent).unwrap();
        let yaml: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(yaml["agent"]["connect_url"], "127.0.0.1:1");
        assert_eq!(yaml["agent"]["authtoken"], token.expose());
        assert_eq!(yaml["agent"]["connect_cas"], ca.display().to_string());
    }

    #[test]
    fn what_other_users_may_have_planted_is_refused() {
        let scratch = Scratch::new("planted");
        let chmod = |path: &Path, mode: u32| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        let dir = EdgeStateDir::open(&scratch.0).unwrap();
        let (token, path) = dir.authtoken().unwrap();
        let refused = || dir.authtoken().err().unwrap().to_string();
        chmod(&path, 0o660);
        assert!(refused().contains("mode 660"), "{}", refused());
        // A permission to read is removed.
        chmod(&path, 0o644);
        assert_eq!(dir.authtoken().unwrap().0.expose(), token.expose());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let elsewhere = scratch.0.join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(refused().contains("symbolic link"), "{}", refused());
        for mode in [0o777, 0o770, 0o1777] {
            chmod(&scratch.0, mode);
            let e = EdgeStateDir::open(&scratch.0).err().unwrap().to_string();
            assert!(e.contains(&format!("mode {mode:o}")) && e.contains("chmod go-w"), "{e}");
        }
        chmod(&scratch.0, 0o755);
        assert!(EdgeStateDir::open(&scratch.0).is_ok());
    }

    #[test]
    fn damaged_files_are_named() {
        let scratch = Scratch::new("damage");
        let dir = EdgeStateDir::open(&scratch.0).unwrap();
        fs::write(scratch.0.join("state.key"), "short").unwrap();
        fs::write(scratch.0.join("ca.key"), "no key").unwrap();
        let e = dir.key().err().unwrap().to_string();
        assert!(e.contains("state.key") && e.contains("damaged"), "{e}");
        assert!(dir.ca().err().unwrap().to_string().contains("ca.key"));
    }
}
