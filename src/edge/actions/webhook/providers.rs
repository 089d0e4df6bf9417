//! Table of the providers: which header has the signature, what is signed, and how. The names
//! are those of ngrok's `verify-webhook`.

use ring::hmac;

/// Provider of webhooks.
#[derive(Debug)]
pub struct Provider {
    /// Name in configurations.
    pub name: &'static str,
    /// How it signs.
    pub scheme: Scheme,
}

/// Text form of a MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal digits.
    Hex,
    /// Base64 with padding.
    Base64,
}

/// Hash function of a MAC.
#[derive(Clone, Copy, Debug)]
pub enum Digest {
    /// For old providers.
    Sha1,
    /// The usual one.
    Sha256,
    /// Terraform's.
    Sha512,
}

/// What is signed and where the signature is.
#[derive(Debug)]
pub enum Scheme {
    /// MAC of the body. The header may have several, each with the prefix.
    Body {
        /// Name of the header.
        header: &'static str,
        /// Text in front of each signature.
        prefix: &'static str,
        /// Form of the signature.
        encoding: Encoding,
        /// Hash function.
        digest: Digest,
    },
    /// `t=TIME,v1=HEX` over `TIME.BODY`.
    TimeAndBody {
        /// Name of the header.
        header: &'static str,
        /// Name of the part with the time.
        time: &'static str,
        /// Name of the parts with signatures.
        signature: &'static str,
    },
    /// `VERSION=HEX` over `VERSION:TIME:BODY`, the time in a header.
    VersionTimeBody {
        /// Name of the header with the signature.
        header: &'static str,
        /// Name of the header with the time.
        time: &'static str,
        /// Version, such as `v0`.
        version: &'static str,
    },
    /// Base64 over `ID.TIME.BODY`; three headers with this prefix; the secret is base64.
    Svix {
        /// Prefix of the headers.
        prefix: &'static str,
    },
    /// Base64 over the time and the body, the time in a header.
    TimeThenBody {
        /// Name of the header with the signature.
        header: &'static str,
        /// Name of the header with the time.
        time: &'static str,
    },
    /// The secret itself.
    Token {
        /// Name of the header.
        header: &'static str,
    },
    /// Base64 with SHA-1 over the URL and the sorted fields of a form.
    UrlAndForm {
        /// Name of the header.
        header: &'static str,
    },
    /// Fields of the JSON body.
    JsonFields,
}

impl Scheme {
    /// Returns the function of the MAC.
    pub fn algorithm(&self) -> hmac::Algorithm {
        match self {
            Scheme::Body { digest: Digest::Sha1, .. } | Scheme::UrlAndForm { .. } => {
                hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY
            }
            Scheme::Body { digest: Digest::Sha512, .. } => hmac::HMAC_SHA512,
            _ => hmac::HMAC_SHA256,
        }
    }
}

const fn body(
    name: &'static str,
    header: &'static str,
    prefix: &'static str,
    encoding: Encoding,
) -> Provider {
    Provider { name, scheme: Scheme::Body { header, prefix, encoding, digest: Digest::Sha256 } }
}

const fn body_with(
    name: &'static str,
    header: &'static str,
    prefix: &'static str,
    digest: Digest,
) -> Provider {
    Provider { name, scheme: Scheme::Body { header, prefix, encoding: Encoding::Hex, digest } }
}

const fn time_and_body(
    name: &'static str,
    header: &'static str,
    signature: &'static str,
) -> Provider {
    Provider { name, scheme: Scheme::TimeAndBody { header, time: "t", signature } }
}

const fn svix(name: &'static str, prefix: &'static str) -> Provider {
    Provider { name, scheme: Scheme::Svix { prefix } }
}

const fn token(name: &'static str, header: &'static str) -> Provider {
    Provider { name, scheme: Scheme::Token { header } }
}

/// Providers that the edge verifies.
pub static PROVIDERS: &[Provider] = &[
    body("aftership", "aftership-hmac-sha256", "", Encoding::Base64),
    body("alchemy", "X-Alchemy-Signature", "", Encoding::Hex),
    body("bitbucket", "X-Hub-Signature", "sha256=", Encoding::Hex),
    svix("brex", "webhook"),
    token("buildkite", "X-Buildkite-Token"),
    time_and_body("calendly", "Calendly-Webhook-Signature", "v1"),
    body("circleci", "circleci-signature", "v1=", Encoding::Hex),
    body_with("clearbit", "X-Request-Signature", "sha1=", Digest::Sha1),
    svix("clerk", "svix"),
    body("coinbase", "X-CC-Webhook-Signature", "", Encoding::Hex),
    body("docusign", "X-DocuSign-Signature-1", "", Encoding::Base64),
    body("dropbox", "X-Dropbox-Signature", "", Encoding::Hex),
    body("facebook_graph_api", "X-Hub-Signature-256", "sha256=", Encoding::Hex),
    body("facebook_messenger", "X-Hub-Signature-256", "sha256=", Encoding::Hex),
    body("github", "X-Hub-Signature-256", "sha256=", Encoding::Hex),
    token("gitlab", "X-Gitlab-Token"),
    body("heroku", "Heroku-Webhook-Hmac-SHA256", "", Encoding::Base64),
    body("instagram", "X-Hub-Signature-256", "sha256=", Encoding::Hex),
    body_with("intercom", "X-Hub-Signature", "sha1=", Digest::Sha1),
    body("jira", "X-Hub-Signature", "sha256=", Encoding::Hex),
    body("launch_darkly", "X-LD-Signature", "", Encoding::Hex),
    body("linear", "Linear-Signature", "", Encoding::Hex),
    Provider { name: "mailgun", scheme: Scheme::JsonFields },
    time_and_body("mux", "Mux-Signature", "v1"),
    body("pagerduty", "X-PagerDuty-Signature", "v1=", Encoding::Hex),
    body("pusher", "X-Pusher-Signature", "", Encoding::Hex),
    body("sentry", "Sentry-Hook-Signature", "", Encoding::Hex),
    body("shopify", "X-Shopify-Hmac-Sha256", "", Encoding::Base64),
    Provider {
        name: "slack",
        scheme: Scheme::VersionTimeBody {
            header: "X-Slack-Signature",
            time: "X-Slack-Request-Timestamp",
            version: "v0",
        },
    },
    body_with("sonatype", "X-Nexus-Webhook-Signature", "", Digest::Sha1),
    time_and_body("stripe", "Stripe-Signature", "v1"),
    svix("svix", "svix"),
    body_with("terraform", "X-TFE-Notification-Signature", "", Digest::Sha512),
    time_and_body("tiktok", "TikTok-Signature", "s"),
    Provider { name: "twilio", scheme: Scheme::UrlAndForm { header: "X-Twilio-Signature" } },
    body("typeform", "Typeform-Signature", "sha256=", Encoding::Base64),
    body_with("webex", "X-Spark-Signature", "", Digest::Sha1),
    body("whatsapp", "X-Hub-Signature-256", "sha256=", Encoding::Hex),
    Provider {
        name: "zendesk",
        scheme: Scheme::TimeThenBody {
            header: "X-Zendesk-Webhook-Signature",
            time: "X-Zendesk-Webhook-Signature-Timestamp",
        },
    },
    Provider {
        name: "zoom",
        scheme: Scheme::VersionTimeBody {
            header: "x-zm-signature",
            time: "x-zm-request-timestamp",
            version: "v0",
        },
    },
];

/// Providers of ngrok that the edge cannot verify.
pub static UNSUPPORTED: &[&str] = &[
    "airship",
    "autodesk",
    "bolt",
    "box",
    "castle",
    "chargify",
    "contentful",
    "frameio",
    "go1",
    "graphcms",
    "hostedhooks",
    "hubspot",
    "mailchimp",
    "microsoft_teams",
    "modern_treasury",
    "mongodb",
    "orb",
    "orbit",
    "pinwheel",
    "plivo",
    "sendgrid",
    "signal_sciences",
    "sns",
    "square",
    "trendmicro_conformity",
    "twitter",
    "vmware",
    "worldline",
    "xero",
];

/// Returns the provider with this name.
pub fn find(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.name == name)
}
