//! The status screen as lines, from a snapshot and a size. Only the layout is decided here,
//! without terminal, clock and agent.

use std::fmt::Write as _;
use std::time::Duration;

use super::text;
use crate::sys::console::LocalTime;

/// Content of the screen at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The program's name.
    pub program: &'static str,
    /// Texts of the edge for the user, above the rest.
    pub banner: String,
    /// State of the session.
    pub session: SessionLine,
    /// Name of the account, and its plan.
    pub account: String,
    /// This program's version.
    pub version: &'static str,
    /// Region of the edge.
    pub region: String,
    /// Round trip time of the last heartbeat.
    pub latency: Option<Duration>,
    /// URL of the web page; empty without one.
    pub web: String,
    /// News about updates; empty without.
    pub update: String,
    /// The endpoints.
    pub forwarding: Vec<Forwarding>,
    /// Figures of their connections.
    pub connections: Connections,
    /// Captured requests, the newest first. `None`: capture is disabled.
    pub requests: Option<Vec<RequestRow>>,
}

/// State of the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SessionLine {
    /// No session yet.
    #[default]
    Connecting,
    /// A session is set up.
    Online,
    /// A session was lost, or an attempt failed. With the reason.
    Failing(&'static str, String),
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Its public URL, or its name before the first bind.
    pub url: String,
    /// Destination of its visitors.
    pub upstream: String,
    /// Reason why it is not up; empty while it is.
    pub trouble: String,
}

impl Forwarding {
    fn text(&self) -> String {
        match self.trouble.as_str() {
            "" => format!("{} -> {}", self.url, self.upstream),
            trouble => format!("{}: {trouble}", self.url),
        }
    }

    fn width(&self) -> usize {
        text::width(&self.text())
    }
}

/// Figures of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Connections {
    /// Number since the start.
    pub total: u64,
    /// Number of open ones.
    pub open: u64,
    /// Number a second, over one and over five minutes.
    pub rates: [f64; 2],
    /// Duration in seconds: the 50th and the 90th percentile.
    pub percentiles: [f64; 2],
}

/// One captured request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// Time of the request.
    pub time: LocalTime,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Status of the response; 0 before it is known.
    pub status: u16,
}

/// Style of a piece of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Normal text.
    Plain,
    /// A title.
    Bold,
    /// A good state.
    Good,
    /// A state that needs attention.
    Warn,
    /// An error.
    Bad,
    /// A URL.
    Link,
}

/// Pieces from left to right.
pub type StyledLine = Vec<(Style, String)>;

/// Width of the column of names, on a wide screen and on others.
const NAMES: usize = 30;
const NARROW_NAMES: usize = 16;

/// Width from which on a screen is wide.
const WIDE: usize = 60;

/// Returns the lines of a screen: at most `height`, each at most `width` columns.
pub fn lines(snapshot: &Snapshot, width: usize, height: usize) -> Vec<StyledLine> {
    // The column of names becomes smaller for a URL that would be truncated otherwise.
    let longest = snapshot.forwarding.iter().map(Forwarding::width).max().unwrap_or(0);
    let wide = width >= WIDE && (longest + NAMES <= width || longest + NARROW_NAMES > width);
    let layout = Layout { width, names: if wide { NAMES } else { NARROW_NAMES } };
    let mut out = vec![layout.title(snapshot.program)];
    let banner: Vec<StyledLine> = snapshot.banner.lines().take(4).map(|l| layout.line(l)).collect();
    let facts = layout.facts(snapshot);
    let connections = layout.connections(&snapshot.connections);
    // From the bottom up: parts that a low screen has no room for.
    let blanks = 2 + usize::from(!banner.is_empty());
    let mut forwarding = layout.forwarding(&snapshot.forwarding);
    let fixed = 1 + banner.len() + facts.len();
    let whole = fixed + forwarding.len() + connections.len() + blanks;
    let airy = whole <= height;
    let blank = |out: &mut Vec<StyledLine>| airy.then(|| out.push(StyledLine::new()));
    blank(&mut out);
    if airy && !banner.is_empty() {
        out.extend(banner);
        blank(&mut out);
    }
    out.extend(facts);
    let room = height.saturating_sub(out.len());
    if forwarding.len() > room {
        let left = forwarding.len() + 1 - room.min(forwarding.len());
        forwarding.truncate(room.saturating_sub(1));
        if room > 0 {
            forwarding.push(layout.pair("", Style::Plain, &format!("and {left} more")));
        }
    }
    out.extend(forwarding);
    if airy || out.len() + connections.len() <= height {
        blank(&mut out);
        out.extend(connections);
    }
    // A heading needs at least one line below it.
    if let Some(requests) = &snapshot.requests
        && out.len() + 4 <= height
        && !requests.is_empty()
    {
        out.push(StyledLine::new());
        out.push(layout.heading("HTTP Requests"));
        out.push(layout.heading("-------------"));
        let room = height - out.len();
        out.extend(requests.iter().take(room).map(|request| layout.request(request)));
    }
    out.truncate(height);
    out
}

struct Layout {
    width: usize,
    names: usize,
}

impl Layout {
    fn line(&self, text: &str) -> StyledLine {
        self.piece(Style::Plain, text, self.width)
    }

    fn heading(&self, text: &str) -> StyledLine {
        self.piece(Style::Plain, text, self.width)
    }

    fn piece(&self, style: Style, text: &str, room: usize) -> StyledLine {
        let mut out = String::new();
        text::put(&mut out, text, room);
        vec![(style, out)]
    }

    fn title(&self, program: &str) -> StyledLine {
        let hint = "(Ctrl+C to quit)";
        let mut title = self.piece(Style::Bold, program, self.width);
        let used = text::width(program);
        if used + 1 + hint.len() <= self.width {
            title.push((Style::Plain, format!("{hint:>room$}", room = self.width - used)));
        }
        title
    }

    /// Returns a name and its value, each in its column.
    fn pair(&self, name: &str, style: Style, value: &str) -> StyledLine {
        let room = self.width.saturating_sub(self.names);
        let names = self.names.min(self.width);
        let mut line = self.piece(Style::Plain, name, names);
        if let Some((_, text)) = line.first_mut() {
            let gap = names.saturating_sub(text::width(text));
            text.extend(std::iter::repeat_n(' ', gap));
        }
        line.extend(self.piece(style, value, room));
        line
    }

    fn facts(&self, s: &Snapshot) -> Vec<StyledLine> {
        let (style, session) = match &s.session {
            SessionLine::Connecting => (Style::Warn, "connecting".to_owned()),
            SessionLine::Online => (Style::Good, "online".to_owned()),
            SessionLine::Failing(state, why) if why.is_empty() => (Style::Bad, (*state).to_owned()),
            SessionLine::Failing(state, why) => (Style::Bad, format!("{state} ({why})")),
        };
        let latency = s.latency.map(duration).unwrap_or_default();
        let facts = [
            ("Session Status", style, session.as_str()),
            ("Account", Style::Plain, &s.account),
            ("Version", Style::Plain, s.version),
            ("Region", Style::Plain, &s.region),
            ("Latency", Style::Plain, &latency),
            ("Web Interface", Style::Link, &s.web),
            ("Update", Style::Warn, &s.update),
        ];
        let told = facts.into_iter().filter(|(_, _, value)| !value.is_empty());
        told.map(|(name, style, value)| self.pair(name, style, value)).collect()
    }

    fn forwarding(&self, endpoints: &[Forwarding]) -> Vec<StyledLine> {
        let lines = endpoints.iter().map(|f| {
            let style = if f.trouble.is_empty() { Style::Plain } else { Style::Bad };
            self.pair("Forwarding", style, &f.text())
        });
        lines.collect()
    }

    fn connections(&self, c: &Connections) -> Vec<StyledLine> {
        let mut names = String::new();
        let step = (self.width.saturating_sub(self.names) / 6).min(8);
        for name in ["ttl", "opn", "rt1", "rt5", "p50", "p90"] {
            let _ = write!(names, "{name:<step$}");
        }
        let mut values = String::new();
        for count in [c.total, c.open] {
            let _ = write!(values, "{count:<step$}");
        }
        for value in c.rates.into_iter().chain(c.percentiles) {
            let _ = write!(values, "{value:<step$.2}");
        }
        vec![
            self.pair("Connections", Style::Plain, names.trim_end()),
            self.pair("", Style::Plain, values.trim_end()),
        ]
    }

    fn request(&self, r: &RequestRow) -> StyledLine {
        let t = r.time;
        let mut status = String::new();
        let style = match r.status {
            0 => Style::Plain,
            100..400 => Style::Good,
            400..500 => Style::Warn,
            _ => Style::Bad,
        };
        if r.status > 0 {
            let _ = write!(status, "{} {}", r.status, reason(r.status));
        }
        let status = status.trim_end();
        let sign = if t.offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (t.offset.abs() / 60, t.offset.abs() % 60);
        let mut head = match self.width >= WIDE {
            true => {
                format!(
                    "{:02}:{:02}:{:02} {sign}{hours:02}{minutes:02} ",
                    t.hour, t.minute, t.second
                )
            }
            false => String::new(),
        };
        // Method and path have the columns that the status leaves. With few columns the status
        // is preferred.
        let column = self.width.saturating_sub(text::width(status).max(25) + 1);
        let room = column.max(self.width / 2);
        let used = text::width(&head);
        let mut named = String::new();
        let _ = write!(named, "{:<7} {}", r.method, r.path);
        let used = used + text::put(&mut head, &named, room.saturating_sub(used));
        let start = (room + 1).min(self.width);
        head.extend(std::iter::repeat_n(' ', start.saturating_sub(used)));
        let mut line = vec![(Style::Plain, head)];
        line.extend(self.piece(style, status, self.width - start));
        line
    }
}

/// Returns a latency for display, with at most three digits.
fn duration(d: Duration) -> String {
    let us = d.as_micros();
    match us {
        0..1_000 => format!("{us}us"),
        1_000..10_000 => format!("{:.1}ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{}ms", us / 1_000),
        _ => format!("{:.1}s", d.as_secs_f64()),
    }
}

/// Returns the usual text of a status; empty for others.
fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(second: i32) -> LocalTime {
        LocalTime { year: 2026, month: 11, day: 24, hour: 9, minute: 5, second, offset: 60 }
    }

    fn busy() -> Snapshot {
        let request = |second, method: &str, path: &str, status| RequestRow {
            time: time(second),
            method: method.to_owned(),
            path: path.to_owned(),
            status,
        };
        Snapshot {
            program: "culvert",
            session: SessionLine::Online,
            account: "Ada (Plan: Free)".to_owned(),
            version: "0.1.0",
            region: "Europe (eu)".to_owned(),
            latency: Some(Duration::from_micros(23_400)),
            web: "http://127.0.0.1:4040".to_owned(),
            forwarding: vec![
                Forwarding {
                    url: "https://app.example.com".to_owned(),
                    upstream: "http://localhost:8080".to_owned(),
                    trouble: String::new(),
                },
                Forwarding {
                    url: "ssh".to_owned(),
                    trouble: "the address is taken".to_owned(),
                    ..Forwarding::default()
                },
            ],
            connections: Connections {
                total: 12,
                open: 1,
                rates: [0.215, 0.1],
                percentiles: [0.004, 1.5],
            },
            requests: Some(vec![
                request(7, "GET", "/pending", 0),
                request(6, "DELETE", "/api/orders/7?dry=1", 204),
                request(
                    5,
                    "GET",
                    "/a/path/that/is/much/too/long/for/a/screen/of/eighty/columns",
                    502,
                ),
            ]),
            ..Snapshot::default()
        }
    }

    fn text(lines: &[StyledLine]) -> String {
        let joined = lines.iter().map(|line| {
            let text: String = line.iter().map(|(_, piece)| piece.as_str()).collect();
            text.trim_end().to_owned() + "\n"
        });
        joined.collect()
    }

    #[test]
    fn a_busy_screen_of_80_by_24() {
        let expected = "\
culvert                                                         (Ctrl+C to quit)

Session Status                online
Account                       Ada (Plan: Free)
Version                       0.1.0
Region                        Europe (eu)
Latency                       23ms
Web Interface                 http://127.0.0.1:4040
Forwarding                    https://app.example.com -> http://localhost:8080
Forwarding                    ssh: the address is taken

Connections                   ttl     opn     rt1     rt5     p50     p90
                              12      1       0.21    0.10    0.00    1.50

HTTP Requests
-------------
09:05:07 +0100 GET     /pending
09:05:06 +0100 DELETE  /api/orders/7?dry=1             204 No Content
09:05:05 +0100 GET     /a/path/that/is/much/too/lon... 502 Bad Gateway
";
        assert_eq!(text(&lines(&busy(), 80, 24)), expected);
    }

    #[test]
    fn names_give_way_to_a_long_url() {
        let mut snapshot = busy();
        snapshot.forwarding[0].url = "https://a-rather-long-name.example.com:8443".to_owned();
        let text = text(&lines(&snapshot, 80, 24));
        let line =
            "Forwarding      https://a-rather-long-name.example.com:8443 -> http://localhost...";
        assert!(!text.contains(line) && text.contains("Version                       0"), "{text}");
        snapshot.forwarding[0].url = "https://a-rather-long-name.example.com".to_owned();
        let text = super::tests::text(&lines(&snapshot, 80, 24));
        let line =
            "Forwarding      https://a-rather-long-name.example.com -> http://localhost:8080\n";
        assert!(text.contains(line) && text.contains("Version         0"), "{text}");
    }

    #[test]
    fn a_session_that_is_away_says_why_in_red() {
        let snapshot = Snapshot {
            session: SessionLine::Failing("reconnecting", "connection refused".to_owned()),
            ..busy()
        };
        let lines = lines(&snapshot, 80, 24);
        let wanted = (Style::Bad, "reconnecting (connection refused)".to_owned());
        assert!(lines.iter().flatten().any(|piece| *piece == wanted));
    }

    #[test]
    fn no_session_yet() {
        let snapshot = Snapshot { program: "culvert", version: "0.1.0", ..Snapshot::default() };
        let expected = "\
culvert                                   (Ctrl+C to quit)

Session Status  connecting
Version         0.1.0

Connections     ttl    opn    rt1    rt5    p50    p90
                0      0      0.00   0.00   0.00   0.00
";
        assert_eq!(text(&lines(&snapshot, 58, 24)), expected);
    }

    #[test]
    fn a_low_screen_keeps_what_matters_most() {
        let rows = |height| text(&lines(&busy(), 80, height));
        // Without room for a request the heading is omitted.
        assert!(!rows(15).contains("HTTP Requests") && rows(15).contains("ttl"));
        assert!(rows(17).contains("/pending") && !rows(17).contains("DELETE"));
        // Then the blank lines are omitted, then the figures, then all but some endpoints.
        assert!(!rows(12).contains("\n\n") && rows(12).contains("ttl"));
        assert!(!rows(10).contains("ttl") && rows(10).contains("ssh: the address"));
        assert!(rows(8).contains("and 2 more"));
        assert!(rows(2).contains("online"));
        assert_eq!(rows(1).lines().count(), 1);
        assert_eq!(rows(0), "");
    }

    #[test]
    fn many_endpoints_leave_the_facts_in_sight() {
        let one = busy().forwarding[0].clone();
        let snapshot = Snapshot { forwarding: vec![one; 40], ..busy() };
        let shown = text(&lines(&snapshot, 80, 24));
        assert_eq!(shown.lines().count(), 24);
        assert!(shown.contains("online") && shown.contains("and 24 more"), "{shown}");
    }

    #[test]
    fn no_size_is_too_small_and_nothing_is_too_wide() {
        let mut snapshot = busy();
        snapshot.banner = "a banner\nof \x1b[31m two lines 日本語".to_owned();
        snapshot.account = "名前".repeat(40);
        for width in 0..130 {
            for height in 0..30 {
                let lines = lines(&snapshot, width, height);
                assert!(lines.len() <= height);
                for line in &lines {
                    let total: usize = line.iter().map(|(_, piece)| text::width(piece)).sum();
                    assert!(total <= width, "{total} of {width}: {line:?}");
                    assert!(line.iter().all(|(_, piece)| !piece.contains(char::is_control)));
                }
            }
        }
    }

    #[test]
    fn latencies_are_short() {
        let text = |us| duration(Duration::from_micros(us));
        assert_eq!(
            [0, 850, 1_234, 23_999, 1_500_000].map(text),
            ["0us", "850us", "1.2ms", "23ms", "1.5s"]
        );
    }
}
