//! Fetches a small file over HTTP: a list of revoked certificates, a policy. Only GET.
//! Every step ends by one deadline, and every size is bounded.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::http_message::{ResponseReader, Url};
use super::proxy_env::ProxySettings;
use super::resolver::Resolver;
use super::timed_stream::TimedStream;
use super::{dial, proxy_tunnel};
use crate::config::Cas;
use crate::features;
use crate::proto::secret::Secret;
use crate::time::Deadline;
use crate::tls::client;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 3;

/// Opens a connection to a host and port by a deadline.
pub type Connector<'a> = &'a dyn Fn(&str, u16, Deadline) -> io::Result<TimedStream>;

/// The body behind a `http://` or `https://` URL, at most `limit` bytes of it,
/// all by `deadline`. Redirects are followed, but never from `https` to `http`;
/// certificates are checked against the system's roots; a proxy is used if the
/// environment names one. Any status but 200 is an
/// error; errors name the host.
pub fn get(url: &str, limit: usize, deadline: Deadline) -> io::Result<Vec<u8>> {
    if !features::FETCH {
        return Err(invalid(features::NO_FETCH.to_owned()));
    }
    get_with(&connect_by_environment, url, limit, deadline)
}

/// By way of the proxy that the environment names, if it does.
fn connect_by_environment(host: &str, port: u16, deadline: Deadline) -> io::Result<TimedStream> {
    let environment = |name: &str| std::env::var(name).ok();
    let proxies = ProxySettings::new(&Secret::default(), &environment).map_err(invalid)?;
    let tcp = match proxies.proxy_for(host, port) {
        None => connect_directly(host, port, deadline)?,
        Some(proxy) => proxy_tunnel::open(proxy, &connect_directly, host, port, deadline)?,
    };
    Ok(TimedStream::new(tcp, deadline))
}

fn connect_directly(host: &str, port: u16, deadline: Deadline) -> io::Result<TcpStream> {
    let resolver = Resolver::new(Vec::new(), Vec::new(), "");
    let found = resolver.resolve(host, false, &[], deadline).map_err(invalid)?;
    let addresses: Vec<_> = found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    dial::race(&addresses, "", deadline)
}

/// The same over connections that `connect` makes.
pub fn get_with(
    connect: Connector<'_>,
    url: &str,
    limit: usize,
    deadline: Deadline,
) -> io::Result<Vec<u8>> {
    let mut url = Url::parse(url).map_err(invalid)?;
    for _ in 0..=MAX_REDIRECTS {
        let response = get_once(connect, &url, limit, deadline)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", url.authority())))?;
        match (response.status, response.location) {
            (200, _) => return Ok(response.body),
            (301 | 302 | 303 | 307 | 308, Some(location)) => {
                let next = url.join(&location).map_err(invalid)?;
                if url.secure && !next.secure {
                    return Err(invalid(format!(
                        "{} redirects from https to http: not followed",
                        url.authority()
                    )));
                }
                url = next;
            }
            (status, _) => {
                return Err(invalid(format!(
                    "{} answered {status} where 200 was expected",
                    url.authority()
                )));
            }
        }
    }
    Err(invalid(format!("{} redirects too often", url.authority())))
}

fn get_once(
    connect: Connector<'_>,
    url: &Url,
    limit: usize,
    deadline: Deadline,
) -> io::Result<ResponseReader> {
    let mut stream = connect(&url.host, url.port, deadline)?;
    if url.secure {
        stream = stream.secure(&url.host, client::web_config(&Cas::Host)?)?;
    }
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: culvert/{}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        url.target,
        url.authority(),
        env!("CARGO_PKG_VERSION"),
    );
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut response = ResponseReader::new(limit);
    let mut piece = [0; 2_048];
    loop {
        let n = stream.read(&mut piece)?;
        if n == 0 {
            response.end().map_err(invalid)?;
            return Ok(response);
        }
        // Reason for the index: a reader returns at most the length it was given.
        if response.feed(&piece[..n]).map_err(invalid)? {
            return Ok(response);
        }
    }
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

#[cfg(all(test, feature = "fetch"))]
mod tests {
    use super::*;
    use crate::sys;
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    /// A server that gives these answers, one a connection; its port.
    fn server(answers: Vec<String>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for response in answers {
                let (mut socket, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() == 1 {
                    head.push(byte[0]);
                }
                socket.write_all(response.as_bytes()).unwrap();
            }
        });
        port
    }

    fn fetch(port: u16, limit: usize) -> Result<String, String> {
        let deadline = Deadline::At(sys::clock() + Duration::from_secs(20));
        let body = get(&format!("http://127.0.0.1:{port}/a/b"), limit, deadline);
        body.map(|b| String::from_utf8(b).unwrap()).map_err(|e| e.to_string())
    }

    fn redirect(to: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
    }

    #[test]
    fn a_file_behind_redirects() {
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody".to_owned();
        let answers = vec![redirect("/x"), redirect("y"), redirect("z?"), good];
        assert_eq!(fetch(server(answers), 4), Ok("body".to_owned()));
    }

    #[test]
    fn what_is_no_file() {
        let cases = [
            (vec![redirect("/a"); 4], "redirects too often"),
            (vec!["HTTP/1.1 404 Not Found\r\n\r\nno".to_owned()], "404"),
            (vec!["HTTP/1.1 200 OK\r\n\r\nhello".to_owned()], "larger than 4"),
            (vec![redirect("ftp://x/")], "not a http"),
            (vec![String::new()], "no answer"),
        ];
        for (answers, what) in cases {
            let error = fetch(server(answers), 4).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }
}
