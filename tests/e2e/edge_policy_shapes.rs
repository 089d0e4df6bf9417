//! Policies of the usual kinds, as their users write them: each binds and does what it is for.

use serde_json::json;

use crate::support::agent::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;

/// A request: method and target, header lines, body. Then the status, and what the response has
/// and does not have, header and body in lower case.
type Check = (&'static str, &'static str, &'static str, u16, &'static str, &'static str);

/// A policy in YAML, and requests.
const SHAPES: &[(&str, &[Check])] = &[
    (
        // An API key in a header.
        "on_http_request: [{expressions: [\"getReqHeader('x-api-key') != ['k1']\"], actions: [\
         {type: custom-response, config: {status_code: 401, headers: {content-type: \
         application/json}, body: '{\"error\": \"key\"}'}}]}]",
        &[
            ("GET /", "", "", 401, "{\"error\": \"key\"}", "upstream"),
            ("GET /", "X-Api-Key: k1\r\n", "", 200, "upstream", ""),
            ("GET /", "X-Api-Key: k2\r\n", "", 401, "application/json", "upstream"),
        ],
    ),
    (
        // A part of the site that is not public.
        "on_http_request: [{expressions: [\"req.url.path.startsWith('/admin')\", \
         \"!inCidrRange(conn.client_ip, '10.0.0.0/8')\"], actions: [{type: deny, config: \
         {status_code: 404}}]}]",
        &[("GET /admin/x", "", "", 404, "", "upstream"), ("GET /x", "", "", 200, "upstream", "")],
    ),
    (
        // Reading only.
        "on_http_request: [{expressions: [\"!(req.method in ['GET', 'HEAD'])\"], actions: \
         [{type: deny, config: {status_code: 405}}]}]",
        &[("PUT /", "", "x", 405, "", ""), ("GET /", "", "", 200, "upstream", "")],
    ),
    (
        // Requests of browsers from another origin.
        "on_http_request: [{expressions: [\"req.method == 'OPTIONS'\"], actions: [{type: \
         custom-response, config: {status_code: 204, headers: {access-control-allow-origin: \
         'https://app.example', access-control-allow-methods: 'GET, PUT'}}}]}]\n\
         on_http_response: [{actions: [{type: add-headers, config: {headers: \
         {access-control-allow-origin: 'https://app.example'}}}]}]",
        &[
            ("OPTIONS /", "", "", 204, "access-control-allow-methods: get, put", "upstream"),
            ("GET /", "", "", 200, "access-control-allow-origin: https://app.example", ""),
        ],
    ),
    (
        // The address of the visitor, and a value computed before.
        "on_http_request: [{actions: [{type: set-vars, config: {vars: [{user: \
         \"${getReqHeader('x-user')[0].upperAscii()}\"}, {greeting: 'hello ${vars.user}'}]}}, \
         {type: add-headers, config: {headers: {x-ip: '${conn.client_ip}', x-greeting: \
         '${vars.greeting}'}}}]}]",
        &[("GET /", "X-User: ann\r\n", "", 200, "x-ip: 127.0.0.1\r\nx-greeting: hello ann", "")],
    ),
    (
        // An own response for visitors over the limit.
        "on_http_request: [{actions: [{type: rate-limit, config: {name: n, algorithm: \
         sliding_window, capacity: 1, rate: 60m, bucket_key: [conn.client_ip], enforce: \
         false}}]}, {expressions: [actions.ngrok.rate_limit.limited], actions: [{type: \
         custom-response, config: {status_code: 503, body: 'come back later'}}]}]",
        &[("GET /", "", "", 200, "upstream", ""), ("GET /", "", "", 503, "come back later", "")],
    ),
    (
        // A password for all but one path.
        "on_http_request: [{expressions: [\"!req.url.path.startsWith('/public/')\"], actions: \
         [{type: basic-auth, config: {credentials: ['user:password1']}}]}]",
        &[
            ("GET /x", "", "", 401, "basic realm=\"ngrok\"", "upstream"),
            ("GET /public/x", "", "", 200, "upstream", ""),
        ],
    ),
    (
        // The name of the user for the service, and an own page for the others.
        "on_http_request: [{actions: [{type: basic-auth, config: {credentials: \
         ['user:password1'], enforce: false}}]}, {expressions: \
         ['!actions.ngrok.basic_auth.credentials.authorized'], actions: [{type: \
         custom-response, config: {status_code: 403, body: members only}}]}, {actions: [{type: \
         add-headers, config: {headers: {x-user: \
         '${actions.ngrok.basic_auth.credentials.username}'}}}]}]",
        &[
            ("GET /", "", "", 403, "members only", "www-authenticate"),
            ("GET /", "Authorization: Basic dXNlcjpwYXNzd29yZDE=\r\n", "", 200, "x-user: user", ""),
        ],
    ),
    (
        // Header lines that protect browsers, and one that only describes the server.
        "on_http_response: [{actions: [{type: add-headers, config: {headers: \
         {strict-transport-security: max-age=60, x-frame-options: DENY}}}, {type: \
         remove-headers, config: {headers: [x-powered-by]}}]}]",
        &[("GET /", "", "", 200, "x-frame-options: deny", "x-powered-by")],
    ),
    (
        // An own page for errors of the service.
        "on_http_response: [{expressions: ['res.status_code >= 500'], actions: [{type: \
         custom-response, config: {status_code: 502, body: 'sorry, ${req.url.path} is broken'}}]}]",
        &[
            ("GET /fail", "", "", 502, "sorry, /fail is broken", "upstream"),
            ("GET /", "", "", 200, "upstream", "sorry"),
        ],
    ),
    (
        // Numbers of cards do not leave.
        "on_http_response: [{expressions: [\"res.content_type.startsWith('text/')\"], actions: \
         [{type: response-body-find-replace, config: {replacements: [{from: \
         '\\d{4}-\\d{4}-\\d{4}-(\\d{4})', to: 'card $1'}]}}]}]",
        &[("GET /1234-5678-9012-3456", "", "", 200, "card 3456", "1234-5678")],
    ),
    (
        // Keys do not come in.
        "on_http_request: [{expressions: [\"req.method == 'POST'\"], actions: [{type: \
         request-body-find-replace, config: {replacements: [{from: '\"key\":\\s*\"[^\"]*\"', to: \
         '\"key\": \"\"'}]}}]}]",
        &[("POST /", "", "{\"key\": \"k99\"}", 200, "{\"key\": \"\"}", "k99")],
    ),
    (
        // A new place for old paths; a slash less; parameters of campaigns.
        "on_http_request: [{actions: [{type: redirect, config: {from: '/blog/(\\d+)', to: \
         '/posts/$1', status_code: 301}}, {type: url-rewrite, config: {from: '[?&]utm_[^&]*', to: \
         ''}}, {type: url-rewrite, config: {from: '/v1/', to: '/api/v1/'}}]}]",
        &[
            ("GET /blog/7", "", "", 301, ".localhost", "upstream"),
            ("GET /v1/x?utm_source=a", "", "", 200, "get /api/v1/x\r\n", "utm"),
        ],
    ),
    (
        // A client that is not welcome, and a trial for those with a cookie.
        "on_http_request: [{expressions: [\"req.user_agent.contains('BadBot')\"], actions: \
         [{type: deny}]}, {expressions: [\"hasReqCookie('beta')\"], actions: [{type: url-rewrite, \
         config: {to: '/beta${req.url.path}'}}]}]",
        &[
            ("GET /", "User-Agent: BadBot/1\r\n", "", 403, "", "upstream"),
            ("GET /x", "User-Agent: a\r\nCookie: beta=1\r\n", "", 200, "get /beta/x\r\n", ""),
            ("GET /x", "User-Agent: a\r\n", "", 200, "get /x\r\n", ""),
        ],
    ),
    (
        // Only from a time on, and for a part of the visitors.
        "on_http_request: [{expressions: [\"timestamp(time.now) > \
         timestamp('2020-01-01T00:00:00Z')\", 'rand.double() < 2.0'], actions: [{type: \
         add-headers, config: {headers: {x-new: 'yes'}}}, {type: log, config: {metadata: {path: \
         '${req.url.path}'}}}]}]",
        &[("GET /", "", "", 200, "x-new: yes", "")],
    ),
    (
        // The older names of the phases.
        "inbound: [{actions: [{type: add-headers, config: {headers: {x-in: '1'}}}]}]\n\
         outbound: [{actions: [{type: add-headers, config: {headers: {x-out: '2'}}}]}]",
        &[("GET /", "", "", 200, "x-in: 1", ""), ("GET /", "", "", 200, "x-out: 2", "")],
    ),
];

#[test]
fn policies_of_the_usual_kinds_do_what_they_are_for() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        let line = |(name, value): &(String, String)| format!("{name}: {value}\r\n");
        let fields = request.fields.iter().map(line).collect::<String>();
        let (method, target) = (request.method(), request.target());
        let body = format!("upstream {method} {target}\r\n{fields}{}", request.text());
        let status = if target == "/fail" { "500 Internal Server Error" } else { "200 OK" };
        let kind = "Content-Type: text/plain\r\nX-Powered-By: x\r\n";
        wire.respond(status, kind, body.as_bytes())
    });
    let endpoint = |(n, (policy, _)): (usize, &(&str, &[Check]))| {
        let policy: serde_json::Value = serde_yaml::from_str(policy).expect(policy);
        json!({ "name": format!("s{n}"), "url": format!("http://s{n}.localhost"),
            "upstream": { "url": upstream.addr.to_string() }, "traffic_policy": policy })
    };
    let endpoints: Vec<_> = SHAPES.iter().enumerate().map(endpoint).collect();
    let config = edge.config_with(&format!("endpoints: {}\n", json!(endpoints)));
    let _agent = agent(&config, ["start", "--all"]).expect(SHAPES.len()).start();
    for (n, (policy, checks)) in SHAPES.iter().enumerate() {
        let url = format!("http://s{n}.localhost:{}", edge.http.port());
        for (line, fields, body, status, has, lacks) in *checks {
            let (method, target) = line.split_once(' ').unwrap();
            let mut visitor = Visitor::connect(&edge, &url);
            let response = visitor.ask(method, target, fields, body.as_bytes());
            let line = |(name, value): &(String, String)| format!("{name}: {value}\r\n");
            let fields = response.fields.iter().map(line).collect::<String>();
            let text = (fields + &response.text()).to_lowercase();
            assert_eq!(response.status(), *status, "{target}: {text}\n{policy}");
            assert!(text.contains(has), "{target}: {has:?} is not in {text}\n{policy}");
            assert!(lacks.is_empty() || !text.contains(lacks), "{lacks:?} is in {text}\n{policy}");
        }
    }
}
