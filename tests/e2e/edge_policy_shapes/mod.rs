//! Policies as the users of ngrok write them: each binds, and does what it is for. They are in
//! the files `*.yml` of this directory, beside the requests that show it. The format is in
//! [`shape`].
//!
//! Texts of the policies and of the requests may have these names:
//!
//! | name | value |
//! |---|---|
//! | `<ca>`, `<ca-id>` | CA of the clients, as PEM and by its id |
//! | `<server-certificate>`, `<server-key>` | certificate for `own.localhost` |
//! | `<ip-policy-here>`, `<ip-policy-elsewhere>`, `<ip-policy-not-here>` | IP policies that allow loopback, allow another network, deny loopback |
//! | `<issuer>` | provider of logins and tokens |
//! | `<server>` | server on the network of the edge |
//! | `<http-port>` | port of the edge for HTTP |
//! | `<long>` | text that is worth a compression |
//! | `<token>`, `<mac>`, `<now>` | in requests: JWT, MAC, seconds since 1970 |
//!
//! The vault `shapes` has the secrets `password`, `webhook` and `token`.

mod shape;
mod visit;
mod world;

use visit::Visit;
use world::World;

/// Binds the policies of a file and sends the requests.
#[track_caller]
fn run(name: &str, text: &str) {
    let shapes = shape::parse(name, text);
    let world = World::start(&shapes);
    let mut faults = String::new();
    for (shape, url) in shapes.iter().zip(&world.urls) {
        let mut visit = Visit::new(&world, url);
        for (number, check) in shape.requests.iter().enumerate() {
            if let Err(fault) = visit.check(check) {
                let line = check.line.as_deref().unwrap_or(&check.send);
                faults.push_str(&format!(
                    "\n{name}.yml: {}: request {} ({line}): {fault}\n",
                    shape.shape,
                    number + 1
                ));
                break;
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

/// Defines a test for each file.
macro_rules! files {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name), include_str!(concat!(stringify!($name), ".yml")));
            }
        )*

        #[test]
        fn each_file_has_a_test() {
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/edge_policy_shapes");
            let names = std::fs::read_dir(directory).unwrap().filter_map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.strip_suffix(".yml").map(str::to_owned)
            });
            let mut names: Vec<String> = names.collect();
            names.sort();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

files! {
    access
    authentication
    compression
    connections
    headers
    limits
    logins
    redirects
    responses
    routing
    variables
    webhooks
}
