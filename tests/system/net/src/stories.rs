//! Tests of culvert only: names, proxies, a start before the network.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{AGENT, AGENT_MOVED, EDGE, EDGE_NAME, EDGE6, Lab, Place, ROUTER};
use crate::logged::{Program, wait};
use crate::proc;
use crate::programs::find;
use crate::rest_restrictions;
use crate::tunnel::{AGENT_PORT, Kind, Programs, Setting, Tunnel};
use crate::visit::{self, Watch};

/// Time for the URL to respond.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// One story.
pub struct Story {
    pub name: &'static str,
    pub needs: &'static [&'static str],
    pub run: fn(&mut Scene) -> io::Result<String>,
}

/// State of a story.
pub struct Scene<'a> {
    pub lab: Lab,
    programs: &'a Programs,
    pub dir: &'a Path,
    pub setting: Setting,
    helpers: Vec<Program>,
}

pub const STORIES: &[Story] = &[
    Story {
        name: "started-before-the-network",
        needs: &[],
        run: |scene| {
            scene.lab.link(false)?;
            let (tunnel, watch) = scene.start()?;
            thread::sleep(Duration::from_secs(5));
            scene.lab.link(true)?;
            scene.back(tunnel, watch)
        },
    },
    Story {
        name: "system-resolver",
        needs: &["dnsmasq"],
        run: |scene| {
            scene.only_dns()?;
            scene.lab.resolvers(&[ROUTER])?;
            scene.dns(ROUTER, &[(EDGE_NAME, EDGE)])?;
            scene.answers()
        },
    },
    Story {
        name: "resolver-comes-late",
        needs: &["dnsmasq"],
        run: |scene| {
            scene.only_dns()?;
            let (tunnel, watch) = scene.start()?;
            thread::sleep(Duration::from_secs(3));
            // As if DHCP wrote the file after the program's start.
            scene.lab.resolvers(&[ROUTER])?;
            scene.dns(ROUTER, &[(EDGE_NAME, EDGE)])?;
            scene.back(tunnel, watch)
        },
    },
    Story {
        name: "resolver-comes-after-the-link",
        needs: &["dnsmasq"],
        run: |scene| {
            scene.setting.options =
                "  heartbeat_interval: 10s\n  dns_public_resolvers: false\n".to_owned();
            scene.only_dns()?;
            scene.dns(ROUTER, &[(EDGE_NAME, EDGE)])?;
            scene.lab.link(false)?;
            let (tunnel, watch) = scene.start()?;
            wait("a long wait", PATIENCE * 2, || waits_long(&tunnel.client.said()))?;
            scene.lab.link(true)?;
            // The settings of DHCP are written when address and route exist, and after an
            // attempt has failed without them.
            thread::sleep(Duration::from_secs(2));
            scene.lab.resolvers(&[ROUTER])?;
            scene.back_soon(tunnel, &watch, Instant::now(), 3)
        },
    },
    Story {
        name: "public-resolver-when-the-system-has-none",
        needs: &["dnsmasq"],
        run: |scene| {
            scene.only_dns()?;
            // A public resolver's address, inside the laboratory.
            scene.lab.router_is("1.1.1.1")?;
            scene.dns("1.1.1.1", &[(EDGE_NAME, EDGE)])?;
            scene.answers()
        },
    },
    Story {
        name: "public-resolver-when-the-system-lies-dead",
        needs: &["dnsmasq"],
        run: |scene| {
            scene.only_dns()?;
            // An address without a host.
            scene.lab.resolvers(&["10.77.1.77"])?;
            scene.lab.router_is("8.8.8.8")?;
            scene.dns("8.8.8.8", &[(EDGE_NAME, EDGE)])?;
            scene.answers()
        },
    },
    Story {
        name: "dead-address-first",
        needs: &["dnsmasq"],
        run: |scene| {
            scene.only_dns()?;
            scene.lab.resolvers(&[ROUTER])?;
            scene.dns(
                ROUTER,
                &[(EDGE_NAME, "10.77.2.99"), (EDGE_NAME, "10.77.2.98"), (EDGE_NAME, EDGE)],
            )?;
            scene.answers()
        },
    },
    Story {
        name: "ipv6-address-without-ipv6",
        needs: &["dnsmasq"],
        run: |scene| {
            scene.only_dns()?;
            scene.lab.resolvers(&[ROUTER])?;
            scene.dns(ROUTER, &[(EDGE_NAME, "2001:db8::1"), (EDGE_NAME, EDGE)])?;
            scene.answers()
        },
    },
    Story {
        name: "http-proxy",
        needs: &["tinyproxy"],
        run: |scene| {
            scene.tinyproxy("")?;
            scene.via(&format!("http://{ROUTER}:8888"))?;
            scene.serves_and_restarts()
        },
    },
    Story {
        name: "http-proxy-with-password",
        needs: &["tinyproxy"],
        run: |scene| {
            scene.tinyproxy("BasicAuth someone opensesame\n")?;
            scene.via(&format!("http://someone:opensesame@{ROUTER}:8888"))?;
            scene.serves_and_restarts()
        },
    },
    Story {
        name: "http-proxy-with-wrong-password",
        needs: &["tinyproxy"],
        run: |scene| {
            scene.tinyproxy("BasicAuth someone opensesame\n")?;
            scene.via(&format!("http://someone:wrong-secret@{ROUTER}:8888"))?;
            let (mut tunnel, _watch) = scene.start()?;
            tunnel.client.says("does not accept this user and password", 0, PATIENCE)?;
            if tunnel.client.said().contains("wrong-secret") {
                return Err(io::Error::other("the password is in the log"));
            }
            Ok("refused by the proxy, said so".to_owned())
        },
    },
    Story { name: "rest-api-for-some-addresses", needs: &["curl"], run: rest_restrictions::run },
    Story {
        name: "socks-proxy",
        needs: &["microsocks"],
        run: |scene| {
            scene.microsocks(&[])?;
            // The proxy resolves the name: the agent has no resolver.
            scene.only_dns()?;
            scene.via(&format!("socks5://{ROUTER}:1080"))?;
            scene.serves_and_restarts()
        },
    },
    Story {
        name: "socks-proxy-with-password",
        needs: &["microsocks"],
        run: |scene| {
            scene.microsocks(&["-u", "someone", "-P", "opensesame"])?;
            scene.via(&format!("socks5://someone:opensesame@{ROUTER}:1080"))?;
            scene.serves_and_restarts()
        },
    },
    Story {
        name: "proxy-dies-and-comes-back",
        needs: &["tinyproxy"],
        run: |scene| {
            scene.tinyproxy("")?;
            scene.via(&format!("http://{ROUTER}:8888"))?;
            let (mut tunnel, watch) = scene.start()?;
            scene.first(&mut tunnel, &watch)?;
            // Connections through it end with it.
            scene.helpers.clear();
            if !watch.gone(Duration::from_secs(4)) {
                return Err(io::Error::other("there was another way than the proxy"));
            }
            thread::sleep(Duration::from_secs(3));
            scene.tinyproxy("")?;
            scene.back_soon(tunnel, &watch, Instant::now(), 2)
        },
    },
    Story {
        name: "revocation-list-in-a-black-hole",
        needs: &[],
        run: |scene| {
            scene.setting.options += "  crl_url: http://10.77.2.50/list.crl\n";
            scene.lab.swallow("10.77.2.50")?;
            let began = Instant::now();
            let (mut tunnel, watch) = scene.start()?;
            // The list gets its 3 s, once.
            wait("the tunnel answers", Duration::from_secs(5), || watch.is_good())
                .map_err(|e| io::Error::other(format!("{e}\n{}", tunnel.client.tail())))?;
            let first = began.elapsed().as_secs_f32();
            tunnel.client.says("revo", 0, PATIENCE)?;
            tunnel.kill_server();
            watch.gone(Duration::from_secs(2));
            tunnel.start_server(&scene.lab)?;
            let back = scene.back_soon(tunnel, &watch, Instant::now(), 2)?;
            Ok(format!("answers {first:.2} s after the start; edge restarted: {back}"))
        },
    },
    Story {
        name: "edge-has-only-ipv6",
        needs: &[],
        run: |scene| {
            scene.lab.ipv6()?;
            scene.lab.hosts(&format!("{EDGE6} {EDGE_NAME}\n"))?;
            scene.setting.agents = format!("[::]:{AGENT_PORT}");
            scene.serves_and_restarts()
        },
    },
    Story {
        name: "power-lost-and-another-address",
        needs: &[],
        run: |scene| {
            // The edge would wait 25 s for a sign of life of the old session.
            scene.setting.options = "  heartbeat_interval: 10s\n".to_owned();
            let (mut tunnel, watch) = scene.start()?;
            scene.first(&mut tunnel, &watch)?;
            // No GOAWAY arrives from an address that was removed.
            scene.lab.black_hole()?;
            tunnel.kill_client();
            scene.lab.move_agent(AGENT, AGENT_MOVED)?;
            watch.gone(Duration::from_secs(2));
            scene.lab.heal()?;
            tunnel.start_client(&scene.lab)?;
            // The old one has 2 s for a sign of life.
            scene.back_soon(tunnel, &watch, Instant::now(), 4)
        },
    },
    Story {
        name: "clock-of-1972-then-right",
        needs: &["faketime"],
        run: |scene| {
            let clock = scene.clock("-20000d")?;
            let (mut tunnel, watch) = scene.start()?;
            tunnel.client.says("check this machine's clock", 0, PATIENCE)?;
            std::fs::write(&clock, "+0")?;
            scene.back_soon(tunnel, &watch, Instant::now(), 2)
        },
    },
    Story {
        name: "clock-of-2099-then-right",
        needs: &["faketime"],
        run: |scene| {
            let clock = scene.clock("+27000d")?;
            let (mut tunnel, watch) = scene.start()?;
            tunnel.client.says("expired (or this machine's clock is wrong)", 0, PATIENCE)?;
            std::fs::write(&clock, "+0")?;
            scene.back_soon(tunnel, &watch, Instant::now(), 2)
        },
    },
    Story {
        name: "clock-set-late-cuts-the-wait-short",
        needs: &["faketime", "cc"],
        run: |scene| {
            scene.setting.options = "  heartbeat_interval: 10s\n".to_owned();
            let clock = scene.clock("-20000d")?;
            let bell = scene.clock_bell()?;
            let (tunnel, watch) = scene.start()?;
            wait("a long wait", PATIENCE * 2, || waits_long(&tunnel.client.said()))?;
            std::fs::write(&clock, "+0")?;
            std::fs::write(bell, "!")?;
            scene.back_soon(tunnel, &watch, Instant::now(), 2)
        },
    },
    Story {
        name: "clock-jumps-by-decades-in-a-session",
        needs: &["faketime", "curl"],
        run: |scene| {
            let clock = scene.clock("+0")?;
            scene.setting.web_addr = "127.0.0.1:4040".to_owned();
            let (mut tunnel, watch) = scene.start()?;
            scene.first(&mut tunnel, &watch)?;
            let before = tunnel.client.said().len();
            for (jump, year) in [("-20000d", "\"start\":\"197"), ("+27000d", "\"start\":\"210")] {
                std::fs::write(&clock, jump)?;
                // Visitors continue to arrive, and are stored with the machine's time.
                wait("requests of that year", PATIENCE, || scene.api().contains(year))?;
                // Longer than interval and tolerance of the heartbeat.
                thread::sleep(Duration::from_secs(4));
            }
            std::fs::write(&clock, "+0")?;
            let said = tunnel.client.said();
            if said[before..].contains("session closed") || !watch.is_good() {
                return Err(io::Error::other(format!("{}\nlost it", tunnel.client.tail())));
            }
            scene.back(tunnel, watch)
        },
    },
    Story {
        name: "every-third-packet-lost",
        needs: &[],
        run: |scene| {
            // The default heartbeat: a bad link is not a dead link.
            scene.setting.options = "  heartbeat_interval: 10s\n".to_owned();
            let (mut tunnel, watch) = scene.start()?;
            scene.first(&mut tunnel, &watch)?;
            // The start of the link may cause a probe, which has a shorter timeout than a
            // heartbeat.
            thread::sleep(Duration::from_secs(6));
            let before = tunnel.client.said().len();
            scene.lab.loss(30)?;
            thread::sleep(Duration::from_secs(25));
            scene.lab.heal()?;
            let said = tunnel.client.said();
            if said[before..].contains("session closed") {
                return Err(io::Error::other(format!(
                    "gave the session up\n{}",
                    tunnel.client.tail()
                )));
            }
            scene.back(tunnel, watch)
        },
    },
    Story {
        name: "signal-cuts-the-wait-short",
        needs: &[],
        run: |scene| {
            scene.setting.options = "  heartbeat_interval: 10s\n".to_owned();
            let (mut tunnel, watch) = scene.start()?;
            scene.first(&mut tunnel, &watch)?;
            scene.lab.resets()?;
            wait("a long wait", PATIENCE * 2, || waits_long(&tunnel.client.said()))?;
            scene.lab.heal()?;
            tunnel.client.signal("USR1");
            scene.back_soon(tunnel, &watch, Instant::now(), 2)
        },
    },
    Story {
        name: "an-hour-without-a-link-is-quiet",
        needs: &[],
        run: |scene| {
            // Twenty seconds are a sample: the rate is measured.
            let (mut tunnel, watch) = scene.start()?;
            scene.first(&mut tunnel, &watch)?;
            scene.lab.link(false)?;
            thread::sleep(Duration::from_secs(10));
            let pid = tunnel.client.pid();
            let (cpu, lines) = (proc::cpu(pid)?, tunnel.client.said().lines().count());
            thread::sleep(Duration::from_secs(20));
            // A tick is 10 ms, the finest unit of the kernel's figure.
            let ticks = (proc::cpu(pid)? - cpu).as_millis() / 10;
            let lines = tunnel.client.said().lines().count() - lines;
            scene.lab.link(true)?;
            // 2 of them in 20 s are 0.1 %.
            if ticks > 2 || lines > 20 {
                return Err(io::Error::other(format!("{ticks} ticks, {lines} lines in 20 s")));
            }
            let back = scene.back(tunnel, watch)?;
            Ok(format!("{ticks} ticks of CPU and {lines} lines in 20 s; {back}"))
        },
    },
];

impl Story {
    /// Returns a required program or feature that is missing.
    pub fn missing(&self, programs: &Programs) -> Option<String> {
        let program = self.needs.iter().find(|program| find(program).is_none());
        if let Some(program) = program {
            return Some(format!("{program} is not installed"));
        }
        // A static program calls the kernel itself, so its time cannot be faked.
        let lies = self.needs.contains(&"faketime");
        let linked = |program: &[u8]| program.windows(8).any(|bytes| bytes == b"ld-linux");
        let faked = |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| linked(&bytes));
        (lies && !(faked(&programs.agent) && faked(&programs.edge)))
            .then(|| "a program is static, faketime cannot reach it".to_owned())
    }

    pub fn run(&self, programs: &Programs, dir: &Path) -> Result<String, String> {
        let lab = Lab::new().map_err(|e| format!("no laboratory: {e}"))?;
        std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
        let mut scene =
            Scene { lab, programs, dir, setting: Setting::default(), helpers: Vec::new() };
        (self.run)(&mut scene).map_err(|e| {
            let helpers: String = scene.helpers.iter().map(Program::tail).collect();
            format!("{e}\n{helpers}")
        })
    }
}

impl Scene<'_> {
    pub fn start(&self) -> io::Result<(Tunnel, Watch)> {
        let upstream = visit::serve(&self.lab)?;
        let tunnel = Tunnel::start(
            &self.lab,
            Kind::Culvert,
            self.programs,
            upstream,
            self.dir,
            &self.setting,
        )?;
        let watch = Watch::start(&self.lab, tunnel.entrance.clone());
        Ok((tunnel, watch))
    }

    pub fn first(&self, tunnel: &mut Tunnel, watch: &Watch) -> io::Result<()> {
        wait("the tunnel answers", PATIENCE, || watch.is_good())
            .map_err(|e| io::Error::other(format!("{e}\n{}", tunnel.client.tail())))
    }

    /// Starts the tunnel and waits for its first response.
    fn answers(&self) -> io::Result<String> {
        let began = Instant::now();
        let (mut tunnel, watch) = self.start()?;
        self.first(&mut tunnel, &watch)?;
        Ok(format!("answers {:.2} s after the start", began.elapsed().as_secs_f32()))
    }

    fn back(&self, mut tunnel: Tunnel, watch: Watch) -> io::Result<String> {
        let healed = Instant::now();
        self.first(&mut tunnel, &watch)?;
        if !tunnel.client.alive() {
            return Err(io::Error::other("the agent ended"));
        }
        Ok(format!("answers {:.2} s later", healed.elapsed().as_secs_f32()))
    }

    /// Checks that the tunnel responds again within this number of seconds from `at` on.
    pub fn back_soon(
        &self,
        mut tunnel: Tunnel,
        watch: &Watch,
        at: Instant,
        seconds: u64,
    ) -> io::Result<String> {
        match watch.back(at, Duration::from_secs(seconds)) {
            Some(back) if tunnel.client.alive() => {
                Ok(format!("back after {:.2} s", back.as_secs_f32()))
            }
            _ => Err(io::Error::other(format!(
                "not back within {seconds} s\n{}",
                tunnel.client.tail()
            ))),
        }
    }

    /// Sets the agent's wall clock to the offset in the file that this returns, at first this
    /// one.
    pub fn clock(&mut self, offset: &str) -> io::Result<PathBuf> {
        let clock = self.dir.join("clock");
        std::fs::write(&clock, offset)?;
        self.setting.environment = vec![
            ("LD_PRELOAD", faketime().unwrap_or_default()),
            ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        Ok(clock)
    }

    /// Returns the FIFO to write to when that clock is set, in place of the kernel's
    /// notification.
    fn clock_bell(&mut self) -> io::Result<PathBuf> {
        let (source, library) = (self.dir.join("clock_set.c"), self.dir.join("clock_set.so"));
        let bell = self.dir.join("clock_set");
        std::fs::write(&source, include_str!("../clock_set.c"))?;
        let mut cc = Command::new("cc");
        let made = cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status()?;
        let fifo = Command::new("mkfifo").arg(&bell).status()?;
        if !made.success() || !fifo.success() {
            return Err(io::Error::other("the stand-in for the kernel's clock cannot be made"));
        }
        let preload = (self.setting.environment.iter_mut()).find(|(name, _)| *name == "LD_PRELOAD");
        if let Some((_, list)) = preload {
            *list = format!("{} {list}", library.display());
        }
        self.setting.environment.push(("CLOCK_SET", bell.display().to_string()));
        Ok(bell)
    }

    /// Returns the visitors' requests in the agent's local API.
    fn api(&self) -> String {
        let mut curl = self.lab.command(Place::Agent, "curl");
        let url = format!("http://{}/api/requests/http", self.setting.web_addr);
        let output = curl.args(["-s", "-m", "5", &url]).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
    }

    /// Removes the edge from the agent's hosts file.
    fn only_dns(&self) -> io::Result<()> {
        self.lab.hosts("")
    }

    /// Starts a resolver at the router, on `address`.
    fn dns(&mut self, address: &str, records: &[(&str, &str)]) -> io::Result<()> {
        let mut command = self.lab.command(Place::Router, "dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--bind-interfaces", "--log-facility=-", "--log-queries", "--pid-file="]);
        command.arg(format!("--listen-address={address}"));
        command.args(records.iter().map(|(name, ip)| format!("--host-record={name},{ip}")));
        let mut dnsmasq = Program::start("dnsmasq", &mut command, self.dir)?;
        dnsmasq.says("started", 0, Duration::from_secs(5))?;
        self.helpers.push(dnsmasq);
        Ok(())
    }

    fn tinyproxy(&mut self, more: &str) -> io::Result<()> {
        let file = self.dir.join("tinyproxy.conf");
        std::fs::write(
            &file,
            format!(
                "Port 8888\nListen {ROUTER}\nTimeout 600\nMaxClients 50\nConnectPort {AGENT_PORT}\n{more}"
            ),
        )?;
        let mut command = self.lab.command(Place::Router, "tinyproxy");
        // It resolves the edge's name like the agent.
        command.args(["-d", "-c"]).arg(&file);
        self.proxy("tinyproxy", &mut command, 8888)
    }

    fn microsocks(&mut self, more: &[&str]) -> io::Result<()> {
        let mut command = self.lab.command(Place::Router, "microsocks");
        command.args(["-i", ROUTER, "-p", "1080"]).args(more);
        self.proxy("microsocks", &mut command, 1080)
    }

    fn proxy(
        &mut self,
        name: &str,
        command: &mut std::process::Command,
        port: u16,
    ) -> io::Result<()> {
        self.lab.hosts_of(Place::Router, &format!("{EDGE} {EDGE_NAME}\n"))?;
        self.helpers.push(Program::start(name, command, self.dir)?);
        let at = format!("{ROUTER}:{port}");
        wait(&format!("{name} listens"), Duration::from_secs(5), || {
            let at = at.clone();
            let look =
                self.lab.within(Place::Router, move || std::net::TcpStream::connect(at).is_ok());
            look.join().unwrap_or(false)
        })
    }

    /// Makes the agent use this proxy, as its only path to the edge.
    fn via(&mut self, url: &str) -> io::Result<()> {
        self.setting.options += &format!("  proxy_url: {url}\n");
        self.lab.no_direct_way()
    }

    /// Serves, restarts the edge, and serves again on the same path.
    fn serves_and_restarts(&mut self) -> io::Result<String> {
        let (mut tunnel, watch) = self.start()?;
        self.first(&mut tunnel, &watch)?;
        tunnel.kill_server();
        if !watch.gone(Duration::from_secs(4)) {
            return Err(io::Error::other("somebody answers in place of the edge"));
        }
        tunnel.start_server(&self.lab)?;
        self.back_soon(tunnel, &watch, Instant::now(), 2)
    }
}

/// Returns whether a wait of 10 s or more was announced.
fn waits_long(said: &str) -> bool {
    let waits = said.split("retry=").skip(1);
    waits.filter_map(|w| w.split('s').next()?.parse::<f32>().ok()).any(|w| w >= 10.0)
}

/// Returns the library that fakes the time.
fn faketime() -> Option<String> {
    let dirs = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let library = |dir: std::fs::DirEntry| dir.path().join("faketime/libfaketimeMT.so.1");
    dirs.map(library).find(|path| path.exists()).map(|path| path.display().to_string())
}
