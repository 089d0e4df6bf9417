//! The commands and their flags: the one definition of both. Parsing, help and
//! hints are made from it, and so will completion be.
//!
//! Doc comments here are what `--help` shows. A flag that takes a value names it
//! in `arg_name`; a hidden one works and is not listed. The global flags may stand
//! anywhere: [`super::words`] drops them for a command that has no use for them.

use argh::{ArgsInfo, FromArgs};

use crate::config::Kind;

/// put local services on public URLs
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    help_triggers("--help"),
    example = "culvert config add-authtoken TOKEN",
    example = "culvert http 8080",
    example = "culvert http --url https://app.example.com localhost:3000",
    example = "culvert tcp 22",
    example = "culvert start --all",
    error_code(0, "fine, or ended by Ctrl-C or SIGTERM"),
    error_code(1, "it failed, or the edge refused for good"),
    error_code(2, "the command line is wrong")
)]
pub struct Culvert {
    /// print the version
    #[argh(switch, short = 'v')]
    pub version: bool,
    #[argh(subcommand)]
    pub command: Option<Command>,
}

#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(subcommand)]
pub enum Command {
    Http(Http),
    Tcp(Tcp),
    Tls(Tls),
    Start(Start),
    Config(Config),
    Version(Version),
}

/// What one endpoint of the command line is made of.
#[derive(Debug, Default)]
pub struct EndpointFlags {
    pub addr: String,
    pub url: Option<String>,
    pub name: Option<String>,
    pub description: Option<String>,
    pub metadata: Option<String>,
    pub binding: Vec<String>,
    pub pooling_enabled: bool,
    pub traffic_policy_file: Option<String>,
    pub upstream_protocol: Option<String>,
    pub upstream_proxy_protocol: Option<String>,
    pub upstream_tls_verify: bool,
    pub upstream_tls_verify_cas: Option<String>,
    pub session: SessionFlags,
}

/// What every command has that runs or reads something.
#[derive(Clone, Debug, Default)]
pub struct SessionFlags {
    pub authtoken: Option<String>,
    pub region: Option<String>,
    pub config: Vec<String>,
    pub log: Option<String>,
    pub log_level: Option<String>,
    pub log_format: Option<String>,
}

/// The commands of one endpoint differ in their words only, and in whether the help
/// lists `--upstream-protocol`: all take it, to say what it is for.
macro_rules! endpoint_command {
    ($(#[$about:meta])* $name:ident, $kind:expr, $address:literal $(, $protocol:ident)?) => {
        #[derive(ArgsInfo, FromArgs, Debug)]
        $(#[$about])*
        pub struct $name {
            #[argh(positional, arg_name = "ADDR")]
            #[doc = $address]
            pub addr: String,
            /// the public URL wanted; without it a random one
            #[argh(option, arg_name = "URL")]
            pub url: Option<String>,
            /// name of the endpoint (default command_line)
            #[argh(option, arg_name = "NAME")]
            pub name: Option<String>,
            /// free text for display
            #[argh(option, arg_name = "TEXT")]
            pub description: Option<String>,
            /// free text of the endpoint
            #[argh(option, arg_name = "TEXT")]
            pub metadata: Option<String>,
            /// public, internal or kubernetes
            #[argh(option, arg_name = "BINDING")]
            pub binding: Vec<String>,
            /// share the URL with other endpoints
            #[argh(switch)]
            pub pooling_enabled: bool,
            /// policy for the edge, YAML or JSON
            #[argh(option, arg_name = "FILE")]
            pub traffic_policy_file: Option<String>,
            /// http1 or http2, for http endpoints
            #[argh(option, arg_name = "PROTOCOL" $(, $protocol)?)]
            pub upstream_protocol: Option<String>,
            /// tell the service the visitor's address; 1 or 2
            #[argh(option, arg_name = "N")]
            pub upstream_proxy_protocol: Option<String>,
            /// check the certificate of the service
            #[argh(switch)]
            pub upstream_tls_verify: bool,
            /// check it against these PEM certificates
            #[argh(option, arg_name = "FILE")]
            pub upstream_tls_verify_cas: Option<String>,
            /// credential; over NGROK_AUTHTOKEN and the file
            #[argh(option, arg_name = "TOKEN")]
            pub authtoken: Option<String>,
            /// ignored: the edge is what connect_url says
            #[argh(option, arg_name = "REGION", hidden_help)]
            pub region: Option<String>,
            /// configuration file, repeatable
            #[argh(option, arg_name = "FILE")]
            pub config: Vec<String>,
            /// stdout, stderr, false or a file
            #[argh(option, arg_name = "TARGET")]
            pub log: Option<String>,
            /// debug, info, warn, error or crit
            #[argh(option, arg_name = "LEVEL")]
            pub log_level: Option<String>,
            /// term, logfmt or json
            #[argh(option, arg_name = "FORMAT")]
            pub log_format: Option<String>,
        }

        impl $name {
            /// As a kind and what all kinds have.
            pub fn split(self) -> (Kind, EndpointFlags) {
                let session = SessionFlags {
                    authtoken: self.authtoken,
                    region: self.region,
                    config: self.config,
                    log: self.log,
                    log_level: self.log_level,
                    log_format: self.log_format,
                };
                let flags = EndpointFlags {
                    addr: self.addr,
                    url: self.url,
                    name: self.name,
                    description: self.description,
                    metadata: self.metadata,
                    binding: self.binding,
                    pooling_enabled: self.pooling_enabled,
                    traffic_policy_file: self.traffic_policy_file,
                    upstream_protocol: self.upstream_protocol,
                    upstream_proxy_protocol: self.upstream_proxy_protocol,
                    upstream_tls_verify: self.upstream_tls_verify,
                    upstream_tls_verify_cas: self.upstream_tls_verify_cas,
                    session,
                };
                ($kind, flags)
            }
        }
    };
}

endpoint_command! {
    /// put an HTTP service or a directory on a public URL
    #[argh(
        subcommand,
        name = "http",
        help_triggers("--help"),
        example = "culvert http 8080",
        example = "culvert http --url https://app.example.com localhost:3000",
        example = "culvert http https://192.168.1.1",
        example = "culvert http file:///var/www"
    )]
    Http, Kind::Http, "8080, HOST:PORT, http://HOST, https://HOST or file:///DIR"
}

endpoint_command! {
    /// put a TCP service on a public address
    #[argh(
        subcommand,
        name = "tcp",
        help_triggers("--help"),
        example = "culvert tcp 22",
        example = "culvert tcp --url tcp://1.tcp.example.com:12345 192.168.1.5:5432"
    )]
    Tcp, Kind::Tcp, "22, HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT", hidden_help
}

endpoint_command! {
    /// put a TLS service on a public name; the service holds the certificate
    #[argh(
        subcommand,
        name = "tls",
        help_triggers("--help"),
        example = "culvert tls 443",
        example = "culvert tls --url tls://app.example.com localhost:8443"
    )]
    Tls, Kind::Tls, "443, HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT", hidden_help
}

/// start endpoints of the configuration file
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "start",
    help_triggers("--help"),
    example = "culvert start web ssh",
    example = "culvert start --all --log stdout",
    example = "culvert start --none"
)]
pub struct Start {
    /// names of endpoints
    #[argh(positional, arg_name = "NAME")]
    pub names: Vec<String>,
    /// every endpoint of the file
    #[argh(switch)]
    pub all: bool,
    /// connect without endpoints
    #[argh(switch)]
    pub none: bool,
    /// free text of the session
    #[argh(option, arg_name = "TEXT")]
    pub metadata: Option<String>,
    /// credential; over NGROK_AUTHTOKEN and the file
    #[argh(option, arg_name = "TOKEN")]
    pub authtoken: Option<String>,
    /// ignored: the edge is what connect_url says
    #[argh(option, arg_name = "REGION", hidden_help)]
    pub region: Option<String>,
    /// configuration file, repeatable
    #[argh(option, arg_name = "FILE")]
    pub config: Vec<String>,
    /// stdout, stderr, false or a file
    #[argh(option, arg_name = "TARGET")]
    pub log: Option<String>,
    /// debug, info, warn, error or crit
    #[argh(option, arg_name = "LEVEL")]
    pub log_level: Option<String>,
    /// term, logfmt or json
    #[argh(option, arg_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// check or change the configuration file
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "config",
    help_triggers("--help"),
    example = "culvert config add-authtoken TOKEN",
    example = "culvert config check"
)]
pub struct Config {
    #[argh(subcommand)]
    pub command: ConfigCommand,
}

#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(subcommand)]
pub enum ConfigCommand {
    AddAuthtoken(AddAuthtoken),
    Check(Check),
}

/// save the authtoken in the configuration file; the rest stays as it is
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "add-authtoken",
    help_triggers("--help"),
    example = "culvert config add-authtoken TOKEN",
    example = "culvert config add-authtoken - < token.txt",
    note = "The file is made with mode 0600 if it does not exist. A token given as\n\
            an argument is in the shell's history; - reads it from standard input."
)]
pub struct AddAuthtoken {
    /// the token, or - to read it from standard input
    #[argh(positional, arg_name = "TOKEN")]
    pub token: String,
    /// the file to change
    #[argh(option, arg_name = "FILE")]
    pub config: Vec<String>,
}

/// say where the configuration file is and whether it is valid
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "check",
    help_triggers("--help"),
    example = "culvert config check",
    example = "culvert config check --config my.yml"
)]
pub struct Check {
    /// the file to check, repeatable
    #[argh(option, arg_name = "FILE")]
    pub config: Vec<String>,
}

/// print the version
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(subcommand, name = "version", help_triggers("--help"), example = "culvert version")]
pub struct Version {}
