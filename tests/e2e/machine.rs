//! A machine that has too little of something.

use crate::world::agent;
use crate::world::edge::Edge;
use crate::world::upstream::Upstream;
use crate::world::{is_reset, proc, wait_for};

#[test]
fn without_file_descriptors_the_excess_is_refused_and_it_recovers() {
    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let mut agent =
        agent::agent(&edge.config, ["tcp", &upstream.port().to_string()]).limit_files(40).start();
    for _ in 0..3 {
        let mut alive = Vec::new();
        let mut refused = 0;
        for _ in 0..80 {
            let mut visitor = agent.visit(&edge);
            match visitor.wire.write("x").and_then(|()| visitor.wire.read_exact(1)) {
                Ok(_) => alive.push(visitor),
                Err(error) => {
                    assert!(is_reset(&error), "silence instead of an end: {error}");
                    refused += 1;
                }
            }
        }
        assert!(!alive.is_empty() && refused > 0, "{} alive, {refused} refused", alive.len());
        for visitor in &mut alive {
            visitor.wire.write("y").unwrap();
            assert_eq!(visitor.wire.read_exact(1).unwrap(), b"y");
        }
        // It sleeps; it does not try again and again.
        proc::wait_idle(agent.pid());
        drop(alive);
        wait_for("connections to end", || upstream.open() == 0);
        agent.process().assert_running();
    }
    assert_eq!(agent.process().count_stderr("session closed"), 0);
}
