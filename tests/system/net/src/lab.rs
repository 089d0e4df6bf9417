//! The laboratory: three network namespaces in a row, and what can go wrong
//! between them. Nothing in it reaches the machine's own network.
//!
//! ```text
//! agent (10.77.1.2) -- router (10.77.1.1, 10.77.2.1) -- edge (10.77.2.2)
//! ```
//!
//! Faults are made at the router, so that neither end sees its own link go, unless
//! the fault is just that.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the agent lives.
pub const AGENT: &str = "10.77.1.2";
/// The address that the agent has after a change.
pub const AGENT_MOVED: &str = "10.77.1.3";
/// The router, as the agent sees it.
pub const ROUTER: &str = "10.77.1.1";
/// Where the edge lives.
pub const EDGE: &str = "10.77.2.2";
/// Where the edge lives in IPv6.
pub const EDGE6: &str = "fd77:2::2";
/// The edge's name for agents.
pub const EDGE_NAME: &str = "edge.lab.example";

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Agent,
    Router,
    Edge,
}

/// The namespaces. Dropping them takes everything in them along.
pub struct Lab {
    prefix: String,
}

impl Lab {
    pub fn new() -> io::Result<Lab> {
        sweep();
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Whose it is, for `sweep`, and which of them.
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
        // A second address outlives the first.
        lab.run(Place::Agent, "sysctl", &["-q", "-w", "net.ipv4.conf.all.promote_secondaries=1"])?;
        lab.rules(
            "add table inet lab\nadd chain inet lab way { type filter hook forward priority 0; }",
        )?;
        lab.hosts(&format!("{EDGE} {EDGE_NAME}\n"))?;
        lab.resolvers(&[])?;
        Ok(lab)
    }

    /// The namespace's name.
    pub fn name(&self, place: Place) -> String {
        let letter = match place {
            Place::Agent => 'a',
            Place::Router => 'r',
            Place::Edge => 'e',
        };
        format!("{}{letter}", self.prefix)
    }

    /// A program at `place`, with the agent's own `/etc/hosts` and `/etc/resolv.conf`.
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

    /// Where `ip netns exec` finds a place's own files of `/etc`.
    fn etc(&self, place: Place) -> PathBuf {
        PathBuf::from("/etc/netns").join(self.name(place))
    }

    /// What `/etc/hosts` says to programs at the agent's place.
    pub fn hosts(&self, text: &str) -> io::Result<()> {
        self.hosts_of(Place::Agent, text)
    }

    /// What `/etc/hosts` says to programs at `place`.
    pub fn hosts_of(&self, place: Place, text: &str) -> io::Result<()> {
        fs::create_dir_all(self.etc(place))?;
        fs::write(self.etc(place).join("hosts"), format!("127.0.0.1 localhost\n{text}"))
    }

    /// Which resolvers `/etc/resolv.conf` names at the agent's place.
    pub fn resolvers(&self, list: &[&str]) -> io::Result<()> {
        let text: String = list.iter().map(|ip| format!("nameserver {ip}\n")).collect();
        let text = format!("# lab\n{text}options timeout:1 attempts:1\n");
        fs::write(self.etc(Place::Agent).join("resolv.conf"), text)
    }

    /// Does `work` on a thread inside of `place`: its sockets are of that place.
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

    /// Commands for nftables at the router.
    fn rules(&self, text: &str) -> io::Result<()> {
        let file = std::env::temp_dir().join(format!("{}.nft", self.prefix));
        fs::write(&file, text)?;
        let done = finish(self.command(Place::Router, "nft").arg("-f").arg(&file));
        let _ = fs::remove_file(&file);
        done
    }

    /// Nothing gets through, in either direction, and nobody is told.
    pub fn black_hole(&self) -> io::Result<()> {
        self.rules("add rule inet lab way drop")
    }

    /// What the edge sends does not arrive.
    pub fn black_hole_in(&self) -> io::Result<()> {
        self.rules("add rule inet lab way iifname out0 drop")
    }

    /// What the agent sends does not arrive.
    pub fn black_hole_out(&self) -> io::Result<()> {
        self.rules("add rule inet lab way iifname in0 drop")
    }

    /// Every packet of TCP is answered with a reset, to both ends.
    pub fn resets(&self) -> io::Result<()> {
        self.rules("add rule inet lab way meta l4proto tcp reject with tcp reset")
    }

    /// `percent` of the packets are lost.
    pub fn loss(&self, percent: u32) -> io::Result<()> {
        self.rules(&format!("add rule inet lab way numgen random mod 100 < {percent} drop"))
    }

    /// Packets for `address` vanish.
    pub fn swallow(&self, address: &str) -> io::Result<()> {
        self.rules(&format!("add rule inet lab way ip daddr {address} drop"))
    }

    /// Large packets vanish, and nobody is told.
    pub fn mtu_hole(&self) -> io::Result<()> {
        self.rules("add rule inet lab way meta length > 600 drop")
    }

    /// The three speak IPv6 too.
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

    /// No way to the edge's port but through something at the router.
    pub fn no_direct_way(&self) -> io::Result<()> {
        self.rules("add rule inet lab way iifname in0 drop")
    }

    /// The router forgets which connections it knows, and lets none continue that
    /// it does not know.
    pub fn nat(&self) -> io::Result<()> {
        self.run(Place::Router, "sysctl", &["-q", "-w", "net.netfilter.nf_conntrack_tcp_loose=0"])?;
        self.rules(
            "add chain inet lab masks { type nat hook postrouting priority 100; }\n\
             add rule inet lab masks oifname out0 masquerade",
        )
    }

    /// The NAT's table is lost, as when a router reboots.
    pub fn forget(&self) -> io::Result<()> {
        self.run(Place::Router, "conntrack", &["-F"])
    }

    /// The network is well again.
    pub fn heal(&self) -> io::Result<()> {
        self.rules("flush chain inet lab way")
    }

    /// The agent's link goes or comes.
    pub fn link(&self, up: bool) -> io::Result<()> {
        self.ip(Place::Agent, &format!("link set up0 {}", if up { "up" } else { "down" }))?;
        if up {
            // The kernel forgets the route with the link.
            let _ = self.ip(Place::Agent, &format!("route add default via {ROUTER}"));
        }
        Ok(())
    }

    /// The agent's machine gets another address and loses the one it had.
    pub fn move_agent(&self, from: &str, to: &str) -> io::Result<()> {
        self.ip(Place::Agent, &format!("addr add {to}/24 dev up0"))?;
        self.ip(Place::Agent, &format!("addr del {from}/24 dev up0"))?;
        let _ = self.ip(Place::Agent, &format!("route add default via {ROUTER}"));
        Ok(())
    }

    /// The router gets another address of its own: one that the world knows.
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

/// Takes away what a run left behind that was ended in the middle.
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
