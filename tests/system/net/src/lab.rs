//! The laboratory: three network namespaces in a row, and the faults between them. Nothing in
//! it reaches the machine's own network.
//!
//! ```text
//! agent (10.77.1.2) -- router (10.77.1.1, 10.77.2.1) -- edge (10.77.2.2)
//! ```
//!
//! Faults are made at the router, so that neither end sees its own link fail, unless that is
//! the fault.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Address of the agent.
pub const AGENT: &str = "10.77.1.2";
/// Address of the agent after a change.
pub const AGENT_MOVED: &str = "10.77.1.3";
/// Address of the router for the agent.
pub const ROUTER: &str = "10.77.1.1";
/// Address of the edge.
pub const EDGE: &str = "10.77.2.2";
/// IPv6 address of the edge.
pub const EDGE6: &str = "fd77:2::2";
/// The edge's name for agents.
pub const EDGE_NAME: &str = "edge.lab.example";

/// One of the three namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Agent,
    Router,
    Edge,
}

/// The namespaces. Dropping them removes everything in them.
pub struct Lab {
    prefix: String,
}

impl Lab {
    pub fn new() -> io::Result<Lab> {
        sweep();
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // With the process's number for `sweep`, and a counter.
        let prefix = format!("cv{}-{number}", std::process::id());
        let lab = Lab { prefix };
        for place in [Place::Agent, Place::Router, Place::Edge] {
            ip(&["netns", "add", &lab.name(place)])?;
            lab.ip(place, "link set lo up")?;
        }
        let (a, r, e) = (lab.name(Place::Agent), lab.name(Place::Router), lab.name(Place::Edge));
        ip(&[
            "link", "add", "up0", "netns", &a, "type", "veth", "peer", "name", "in0", "netns", &r,
        ])?;
        ip(&[
            "link", "add", "up0", "netns", &e, "type", "veth", "peer", "name", "out0", "netns", &r,
        ])?;
        lab.ip(Place::Agent, &format!("addr add {AGENT}/24 dev up0"))?;
        lab.ip(Place::Router, &format!("addr add {ROUTER}/24 dev in0"))?;
        lab.ip(Place::Router, "addr add 10.77.2.1/24 dev out0")?;
        lab.ip(Place::Edge, &format!("addr add {EDGE}/24 dev up0"))?;
        lab.ip(Place::Router, "link set in0 up")?;
        lab.ip(Place::Router, "link set out0 up")?;
        lab.ip(Place::Agent, "link set up0 up")?;
        lab.ip(Place::Edge, "link set up0 up")?;
        lab.ip(Place::Agent, &format!("route add default via {ROUTER}"))?;
        lab.ip(Place::Edge, "route add default via 10.77.2.1")?;
        lab.run(Place::Router, "sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"])?;
        // A second address survives the removal of the first.
        lab.run(Place::Agent, "sysctl", &["-q", "-w", "net.ipv4.conf.all.promote_secondaries=1"])?;
        lab.rules(
            "add table inet lab\n\
             add chain inet lab way { type filter hook forward priority 0; }\n\
             add chain inet lab to_router { type filter hook input priority 0; }\n\
             add chain inet lab of_router { type filter hook output priority 0; }",
        )?;
        lab.hosts(&format!("{EDGE} {EDGE_NAME}\n"))?;
        lab.resolvers(&[])?;
        Ok(lab)
    }

    /// Returns the namespace's name.
    pub fn name(&self, place: Place) -> String {
        let letter = match place {
            Place::Agent => 'a',
            Place::Router => 'r',
            Place::Edge => 'e',
        };
        format!("{}{letter}", self.prefix)
    }

    /// Returns the command of a program at `place`, with the agent's own `/etc/hosts` and
    /// `/etc/resolv.conf`.
    pub fn command(&self, place: Place, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(place)]).arg(program);
        command
    }

    fn run(&self, place: Place, program: &str, args: &[&str]) -> io::Result<()> {
        finish(self.command(place, program).args(args))
    }

    fn ip(&self, place: Place, words: &str) -> io::Result<()> {
        let name = self.name(place);
        let mut args = vec!["-n", name.as_str()];
        args.extend(words.split(' '));
        ip(&args)
    }

    /// Returns the directory where `ip netns exec` finds a namespace's files of `/etc`.
    fn etc(&self, place: Place) -> PathBuf {
        PathBuf::from("/etc/netns").join(self.name(place))
    }

    /// Writes `/etc/hosts` for programs of the agent's namespace.
    pub fn hosts(&self, text: &str) -> io::Result<()> {
        self.hosts_of(Place::Agent, text)
    }

    /// Writes `/etc/hosts` for programs at `place`.
    pub fn hosts_of(&self, place: Place, text: &str) -> io::Result<()> {
        fs::create_dir_all(self.etc(place))?;
        fs::write(self.etc(place).join("hosts"), format!("127.0.0.1 localhost\n{text}"))
    }

    /// Writes the resolvers of `/etc/resolv.conf` in the agent's namespace.
    pub fn resolvers(&self, list: &[&str]) -> io::Result<()> {
        let text: String = list.iter().map(|ip| format!("nameserver {ip}\n")).collect();
        let text = format!("# lab\n{text}options timeout:1 attempts:1\n");
        fs::write(self.etc(Place::Agent).join("resolv.conf"), text)
    }

    /// Does `work` on a thread inside `place`: its sockets belong to that namespace.
    pub fn within<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let path = format!("/run/netns/{}", self.name(place));
        thread::spawn(move || {
            let namespace = File::open(&path).expect("the namespace is there");
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)
                .expect("root may enter a namespace");
            work()
        })
    }

    /// Runs commands of nftables at the router.
    fn rules(&self, text: &str) -> io::Result<()> {
        let file = std::env::temp_dir().join(format!("{}.nft", self.prefix));
        fs::write(&file, text)?;
        let done = finish(self.command(Place::Router, "nft").arg("-f").arg(&file));
        let _ = fs::remove_file(&file);
        done
    }

    /// Drops all packets in both directions, silently.
    pub fn black_hole(&self) -> io::Result<()> {
        self.rules("add rule inet lab way drop")
    }

    /// Drops the edge's packets.
    pub fn black_hole_in(&self) -> io::Result<()> {
        self.rules("add rule inet lab way iifname out0 drop")
    }

    /// Drops the agent's packets.
    pub fn black_hole_out(&self) -> io::Result<()> {
        self.rules("add rule inet lab way iifname in0 drop")
    }

    /// Answers every TCP packet with a reset, to both ends.
    pub fn resets(&self) -> io::Result<()> {
        self.rules("add rule inet lab way meta l4proto tcp reject with tcp reset")
    }

    /// Drops `percent` of the packets.
    pub fn loss(&self, percent: u32) -> io::Result<()> {
        self.rules(&format!("add rule inet lab way numgen random mod 100 < {percent} drop"))
    }

    /// Drops packets for `address`.
    pub fn swallow(&self, address: &str) -> io::Result<()> {
        self.rules(&format!("add rule inet lab way ip daddr {address} drop"))
    }

    /// Drops large packets, silently.
    pub fn mtu_hole(&self) -> io::Result<()> {
        self.rules("add rule inet lab way meta length > 600 drop")
    }

    /// Drops all packets of the router's own connection with `port` at either end: its machine
    /// has no power.
    pub fn power_lost(&self, port: u16) -> io::Result<()> {
        let rules = ["to_router", "of_router"].map(|chain| {
            let rule = |side| format!("add rule inet lab {chain} tcp {side} {port} counter drop\n");
            rule("sport") + &rule("dport")
        });
        self.rules(&rules.concat())
    }

    /// Returns the number of packets that arrived for such a connection and were dropped.
    pub fn packets_for(&self, port: u16) -> io::Result<u64> {
        let mut nft = self.command(Place::Router, "nft");
        let output = nft.args(["list", "chain", "inet", "lab", "to_router"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let port = port.to_string();
        let count = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "packets")?;
            words.contains(&port.as_str()).then_some(words.get(at + 1)?.parse::<u64>().ok()?)
        };
        Ok(text.lines().filter_map(count).sum())
    }

    /// Sets the number of keep-alive probes without a response after which the kernel closes a
    /// connection of the agent. Its default is nine.
    pub fn keepalive_probes(&self, probes: u32) -> io::Result<()> {
        let setting = format!("net.ipv4.tcp_keepalive_probes={probes}");
        self.run(Place::Agent, "sysctl", &["-q", "-w", &setting])
    }

    /// Enables IPv6 in all three.
    pub fn ipv6(&self) -> io::Result<()> {
        for (place, address, dev) in [
            (Place::Agent, "fd77:1::2", "up0"),
            (Place::Router, "fd77:1::1", "in0"),
            (Place::Router, "fd77:2::1", "out0"),
            (Place::Edge, EDGE6, "up0"),
        ] {
            self.ip(place, &format!("addr add {address}/64 dev {dev} nodad"))?;
        }
        self.ip(Place::Agent, "-6 route add default via fd77:1::1")?;
        self.ip(Place::Edge, "-6 route add default via fd77:2::1")?;
        self.run(Place::Router, "sysctl", &["-q", "-w", "net.ipv6.conf.all.forwarding=1"])
    }

    /// Blocks direct connections to the edge's port: only programs at the router reach it.
    pub fn no_direct_way(&self) -> io::Result<()> {
        self.rules("add rule inet lab way iifname in0 drop")
    }

    /// The router forgets its connections, and lets no unknown one continue.
    pub fn nat(&self) -> io::Result<()> {
        self.run(Place::Router, "sysctl", &["-q", "-w", "net.netfilter.nf_conntrack_tcp_loose=0"])?;
        self.rules(
            "add chain inet lab masks { type nat hook postrouting priority 100; }\n\
             add rule inet lab masks oifname out0 masquerade",
        )
    }

    /// Clears the NAT's table, as after a reboot of the router.
    pub fn forget(&self) -> io::Result<()> {
        self.run(Place::Router, "conntrack", &["-F"])
    }

    /// Removes all faults.
    pub fn heal(&self) -> io::Result<()> {
        self.rules("flush chain inet lab way")
    }

    /// Disables or enables the agent's link.
    pub fn link(&self, up: bool) -> io::Result<()> {
        self.ip(Place::Agent, &format!("link set up0 {}", if up { "up" } else { "down" }))?;
        if up {
            // The kernel removes the route with the link.
            let _ = self.ip(Place::Agent, &format!("route add default via {ROUTER}"));
        }
        Ok(())
    }

    /// Changes the address of the agent's machine.
    pub fn move_agent(&self, from: &str, to: &str) -> io::Result<()> {
        self.ip(Place::Agent, &format!("addr add {to}/24 dev up0"))?;
        self.ip(Place::Agent, &format!("addr del {from}/24 dev up0"))?;
        let _ = self.ip(Place::Agent, &format!("route add default via {ROUTER}"));
        Ok(())
    }

    /// Adds a public address to the router.
    pub fn router_is(&self, address: &str) -> io::Result<()> {
        self.ip(Place::Router, &format!("addr add {address}/32 dev lo"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for place in [Place::Agent, Place::Router, Place::Edge] {
            let _ = ip(&["netns", "del", &self.name(place)]);
            let _ = fs::remove_dir_all(self.etc(place));
        }
    }
}

/// Removes the remains of an aborted run.
fn sweep() {
    let Ok(list) = fs::read_dir("/run/netns") else { return };
    for entry in list.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("cv").and_then(|rest| rest.split_once('-'));
        let Some(pid) = pid.and_then(|(pid, _)| pid.parse::<u32>().ok()) else { continue };
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            let _ = ip(&["netns", "del", &name]);
            let _ = fs::remove_dir_all(PathBuf::from("/etc/netns").join(&name));
        }
    }
}

fn ip(args: &[&str]) -> io::Result<()> {
    finish(Command::new("ip").args(args))
}

fn finish(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}", said.trim())))
}
