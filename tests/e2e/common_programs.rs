//! Common programs through the tunnel.

use std::path::Path;
use std::process::Command;

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::process::Process;
use crate::support::upstream::listens;
use crate::support::{Noise, TempDir, program};

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.env("HOME", "/nonexistent").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns git without a user's configuration, with the author of commits.
fn git(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("no_proxy", "*");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@localhost");
    }
    command
}

#[test]
fn git_clone_over_http() {
    let Some(program) = program("git") else { return };
    let dir = TempDir::new();
    let work = dir.join("work");
    std::fs::create_dir_all(&work).unwrap();
    run(git(&program, &work).args(["init", "-q", "."]));
    dir.write("work/readme", "read me");
    dir.write("work/blob", Noise::bytes(12, 3_000_000));
    run(git(&program, &work).args(["add", "."]));
    run(git(&program, &work).args(["commit", "-q", "-m", "first"]));
    std::fs::create_dir_all(dir.join("www")).unwrap();
    run(git(&program, dir.path()).args(["clone", "-q", "--bare", "work", "www/repo.git"]));
    run(git(&program, &dir.join("www/repo.git")).arg("update-server-info"));
    let edge = Edge::start();
    let agent = agent::http(&edge, format!("file://{}", dir.join("www").display()));
    let url = format!("{}/repo.git", agent.url());
    run(git(&program, dir.path()).args(["clone", "-q", &url, "copy"]));
    assert!(std::fs::read(dir.join("copy/blob")).unwrap() == Noise::bytes(12, 3_000_000));
    run(git(&program, &dir.join("copy")).args(["fsck", "--full"]));
}

#[test]
fn ssh_runs_a_command_and_carries_a_stream() {
    let (Some(sshd), Some(keygen), Some(ssh)) =
        (program("sshd"), program("ssh-keygen"), program("ssh"))
    else {
        return;
    };
    let dir = TempDir::new();
    for key in ["host", "user"] {
        run(Command::new(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key)));
    }
    std::fs::copy(dir.join("user.pub"), dir.join("authorized")).unwrap();
    let _ = std::fs::create_dir_all("/run/sshd");
    let (mut server, port) = Process::on_a_port(
        "sshd",
        |port| {
            let d = dir.path().display();
            let config = dir.write(
                "sshd_config",
                format!(
                    "ListenAddress 127.0.0.1:{port}\nHostKey {d}/host\nPidFile none\nUsePAM no\n\
             AuthorizedKeysFile {d}/authorized\nStrictModes no\nPasswordAuthentication no\n\
             PermitRootLogin yes\n"
                ),
            );
            let mut command = Command::new(&sshd);
            command.arg("-D").arg("-e").arg("-f").arg(config);
            command
        },
        |_, port| listens(port),
    );
    let edge = Edge::start();
    let agent = agent::tcp(&edge, port);
    let public = agent.url().rsplit(':').next().unwrap().to_owned();
    let user = run(Command::new("id").arg("-un")).trim().to_owned();
    let login = |command: &str| {
        let mut ssh = Command::new(&ssh);
        ssh.args(["-F", "/dev/null", "-p", &public, "-i"]).arg(dir.join("user"));
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"]
        {
            ssh.args(["-o", option]);
        }
        ssh.args(["-o", "ConnectTimeout=20", &format!("{user}@127.0.0.1"), command]);
        ssh
    };
    assert_eq!(run(&mut login("echo through the tunnel")), "through the tunnel\n");
    let big = dir.write("big", Noise::bytes(13, 8_000_000));
    let mut sum = login("sha256sum");
    sum.stdin(std::fs::File::open(&big).unwrap());
    let remote = run(&mut sum);
    let local = run(Command::new("sha256sum").stdin(std::fs::File::open(&big).unwrap()));
    assert_eq!(remote, local);
    server.assert_running();
}

#[test]
fn postgresql_answers_queries() {
    let (Some(postgres), Some(psql)) = (postgres_program("initdb"), program("psql")) else {
        return;
    };
    let dir = TempDir::new();
    // PostgreSQL refuses to run as root: it runs as the owner of its directory.
    let root = run(Command::new("id").arg("-u")).trim() == "0";
    let owner = |program: &Path| {
        let mut command = match root {
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
                command
            }
            false => Command::new(program),
        };
        command.current_dir("/").env("LC_ALL", "C");
        command
    };
    let data = dir.join("data");
    std::fs::create_dir_all(&data).unwrap();
    if root {
        for path in [dir.path(), &data] {
            std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
        }
    }
    run(owner(&postgres).args(["-A", "trust", "-U", "tester", "--no-sync", "-D"]).arg(&data));
    let server = postgres.with_file_name("postgres");
    let (mut server, port) = Process::on_a_port(
        "postgres",
        |port| {
            let mut command = owner(&server);
            command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-F", "-c"]);
            command.args(["listen_addresses=127.0.0.1", "-c"]);
            command.arg(format!("unix_socket_directories={}", dir.path().display()));
            command
        },
        |server, _| server.count_stderr("ready to accept connections") > 0,
    );
    let edge = Edge::start();
    let agent = agent::tcp(&edge, port);
    let public = agent.url().rsplit(':').next().unwrap().to_owned();
    let query = |text: &str| {
        let mut command = Command::new(&psql);
        command.args(["-X", "-A", "-t", "-h", "127.0.0.1", "-p", &public, "-U", "tester"]);
        run(command.args(["-d", "postgres", "-c", text])).trim().to_owned()
    };
    assert_eq!(query("select 6 * 7"), "42");
    // A response of some megabytes.
    let rows = query("select repeat('x', 1000) from generate_series(1, 3000)");
    assert_eq!(rows.len(), 3000 * 1001 - 1);
    server.assert_running();
}

/// Finds a program of the server, which Debian does not put into PATH.
fn postgres_program(name: &str) -> Option<std::path::PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|v| v.path().join("bin").join(name)).find(|p| p.is_file());
    found.or_else(|| program(name))
}
