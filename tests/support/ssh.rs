//! `ssh -R` and `dbclient -R`, with which the bench and the network laboratory compare culvert:
//! keys, an OpenSSH server, and the clients' options.
//!
//! Standard library only: both are packages of their own and include this file. `programs` is
//! beside it in both.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::programs::{require, run_quietly};

/// Client for the keys. OpenSSH and Dropbear have different file formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    OpenSsh,
    Dropbear,
}

impl Client {
    /// Returns the programs that it needs, without the one that restarts it.
    pub fn needs(self) -> &'static [&'static str] {
        match self {
            Client::OpenSsh => &["ssh", "sshd", "ssh-keygen"],
            Client::Dropbear => &["dbclient", "dropbearkey", "sshd", "ssh-keygen"],
        }
    }
}

/// Creates in `dir`: `host_key`, the client's `user_key`, `authorized_keys`, and `sshd_config`,
/// which ends with the lines `more`.
pub fn prepare(client: Client, dir: &Path, listen: &str, port: u16, more: &str) -> io::Result<()> {
    openssh_key(&dir.join("host_key"))?;
    let user_key = dir.join("user_key");
    let public = match client {
        Client::OpenSsh => {
            openssh_key(&user_key)?;
            fs::read_to_string(dir.join("user_key.pub"))?
        }
        Client::Dropbear => {
            let keygen = require("dropbearkey")?;
            run_quietly(Command::new(&keygen).args(["-t", "ed25519", "-f"]).arg(&user_key))?;
            let shown = Command::new(&keygen).arg("-y").arg("-f").arg(&user_key).output()?;
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            let key = shown.lines().find(|line| line.starts_with("ssh-"));
            let key = key.ok_or_else(|| io::Error::other("dropbearkey shows no public key"))?;
            format!("{key}\n")
        }
    };
    fs::write(dir.join("authorized_keys"), public)?;
    let at = dir.display();
    fs::write(
        dir.join("sshd_config"),
        format!(
            "Port {port}\nListenAddress {listen}\nHostKey {at}/host_key\nAuthorizedKeysFile \
             {at}/authorized_keys\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication \
             no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nAllowTcpForwarding yes\n\
             UseDNS no\nPrintMotd no\nMaxStartups 100\n{more}"
        ),
    )?;
    // As root, sshd separates privileges in this directory and does not create it. Other users
    // cannot create it and do not need it.
    let _ = fs::create_dir_all("/run/sshd");
    Ok(())
}

/// Adds the options of `ssh -N` or `autossh -N` for keys made by [`prepare`].
pub fn openssh_options(command: &mut Command, dir: &Path) {
    command
        .args(["-F", "none", "-N", "-T", "-i"])
        .arg(dir.join("user_key"))
        .args(["-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"])
        .args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
        .args(["-o", "StrictHostKeyChecking=no", "-o"])
        .arg(format!("UserKnownHostsFile={}/known_hosts", dir.display()));
}

fn openssh_key(file: &Path) -> io::Result<()> {
    run_quietly(
        Command::new(require("ssh-keygen")?)
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(file),
    )
}
