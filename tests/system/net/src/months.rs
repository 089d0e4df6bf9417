//! Stories of the edge over months: peers that lose their power, and certificates that the edge
//! has issued.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::Place;
use crate::logged::wait;
use crate::power::{Service, TcpVisitor};
use crate::stories::{PATIENCE, Scene, Story};
use crate::tunnel::{HTTPS_PORT, TCP_PORT, Tunnel};

/// Time until the kernel's first probe of an idle connection, and between two.
const PROBE_IDLE: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(15);

/// Time after which the edge's kernel closes a visitor that acknowledges nothing: a minute more
/// than `limits.stall_seconds`.
const VISITOR_TIMEOUT: Duration = Duration::from_secs(360);

/// Additional time of a busy machine.
const MARGIN: Duration = Duration::from_secs(20);

pub const STORIES: &[Story] = &[
    Story {
        name: "power-lost-behind-both-ends",
        needs: &[],
        run: |scene| {
            const PROBES: u32 = 2;
            scene.lab.keepalive_probes(PROBES)?;
            let (mut peers, _tunnel) = Peers::start(scene)?;
            let dark = peers.upstream.port(b'u')?;
            let begin = Instant::now();
            scene.lab.power_lost(dark)?;
            scene.lab.power_lost(peers.visitors[1].port()?)?;
            // The upstream of the first visitor.
            let limit = PROBE_IDLE + PROBE_INTERVAL * PROBES + MARGIN;
            wait("the end of the visitor of a dead upstream", limit, || peers.visitors[0].ended())?;
            let noticed = begin.elapsed();
            // The second visitor: probes arrive, and none is acknowledged.
            let dark = peers.visitors[1].port()?;
            let count = || scene.lab.packets_for(dark).unwrap_or_default();
            wait("two probes of a dead visitor", PROBE_INTERVAL + MARGIN, || count() >= 2)?;
            let probed = begin.elapsed();
            // The third pair has power.
            peers.visitors[2].echo()?;
            Ok(format!(
                "an upstream is noticed after {noticed:.1?}, a visitor is probed twice within \
                 {probed:.1?}"
            ))
        },
    },
    Story {
        name: "edge-serves-for-years",
        needs: &["faketime", "curl"],
        run: |scene| {
            let clock = scene.clock("+0")?;
            scene.setting.edge_environment = scene.setting.environment.clone();
            let (mut tunnel, watch) = scene.start()?;
            scene.first(&mut tunnel, &watch)?;
            scene.verified_visit()?;
            // Issued certificates are valid for 397 days.
            for days in [400, 800, 1_200] {
                std::fs::write(&clock, format!("+{days}d"))?;
                scene.verified_visit()?;
                // The session of the agent began before the jump, and continues.
                if tunnel.client.said().contains("session closed") || !watch.is_good() {
                    let tail = tunnel.client.tail();
                    return Err(io::Error::other(format!("the session is lost\n{tail}")));
                }
                let before = tunnel.client.said().len();
                tunnel.kill_client();
                tunnel.start_client(&scene.lab)?;
                tunnel.client.says("name=web", before, PATIENCE)?;
                scene.first(&mut tunnel, &watch)?;
            }
            Ok("valid certificates for agents and visitors after 400, 800 and 1,200 days".into())
        },
    },
    Story {
        name: "edge-boots-in-1970",
        needs: &["faketime", "curl"],
        run: |scene| {
            let clock = scene.clock("-20000d")?;
            // Agent and visitors have the right time.
            scene.setting.edge_environment = std::mem::take(&mut scene.setting.environment);
            let (mut tunnel, watch) = scene.start()?;
            tunnel.client.says("expired (or this machine's clock is wrong)", 0, PATIENCE)?;
            if scene.verified_visit().is_ok() {
                return Err(io::Error::other("the edge does not have the time of its clock"));
            }
            std::fs::write(&clock, "+0")?;
            let set = Instant::now();
            scene.verified_visit()?;
            scene.back_soon(tunnel, &watch, set, 4)
        },
    },
];

/// Stories of several minutes, for `--long`.
pub const LONG_STORIES: &[Story] = &[Story {
    name: "power-lost-before-the-edge",
    needs: &[],
    run: |scene| {
        let (mut peers, _tunnel) = Peers::start(scene)?;
        let begin = Instant::now();
        scene.lab.power_lost(peers.visitors[1].port()?)?;
        wait("the end of a dead visitor at its upstream", VISITOR_TIMEOUT + MARGIN * 2, || {
            peers.upstream.ended(b'v')
        })?;
        let noticed = begin.elapsed();
        peers.visitors[0].echo()?;
        peers.visitors[2].echo()?;
        Ok(format!("a visitor is noticed after {noticed:.1?}"))
    },
}];

/// Three visitors of a TCP endpoint: `u`, `v`, and `p`, which keeps its power.
struct Peers {
    upstream: Service,
    visitors: [TcpVisitor; 3],
}

impl Peers {
    fn start(scene: &mut Scene) -> io::Result<(Peers, Tunnel)> {
        let upstream = Service::start(&scene.lab)?;
        scene.setting.endpoints = format!(
            "  - name: echo\n    url: tcp://\n    upstream:\n      url: {}\n",
            upstream.addr
        );
        let (mut tunnel, watch) = scene.start()?;
        scene.first(&mut tunnel, &watch)?;
        tunnel.client.says("name=echo", 0, PATIENCE)?;
        let start = |name| TcpVisitor::start(&scene.lab, TCP_PORT, name);
        let visitors = [start(b'u')?, start(b'v')?, start(b'p')?];
        Ok((Peers { upstream, visitors }, tunnel))
    }
}

impl Scene<'_> {
    /// Visits the edge with TLS, with the clock of the agent. An invalid certificate is an error.
    fn verified_visit(&self) -> io::Result<()> {
        let mut curl = self.lab.command(Place::Edge, "curl");
        let variables = &self.setting.environment;
        curl.envs(variables.iter().map(|(name, value)| (name, value)));
        visit(&mut curl, &self.dir.join("edge/ca.pem"))
    }
}

fn visit(curl: &mut Command, ca: &Path) -> io::Result<()> {
    let name = "web.lab.example";
    curl.args(["-sS", "-m", "10", "-o", "/dev/null", "--cacert"]).arg(ca);
    curl.args(["--resolve", &format!("{name}:{HTTPS_PORT}:127.0.0.1")]);
    let output = curl.arg(format!("https://{name}:{HTTPS_PORT}/")).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
