//! Definition of all commands and flags. Parsing, help, suggestions and completion use it;
//! nothing is defined elsewhere.
//!
//! A flag has one form in all commands. Whether it has a value does not depend on the command,
//! so it may precede the command.

use crate::config::UPDATE_CHANNELS;
use crate::features;

/// A command, or a group of them.
#[derive(Clone, Copy)]
pub(super) struct CommandSpec {
    /// As typed, with the name of its group: `config check`.
    pub(super) name: &'static str,
    /// Its bit in [`FlagSpec::on`].
    pub(super) bit: u32,
    /// Its arguments that are not flags.
    pub(super) words: Arguments,
    /// Whether help and completion omit it.
    pub(super) hidden: bool,
    /// Its description, for help.
    pub(super) about: &'static str,
    /// Examples with this program's name.
    pub(super) examples: &'static [&'static str],
    /// Further text for its own help.
    pub(super) notes: &'static str,
}

/// Arguments of a command that are not flags: their name and description.
#[derive(Clone, Copy)]
pub(super) enum Arguments {
    /// None, or the commands of a group.
    None,
    /// Exactly one.
    One(&'static str, &'static str),
    /// One or none. One of these if the list is not empty.
    Optional(&'static str, &'static str, &'static [&'static str]),
    /// Any number.
    Any(&'static str, &'static str),
    /// All words after the command, flags included: the command parses them.
    Rest(&'static str, &'static str),
}

/// A flag.
pub(super) struct FlagSpec {
    /// Without its hyphens.
    pub(super) name: &'static str,
    /// Its value.
    pub(super) value: FlagValue,
    /// Meaning of a repetition.
    pub(super) many: Repeat,
    /// Commands that accept it.
    pub(super) on: u32,
    /// Those of them that accept it only for compatibility: omitted in help, with a warning.
    pub(super) old: u32,
    /// Replacement in the warning.
    pub(super) instead: &'static str,
    /// Whether the value must not be visible in the list of processes.
    pub(super) secret: bool,
    /// Description for help. After a bar the description for the session or for a service, if it
    /// has that meaning.
    pub(super) about: &'static str,
}

/// The value of a flag.
#[derive(Clone, Copy)]
pub(super) enum FlagValue {
    /// None, or `true` or `false` after an equals sign.
    Switch,
    /// A text, with its name for help.
    Text(&'static str),
    /// The path of a file.
    Path(&'static str),
    /// One of these words.
    One(&'static str, &'static [&'static str]),
    /// Any text; these are the usual ones.
    Like(&'static str, &'static [&'static str]),
}

/// Meaning of a flag that occurs several times.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The last one is used.
    Last,
    /// All are used.
    Each,
    /// All are used, and a comma separates values.
    Commas,
}

pub(super) const ROOT: u32 = 1;
const HTTP: u32 = 1 << 1;
const TCP: u32 = 1 << 2;
const TLS: u32 = 1 << 3;
const START: u32 = 1 << 4;
const TUNNEL: u32 = 1 << 5;
const ADD: u32 = 1 << 6;
const CHECK: u32 = 1 << 7;
const EDIT: u32 = 1 << 8;
const UPGRADE: u32 = 1 << 9;
const COMPLETION: u32 = 1 << 10;
/// Commands without their own flags.
const PLAIN: u32 = 1 << 11;
const STATUS: u32 = 1 << 12;
const API: u32 = 1 << 16;
const INSTALL: u32 = 1 << 13;
const UNINSTALL: u32 = 1 << 14;
/// Commands that control the installed service.
const CONTROL: u32 = 1 << 15;
const UPDATE: u32 = 1 << 17;
const DIAGNOSE: u32 = 1 << 18;
/// Any command. Commands that do not need it ignore it.
pub(super) const ANYWHERE: u32 = 1 << 31;

/// Commands of one endpoint, with a URL.
const ENDPOINT: u32 = HTTP | TCP | TLS;
/// Commands that run the agent.
pub(super) const RUN: u32 = ENDPOINT | START | TUNNEL;
const FILES: u32 = ADD | CHECK | EDIT | UPGRADE | STATUS | INSTALL | UPDATE | DIAGNOSE;
/// Commands of a service, except the one that the service runs.
const SERVICE: u32 = INSTALL | UNINSTALL | CONTROL;

/// Commands that need the feature `tools`.
pub(super) const TOOLS: &[&str] =
    &["completion", "config edit", "config upgrade", "credits", "status"];

/// Flags of older agents, and their current names.
pub(super) const RENAMED: &[(&str, &str)] = &[("auth", "basic-auth"), ("bind-tls", "scheme")];

const ADDRESS: &str = "ADDR";
const HTTP_ADDRESS: &str = if features::FILES {
    "8080, HOST:PORT, http://HOST, https://HOST or file:///DIR"
} else {
    "8080, HOST:PORT, http://HOST or https://HOST"
};
const HTTP_EXAMPLES: &[&str] = if features::FILES {
    &[PORT_EXAMPLE, URL_EXAMPLE, "culvert http https://192.168.1.1", "culvert http file:///var/www"]
} else {
    &[PORT_EXAMPLE, URL_EXAMPLE, "culvert http https://192.168.1.1"]
};
const PORT_EXAMPLE: &str = "culvert http 8080";
const URL_EXAMPLE: &str = "culvert http --url https://app.example.com localhost:3000";
const BYTES_ADDRESS: &str = "a port, HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT";
const INIT_SYSTEMS: &[&str] = crate::service::NAMES;
const INIT_ABOUT: &str = "systemd, procd, openrc, runit, busybox or sysv (default: detected)";
const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// The commands, in the order of help.
pub(super) static COMMANDS: [CommandSpec; number(COMMAND_TABLES)] = joined(COMMAND_TABLES);

const COMMAND_TABLES: &[&[CommandSpec]] = &[
    BASIC_COMMANDS,
    API_COMMANDS,
    SERVICE_COMMANDS,
    DIAGNOSE_COMMAND,
    TOOL_COMMANDS,
    UPDATE_COMMANDS,
    &[VERSION],
];

const fn number(tables: &[&[CommandSpec]]) -> usize {
    let (mut table, mut sum) = (0, 0);
    while table < tables.len() {
        sum += tables[table].len();
        table += 1;
    }
    sum
}

/// Joins tables of commands at compile time: an omitted command needs no space.
const fn joined<const N: usize>(tables: &[&[CommandSpec]]) -> [CommandSpec; N] {
    let mut all = [VERSION; N];
    let (mut table, mut row, mut at) = (0, 0, 0);
    while table < tables.len() {
        if row == tables[table].len() {
            (table, row) = (table + 1, 0);
        } else {
            all[at] = tables[table][row];
            (row, at) = (row + 1, at + 1);
        }
    }
    all
}

const BASIC_COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "http",
        bit: HTTP,
        words: Arguments::One(ADDRESS, HTTP_ADDRESS),
        hidden: false,
        about: if features::FILES {
            "put an HTTP service or a directory on a public URL"
        } else {
            "put an HTTP service on a public URL"
        },
        examples: HTTP_EXAMPLES,
        notes: "",
    },
    CommandSpec {
        name: "tcp",
        bit: TCP,
        words: Arguments::One(ADDRESS, BYTES_ADDRESS),
        hidden: false,
        about: "put a TCP service on a public address",
        examples: &[
            "culvert tcp 22",
            "culvert tcp --url tcp://1.tcp.example.com:12345 192.168.1.5:5432",
        ],
        notes: "",
    },
    CommandSpec {
        name: "tls",
        bit: TLS,
        words: Arguments::One(ADDRESS, BYTES_ADDRESS),
        hidden: false,
        about: "put a TLS service on a public name",
        examples: &[
            "culvert tls 443",
            "culvert tls --url tls://app.example.com localhost:8443",
            "culvert tls --terminate-at agent --crt cert.pem --key key.pem 8080",
        ],
        notes: "Without --crt and --key the service holds the certificate and the bytes of\n\
                visitors pass through. With them TLS ends at the edge, which gets the key,\n\
                or with --terminate-at agent here, where the key stays.",
    },
    CommandSpec {
        name: "start",
        bit: START,
        words: Arguments::Any("NAME", "names of endpoints"),
        hidden: false,
        about: "start endpoints of the configuration file",
        examples: &[
            "culvert start web ssh",
            "culvert start --all --log stdout",
            "culvert start --none",
        ],
        notes: "",
    },
    CommandSpec {
        name: "tunnel",
        bit: TUNNEL,
        words: Arguments::One(ADDRESS, "8080, HOST:PORT or a URL"),
        hidden: true,
        about: "serve visitors that the edge sends by labels",
        examples: &["culvert tunnel --label edge=edghts_1234 8080"],
        notes: "Deprecated: http, tcp and tls do the same with --url.",
    },
    CommandSpec {
        name: "config",
        bit: 0,
        words: Arguments::None,
        hidden: false,
        about: "check or change the configuration file",
        examples: &["culvert config add-authtoken TOKEN", "culvert config check"],
        notes: "",
    },
    CommandSpec {
        name: "config add-authtoken",
        bit: ADD,
        words: Arguments::One("TOKEN", "the token, or - to read it from standard input"),
        hidden: false,
        about: "save the authtoken in the configuration file",
        examples: &[
            "culvert config add-authtoken TOKEN",
            "culvert config add-authtoken - < token.txt",
        ],
        notes: "The rest of the file is not changed. The file gets mode 0600 if it is new or if\n\
                every user may read it. A token that is an argument stays in the shell's\n\
                history; - reads it from standard input.",
    },
    CommandSpec {
        name: "config check",
        bit: CHECK,
        words: Arguments::None,
        hidden: false,
        about: "print the path of the configuration file, and check it",
        examples: &["culvert config check", "culvert config check --config my.yml"],
        notes: "",
    },
    CommandSpec {
        name: "config add-api-key",
        bit: ADD,
        words: Arguments::One("KEY", "the key, or - to read it from standard input"),
        hidden: false,
        about: "save the key of the vendor's API in the configuration file",
        examples: &["culvert config add-api-key KEY"],
        notes: "",
    },
    CommandSpec {
        name: "config add-connect-url",
        bit: ADD,
        words: Arguments::One("HOST:PORT", "the edge"),
        hidden: false,
        about: "save the address of the edge in the configuration file",
        examples: &["culvert config add-connect-url edge.example.com:443"],
        notes: "",
    },
    CommandSpec {
        name: "config add-server-addr",
        bit: ADD,
        words: Arguments::One("HOST:PORT", "the edge"),
        hidden: true,
        about: "save the address of the edge in the configuration file",
        examples: &["culvert config add-server-addr edge.example.com:443"],
        notes: "The older name of add-connect-url.",
    },
];

/// The commands of the feature `api`.
const API_COMMANDS: &[CommandSpec] = if !features::API {
    &[]
} else {
    &[CommandSpec {
        name: "api",
        bit: API,
        words: Arguments::Rest(
            "RESOURCE ACTION [ID]",
            "as listed below; \"culvert api RESOURCE\" lists the actions",
        ),
        hidden: false,
        about: "call the REST API of ngrok's service or of an edge",
        examples: &[
            "culvert api endpoints list",
            "culvert api tunnel-sessions stop ts_2Xb0l5JHFtPvOMpPD",
            "culvert api credentials create --acl bind:*.example.com --description door",
        ],
        notes: "The key is that of --api-key, else of NGROK_API_KEY, else api_key of the\n\
                configuration. A key in the variable is not visible in the list of processes.\n\
                The address is that of --api-url, else of NGROK_API_BASE_URL, else api_url of\n\
                the configuration, else ngrok's. Standard output has only the JSON, standard\n\
                error has the status.",
    }]
};

const SERVICE_CONFIG: &str = "culvert service install --config /etc/culvert/culvert.yml";

/// Returns a command of `service` without arguments.
const fn service(
    name: &'static str,
    bit: u32,
    about: &'static str,
    examples: &'static [&'static str],
) -> CommandSpec {
    CommandSpec { name, bit, words: Arguments::None, hidden: false, about, examples, notes: "" }
}

/// The commands of the feature `service`.
const SERVICE_COMMANDS: &[CommandSpec] = if !features::SERVICE {
    &[]
} else {
    &[
        service(
            "service",
            0,
            "run the agent as a service of this machine",
            &[SERVICE_CONFIG, "culvert service start", "culvert service status"],
        ),
        CommandSpec {
            notes: "Refused for a configuration that cannot be started. Without --now the service\n\
                    starts at the next boot, or with service start; runit starts it at once.\n\
                    --root writes into an image and checks nothing of this machine.",
            ..service(
                "service install",
                INSTALL,
                "install the agent as a service",
                &[
                    SERVICE_CONFIG,
                    "culvert service install --now --user root --config /etc/culvert/culvert.yml",
                    "culvert service install --root image --init procd --config /etc/culvert/culvert.yml",
                ],
            )
        },
        service(
            "service uninstall",
            UNINSTALL,
            "stop and remove the service",
            &["culvert service uninstall"],
        ),
        service("service start", CONTROL, "start the service", &["culvert service start"]),
        service("service stop", CONTROL, "stop the service", &["culvert service stop"]),
        service(
            "service restart",
            CONTROL,
            "check the configuration, and restart the service",
            &["culvert service restart"],
        ),
        CommandSpec {
            notes: "Exit code 0: running, 1: dead, 3: stopped, 4: not installed, as in LSB. The\n\
                    session is asked as in culvert status.",
            ..service(
                "service status",
                CONTROL,
                "print the state of the service and of its session",
                &["culvert service status"],
            )
        },
        // The command of units that other agents have written.
        CommandSpec {
            hidden: true,
            ..service(
                "service run",
                START,
                "start every endpoint of the configuration file",
                &["culvert service run --config /etc/culvert/culvert.yml"],
            )
        },
        CommandSpec {
            hidden: true,
            ..service(
                "service check",
                INSTALL,
                "check the configuration of a service",
                &["culvert service check --config /etc/culvert/culvert.yml"],
            )
        },
    ]
};

/// The command of the feature `diagnose`.
const DIAGNOSE_COMMAND: &[CommandSpec] = if !features::DIAGNOSE {
    &[]
} else {
    &[CommandSpec {
        name: "diagnose",
        bit: DIAGNOSE,
        words: Arguments::None,
        hidden: false,
        about: "test the way to the edge, and name faults with what to do",
        examples: &[
            "culvert diagnose",
            "culvert diagnose --config my.yml --write-report report.json",
        ],
        notes: "Tests link, names, proxy, TCP, TLS and the tunnel protocol with the options of\n\
                the agent, also beside a running one. Exit code 0: the edge can be reached; 1: it\n\
                cannot. The report contains no secrets.",
    }]
};

/// The commands of the feature `tools`.
const TOOL_COMMANDS: &[CommandSpec] = if !features::TOOLS {
    &[]
} else {
    &[
        CommandSpec {
            name: "config edit",
            bit: EDIT,
            words: Arguments::None,
            hidden: false,
            about: "open the configuration file in an editor, and check it afterwards",
            examples: &["culvert config edit", "EDITOR=vi culvert config edit --config my.yml"],
            notes: "The editor is $EDITOR, else nano, else vi.",
        },
        CommandSpec {
            name: "config upgrade",
            bit: UPGRADE,
            words: Arguments::Optional("VERSION", "2 or 3 (default 3)", &["2", "3"]),
            hidden: false,
            about: "bring the configuration file to a newer version; comments stay",
            examples: &[
                "culvert config upgrade --dry-run",
                "culvert config upgrade",
                "culvert config upgrade --relocate",
            ],
            notes: "The old file is kept with .bak at the end of its name. The changes are shown\n\
                without secrets.",
        },
        CommandSpec {
            name: "status",
            bit: STATUS,
            words: Arguments::None,
            hidden: false,
            about: "print the session and the endpoints of the running agent",
            examples: &["culvert status", "culvert status --json"],
            notes: "Asks the local API at web_addr. Exit code 0: online; 3: not online, or no agent\n\
                is running.",
        },
        CommandSpec {
            name: "completion",
            bit: COMPLETION,
            words: Arguments::Optional(
                "SHELL",
                "bash, zsh or fish; by default that of $SHELL",
                SHELLS,
            ),
            hidden: false,
            about: "print a completion script for a shell",
            examples: &[
                "source <(culvert completion bash)",
                "culvert completion fish > ~/.config/fish/completions/culvert.fish",
            ],
            notes: "",
        },
        CommandSpec {
            name: "credits",
            bit: PLAIN,
            words: Arguments::None,
            hidden: false,
            about: "print authors and licences of this program's parts",
            examples: &["culvert credits"],
            notes: "",
        },
    ]
};

/// The command of the feature `update`.
const UPDATE_COMMANDS: &[CommandSpec] = if !features::UPDATE {
    &[]
} else {
    &[CommandSpec {
        name: "update",
        bit: UPDATE,
        words: Arguments::None,
        hidden: false,
        about: "replace this program by the newest one of a feed of your own",
        examples: &["culvert update --check", "culvert update --yes --restart"],
        notes: "The feed is update_url of the configuration, signed by update_key. Nothing is sent\n\
                without them. Exit code of --check: 0: nothing newer; 11: an update is available.",
    }]
};

const VERSION: CommandSpec = CommandSpec {
    name: "version",
    bit: PLAIN,
    words: Arguments::None,
    hidden: false,
    about: "print the version",
    examples: &["culvert version"],
    notes: "",
};

/// The program without a command.
pub(super) static PROGRAM: CommandSpec = CommandSpec {
    name: "",
    bit: ROOT,
    words: Arguments::None,
    hidden: false,
    about: "put local services on public URLs",
    examples: &[
        "culvert config add-authtoken TOKEN",
        PORT_EXAMPLE,
        URL_EXAMPLE,
        "culvert tcp 22",
        "culvert start --all",
    ],
    notes: "",
};

use FlagValue::{Like, One, Path, Switch, Text};
use Repeat::{Commas, Each};

const fn flag(name: &'static str, value: FlagValue, on: u32, about: &'static str) -> FlagSpec {
    let (many, secret) = (Repeat::Last, false);
    FlagSpec { name, value, many, on, old: 0, instead: "", secret, about }
}

/// Returns a flag that exists for compatibility only.
const fn old(name: &'static str, value: FlagValue, on: u32, instead: &'static str) -> FlagSpec {
    flag(name, value, on, "").old(on, instead)
}

impl FlagSpec {
    const fn many(self, many: Repeat) -> FlagSpec {
        FlagSpec { many, ..self }
    }

    const fn old(self, old: u32, instead: &'static str) -> FlagSpec {
        FlagSpec { old, instead, ..self }
    }

    const fn secret(self) -> FlagSpec {
        FlagSpec { secret: true, ..self }
    }

    /// Returns the commands whose help lists it.
    pub(super) fn listed(&self) -> u32 {
        self.on & !self.old
    }

    /// Returns whether every action of `api` accepts it.
    pub(super) fn is_of_api(&self) -> bool {
        self.on & (API | ANYWHERE) != 0
    }

    /// Returns whether it concerns the session before a command, and with `start`.
    pub(super) fn has_session(&self) -> bool {
        self.on & (ROOT | ANYWHERE) == ROOT
    }

    /// Returns its description for this command.
    pub(super) fn about(&self, command: &CommandSpec) -> &'static str {
        match self.about.split_once('|') {
            Some((_, other)) if command.bit & (ROOT | START | SERVICE) != 0 => other,
            Some((of_endpoint, _)) => of_endpoint,
            None => self.about,
        }
    }
}

const CHANNELS: &[&str] = &UPDATE_CHANNELS;
/// Regions of the vendor's service, the default one, and all of them.
pub(super) const REGIONS: &[&str] =
    &["auto", "us", "eu", "au", "ap", "sa", "jp", "in", "us-cal-1", "eu-lon-1", "all"];

/// Flags with a short form.
pub(super) const SHORT_FLAGS: &[(&str, &str)] =
    if features::DIAGNOSE { &[("6", "ipv6"), ("r", "region"), ("w", "write-report")] } else { &[] };

const PROTOCOLS: &[&str] = &["http1", "http2"];
const PROXY_VERSIONS: &[&str] = &["1", "2"];

// Replacements by a traffic policy, with the names of its actions.
const TP_AUTH: &str = "a traffic policy with basic-auth (--traffic-policy-file)";
const TP_BREAKER: &str = "a traffic policy with circuit-breaker (--traffic-policy-file)";
const TP_COMPRESS: &str = "a traffic policy with compress-response (--traffic-policy-file)";
const TP_HEADERS: &str = "a traffic policy with add-headers (--traffic-policy-file)";
const TP_NO_HEADERS: &str = "a traffic policy with remove-headers (--traffic-policy-file)";
const TP_IPS: &str = "a traffic policy with restrict-ips (--traffic-policy-file)";
const TP_OAUTH: &str = "a traffic policy with oauth (--traffic-policy-file)";
const TP_OIDC: &str = "a traffic policy with openid-connect (--traffic-policy-file)";
const TP_TLS: &str = "a traffic policy with terminate-tls (--traffic-policy-file)";
const TP_AGENTS: &str = "a traffic policy with expressions (--traffic-policy-file)";
const TP_WEBHOOK: &str = "a traffic policy with verify-webhook (--traffic-policy-file)";
const TP_ANY: &str = "a traffic policy (--traffic-policy-file)";

/// The flags, in the order of help: first those of endpoints, then those of the session.
pub(super) static FLAGS: &[FlagSpec] = &[
    flag("all", Switch, START, "every endpoint of the file"),
    flag("none", Switch, START, "connect without endpoints"),
    flag("strict", Switch, START, "with --all: end when the edge refuses one"),
    flag("url", Text("URL"), ENDPOINT, "public URL (default: a random one)"),
    flag(
        "name",
        Text("NAME"),
        ENDPOINT | SERVICE,
        "name of the endpoint (default command_line)|name of the service (default culvert)",
    ),
    flag("label", Text("KEY=VALUE"), TUNNEL, "a label that the edge knows, repeatable")
        .many(Commas),
    flag("description", Text("TEXT"), ENDPOINT, "free text for display"),
    flag(
        "metadata",
        Text("TEXT"),
        RUN | ROOT,
        "free text of the endpoint|free text of the session",
    ),
    flag(
        "binding",
        One("BINDING", &["public", "internal", "kubernetes"]),
        ENDPOINT,
        "public, internal or kubernetes",
    )
    .many(Commas),
    flag("pooling-enabled", Switch, ENDPOINT, "share the URL with other endpoints"),
    flag("traffic-policy-file", Path("FILE"), ENDPOINT, "policy for the edge, YAML or JSON"),
    flag("traffic-policy-url", Text("URL"), ENDPOINT, "URL of a policy, fetched at the start"),
    flag(
        "inspect",
        Switch,
        HTTP | START | TUNNEL | ROOT,
        "capture requests, unless --inspect=false",
    ),
    flag("upstream-protocol", One("PROTOCOL", PROTOCOLS), HTTP, "http1 or http2"),
    flag(
        "upstream-proxy-protocol",
        One("N", PROXY_VERSIONS),
        ENDPOINT,
        "send the visitor's address to the service; 1 or 2",
    ),
    flag("upstream-tls-verify", Switch, ENDPOINT, "check the certificate of the service"),
    flag(
        "upstream-tls-verify-cas",
        Path("FILE"),
        ENDPOINT,
        "check it against these PEM certificates",
    ),
    flag("crt", Path("FILE"), TLS | TUNNEL, "certificate that visitors see, PEM"),
    flag("key", Path("FILE"), TLS | TUNNEL, "its private key, PEM"),
    flag(
        "terminate-at",
        One("PLACE", &["edge", "agent", "upstream"]),
        TLS,
        "where TLS ends: edge, agent or upstream",
    ),
    flag("mutual-tls-cas", Path("FILE"), TLS | HTTP, "visitors need a certificate signed by these")
        .old(HTTP, TP_TLS),
    flag("cidr-allow", Text("CIDR"), ENDPOINT, "addresses of visitors to allow, repeatable")
        .many(Commas)
        .old(HTTP, TP_IPS),
    flag("cidr-deny", Text("CIDR"), ENDPOINT, "addresses of visitors to deny, repeatable")
        .many(Commas)
        .old(HTTP, TP_IPS),
    old("app-protocol", One("PROTOCOL", PROTOCOLS), HTTP, "--upstream-protocol"),
    old("basic-auth", Text("USER:PASSWORD"), HTTP, TP_AUTH).many(Commas).secret(),
    old("circuit-breaker", Text("SHARE"), HTTP, TP_BREAKER),
    old("compression", Switch, HTTP, TP_COMPRESS),
    old("host-header", Like("HOST", &["rewrite", "preserve"]), HTTP, TP_HEADERS),
    old("request-header-add", Text("NAME:VALUE"), HTTP, TP_HEADERS).many(Each).secret(),
    old("response-header-add", Text("NAME:VALUE"), HTTP, TP_HEADERS).many(Each).secret(),
    old("request-header-remove", Text("NAME"), HTTP, TP_NO_HEADERS).many(Commas),
    old("response-header-remove", Text("NAME"), HTTP, TP_NO_HEADERS).many(Commas),
    old(
        "oauth",
        Like(
            "PROVIDER",
            &[
                "amazon",
                "facebook",
                "github",
                "gitlab",
                "google",
                "linkedin",
                "microsoft",
                "twitch",
            ],
        ),
        HTTP,
        TP_OAUTH,
    ),
    old("oauth-allow-domain", Text("DOMAIN"), HTTP, TP_OAUTH).many(Commas),
    old("oauth-allow-email", Text("EMAIL"), HTTP, TP_OAUTH).many(Commas),
    old("oauth-client-id", Text("ID"), HTTP, TP_OAUTH),
    old("oauth-client-secret", Text("SECRET"), HTTP, TP_OAUTH).secret(),
    old("oauth-scope", Text("SCOPE"), HTTP, TP_OAUTH).many(Commas),
    old("oidc", Text("URL"), HTTP, TP_OIDC),
    old("oidc-client-id", Text("ID"), HTTP, TP_OIDC),
    old("oidc-client-secret", Text("SECRET"), HTTP, TP_OIDC).secret(),
    old("oidc-scope", Text("SCOPE"), HTTP, TP_OIDC).many(Commas),
    old("ua-filter-allow", Text("REGEX"), HTTP, TP_AGENTS).many(Each),
    old("ua-filter-deny", Text("REGEX"), HTTP, TP_AGENTS).many(Each),
    old("verify-webhook", Text("PROVIDER"), HTTP, TP_WEBHOOK),
    old("verify-webhook-secret", Text("SECRET"), HTTP, TP_WEBHOOK).secret(),
    old("websocket-tcp-converter", Switch, HTTP, TP_ANY),
    old("scheme", One("SCHEME", &["http", "https"]), HTTP, "--url").many(Commas),
    old("domain", Text("DOMAIN"), HTTP | TLS, "--url"),
    old("hostname", Text("DOMAIN"), HTTP | TLS, "--url"),
    old("subdomain", Text("LABEL"), HTTP | TLS, "--url"),
    old("remote-addr", Text("HOST:PORT"), TCP, "--url"),
    old("proxy-proto", One("N", PROXY_VERSIONS), ENDPOINT, "--upstream-proxy-protocol"),
    old("policy-file", Path("FILE"), ENDPOINT, "--traffic-policy-file"),
    old("verify-upstream-tls", Switch, ENDPOINT, "--upstream-tls-verify"),
    old("upstream-ca-path", Path("FILE"), ENDPOINT, "--upstream-tls-verify-cas"),
    flag("ipv6", Switch, DIAGNOSE, "test IPv6 too"),
    flag("region", Like("REGION", REGIONS), RUN | DIAGNOSE, "region of the service, or all")
        .old(RUN, "connect_url of the configuration, the region is ignored"),
    flag("write-report", Path("FILE"), DIAGNOSE, "write a report in JSON; - is standard output"),
    flag("max-connections", Text("N"), RUN, "threads that serve connections (default 48)"),
    flag("memory-limit", Text("SIZE"), RUN, "memory to stay within, as in 8MiB"),
    flag(
        "authtoken",
        Text("TOKEN"),
        RUN,
        "credential; overrides NGROK_AUTHTOKEN and the \
        file",
    )
    .secret(),
    flag(
        "connect-url",
        Text("HOST:PORT"),
        RUN | DIAGNOSE,
        "the edge; over CULVERT_CONNECT_URL and the file",
    ),
    flag(
        "connect-cas",
        Path("FILE"),
        RUN | DIAGNOSE,
        "trusted, host or CA certificates of the edge",
    ),
    flag(
        "config",
        Path("FILE"),
        ROOT | RUN | FILES | API | ANYWHERE,
        "configuration file, repeatable",
    )
    .many(Each),
    flag(
        "log",
        Like("TARGET", &["stdout", "stderr", "false"]),
        ROOT | RUN | API | ANYWHERE,
        "stdout, stderr, false or a file",
    ),
    flag(
        "log-level",
        One("LEVEL", &["debug", "info", "warn", "error", "crit"]),
        ROOT | RUN | API | ANYWHERE,
        "debug, info, warn, error or crit",
    ),
    flag(
        "log-format",
        One("FORMAT", &["term", "logfmt", "json"]),
        ROOT | RUN | API | ANYWHERE,
        "term, logfmt or json",
    ),
    flag("api-key", Text("KEY"), API, "key of the API; over NGROK_API_KEY and the file").secret(),
    flag("api-url", Text("URL"), API, "address of the API; over NGROK_API_BASE_URL and the file"),
    flag("api-cas", Path("FILE"), API, "trusted, host or CA certificates of the API"),
    flag("now", Switch, INSTALL, "also start the service"),
    flag("user", Text("USER"), INSTALL, "user of the agent (default culvert, created if missing)"),
    flag("init", One("SYSTEM", INIT_SYSTEMS), SERVICE, INIT_ABOUT),
    flag("root", Path("DIR"), INSTALL | UNINSTALL, "change the image in this directory"),
    flag("force", Switch, INSTALL, "replace a service with other settings"),
    flag("channel", One("CHANNEL", CHANNELS), UPDATE, "stable, beta or unstable"),
    flag("check", Switch, UPDATE, "only check, and change nothing"),
    flag("yes", Switch, UPDATE, "do not ask on a terminal"),
    flag("rollback", Switch, UPDATE, "put the program before the last update back"),
    flag("restart", Switch, UPDATE, "restart its running services"),
    flag("json", Switch, STATUS, "print one JSON object"),
    flag("dry-run", Switch, UPGRADE, "show what would change, and change nothing"),
    flag("relocate", Switch, UPGRADE, "also move the file to the default path"),
    flag("version", Switch, ROOT | ANYWHERE, "print the version"),
];

/// Returns the command of this name.
pub(super) fn command(name: &str) -> Option<&'static CommandSpec> {
    match name {
        "" => Some(&PROGRAM),
        name => COMMANDS.iter().find(|command| command.name == name),
    }
}

/// Returns the commands of a group with their last words. The program is the topmost group.
pub(super) fn members(
    group: &CommandSpec,
) -> impl Iterator<Item = (&'static CommandSpec, &'static str)> + use<'_> {
    COMMANDS.iter().filter_map(move |command| {
        let word = match group.name {
            "" => command.name,
            name => command.name.strip_prefix(name)?.strip_prefix(' ')?,
        };
        (!word.contains(' ')).then_some((command, word))
    })
}

/// Returns the flag of this name, without hyphens.
pub(super) fn flag_named(name: &str) -> Option<&'static FlagSpec> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// Returns whether a text without its hyphens, such as `config=FILE`, is a flag of `api`.
pub(super) fn is_flag_of_api(text: &str) -> bool {
    text.split('=').next().and_then(flag_named).is_some_and(FlagSpec::is_of_api)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        for (n, flag) in FLAGS.iter().enumerate() {
            assert!(FLAGS[..n].iter().all(|other| other.name != flag.name), "{}", flag.name);
            assert_eq!(flag.old & !flag.on, 0, "{}", flag.name);
            assert_eq!(flag.old == 0, flag.instead.is_empty(), "{}", flag.name);
            assert_eq!(flag.listed() == 0, flag.about.is_empty(), "{}", flag.name);
            assert!(matches!(flag.value, Switch) <= (flag.many == Repeat::Last), "{}", flag.name);
        }
        for (n, command) in COMMANDS.iter().enumerate() {
            assert!(COMMANDS[..n].iter().all(|other| other.name != command.name));
            assert!(!command.examples.is_empty(), "{}", command.name);
            for example in command.examples {
                assert!(example.contains("culvert "), "{example}");
            }
            assert!(features::TOOLS || !TOOLS.contains(&command.name), "{}", command.name);
            assert!(features::UPDATE || command.name != "update");
            if let Some((group, _)) = command.name.rsplit_once(' ') {
                assert!(super::command(group).is_some(), "{group}");
            }
        }
        for (from, to) in RENAMED {
            assert!(flag_named(from).is_none() && flag_named(to).is_some(), "{from}");
        }
    }
}
