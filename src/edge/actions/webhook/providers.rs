//! Table of the providers: which header has the signature, what is signed, and how. The names
//! are those of ngrok's `verify-webhook`. Nothing is computed here.

/// Provider of webhooks.
#[derive(Debug)]
pub struct Provider {
    /// Name in configurations.
    pub name: &'static str,
    /// How it signs.
    pub scheme: Scheme,
    /// How it checks the address of an endpoint before its first webhook.
    pub challenge: Option<Challenge>,
}

/// Way to prove that a request is from a provider.
#[derive(Clone, Copy, Debug)]
pub enum Scheme {
    /// One of these MACs.
    Macs(&'static [Mac]),
    /// The secret itself in this header.
    Token(&'static str),
    /// HTTP basic auth. The secret is `USER::PASSWORD`.
    Basic,
    /// Mailgun: time, token and their MAC are fields of the JSON body.
    JsonFields,
    /// Hygraph: the MAC of a JSON object with the body as a text.
    JsonEnvelope,
    /// Contentful: the MAC of method, path, named headers and body.
    CanonicalRequest,
    /// SendGrid: ECDSA over time and body. The secret is the public key.
    Ecdsa,
}

/// A MAC and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Mac {
    /// Header with the signatures.
    pub header: &'static str,
    /// Separator of several signatures.
    pub separator: u8,
    /// Text in front of each signature. Elements without it are ignored.
    pub prefix: &'static str,
    /// Text form of a signature.
    pub encoding: Encoding,
    /// Hash function.
    pub digest: Digest,
    /// Form of the key in the secret.
    pub key: KeyForm,
    /// Where the time is, if it is signed.
    pub time: Option<TimePlace>,
    /// Parts that are signed, one behind the other.
    pub signed: &'static [Part],
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

/// Form of a key in the secret.
#[derive(Clone, Copy, Debug)]
pub enum KeyForm {
    /// The bytes of the secret.
    Text,
    /// Base64.
    Base64,
    /// Base64, perhaps with `whsec_` in front of it.
    Svix,
}

/// Place of a signed time.
#[derive(Clone, Copy, Debug)]
pub enum TimePlace {
    /// A header of its own.
    Header(&'static str),
    /// An element `NAME=TIME` of the header with the signatures.
    Element(&'static str),
}

/// Part of the signed bytes.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// The body.
    Body,
    /// The time as received.
    Time,
    /// This text.
    Text(&'static str),
    /// The value of a header.
    Header(&'static str),
    /// The method.
    Method,
    /// The whole URL.
    Url,
    /// The URL without its query.
    UrlWithoutQuery,
    /// The URL with HubSpot's set of characters decoded.
    HubspotUrl,
    /// Names and values of the form in the body, by name.
    Form,
    /// The URL and the form with Plivo's separators.
    PlivoUrl,
}

/// Check of an endpoint's address that the edge answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Twitter: a GET with a `crc_token`, whose MAC is the answer.
    CrcToken,
    /// Worldline: a GET with a header, whose value is the answer.
    EchoedHeader,
    /// Xero: requests without events, half of them with a wrong signature, which needs a 401.
    EmptyEvents,
    /// Zoom: a signed event with a `plainToken`, whose MAC is the answer.
    PlainToken,
}

const HEX: Mac = Mac {
    header: "",
    separator: b',',
    prefix: "",
    encoding: Encoding::Hex,
    digest: Digest::Sha256,
    key: KeyForm::Text,
    time: None,
    signed: &[Part::Body],
};

const BASE64: Mac = Mac { encoding: Encoding::Base64, ..HEX };

const HEX_SHA1: Mac = Mac { digest: Digest::Sha1, ..HEX };

/// `t=TIME,v1=HEX`, as Stripe has it.
const STRIPE: Mac = Mac {
    prefix: "v1=",
    time: Some(TimePlace::Element("t")),
    signed: &[Part::Time, Part::Text("."), Part::Body],
    ..HEX
};

/// `X-Hub-Signature-256`, as GitHub and Meta have it.
const HUB: Mac = Mac { header: "X-Hub-Signature-256", prefix: "sha256=", ..HEX };

/// The scheme of Svix and of "Standard Webhooks".
const SVIX: Mac = Mac {
    header: "svix-signature",
    separator: b' ',
    prefix: "v1,",
    key: KeyForm::Svix,
    time: Some(TimePlace::Header("svix-timestamp")),
    signed: &[Part::Header("svix-id"), Part::Text("."), Part::Time, Part::Text("."), Part::Body],
    ..BASE64
};

/// The scheme of Twilio, which others have taken over.
const TWILIO: Mac = Mac { digest: Digest::Sha1, signed: &[Part::Url, Part::Form], ..BASE64 };

const BOX: Mac = Mac {
    time: Some(TimePlace::Header("BOX-DELIVERY-TIMESTAMP")),
    signed: &[Part::Body, Part::Time],
    ..BASE64
};

/// `v0=HEX` over `v0:TIME:BODY`, as Slack has it.
const SLACK: Mac = Mac {
    prefix: "v0=",
    signed: &[Part::Text("v0:"), Part::Time, Part::Text(":"), Part::Body],
    ..HEX
};

const fn provider(name: &'static str, scheme: Scheme) -> Provider {
    Provider { name, scheme, challenge: None }
}

const fn macs(name: &'static str, macs: &'static [Mac]) -> Provider {
    provider(name, Scheme::Macs(macs))
}

const fn challenging(provider: Provider, challenge: Challenge) -> Provider {
    Provider { challenge: Some(challenge), ..provider }
}

/// Providers that the edge verifies.
pub static PROVIDERS: &[Provider] = &[
    macs("aftership", &[Mac { header: "aftership-hmac-sha256", ..BASE64 }]),
    macs(
        "airship",
        &[Mac {
            header: "X-UA-SIGNATURE",
            time: Some(TimePlace::Header("X-UA-TIMESTAMP")),
            signed: &[Part::Time, Part::Text(":"), Part::Body],
            ..HEX
        }],
    ),
    macs("alchemy", &[Mac { header: "X-Alchemy-Signature", ..HEX }]),
    macs("autodesk", &[Mac { header: "x-adsk-signature", prefix: "sha1hash=", ..HEX_SHA1 }]),
    macs("bitbucket", &[Mac { header: "X-Hub-Signature", ..HUB }]),
    macs("bolt", &[Mac { header: "X-Bolt-Hmac-Sha256", ..BASE64 }]),
    macs(
        "box",
        &[
            Mac { header: "BOX-SIGNATURE-PRIMARY", ..BOX },
            Mac { header: "BOX-SIGNATURE-SECONDARY", ..BOX },
        ],
    ),
    macs(
        "brex",
        &[Mac {
            header: "webhook-signature",
            time: Some(TimePlace::Header("webhook-timestamp")),
            signed: &[
                Part::Header("webhook-id"),
                Part::Text("."),
                Part::Time,
                Part::Text("."),
                Part::Body,
            ],
            ..SVIX
        }],
    ),
    provider("buildkite", Scheme::Token("X-Buildkite-Token")),
    macs("calendly", &[Mac { header: "Calendly-Webhook-Signature", ..STRIPE }]),
    macs("castle", &[Mac { header: "X-Castle-Signature", ..BASE64 }]),
    macs("chargify", &[Mac { header: "X-Chargify-Webhook-Signature-Hmac-Sha-256", ..HEX }]),
    macs("circleci", &[Mac { header: "circleci-signature", prefix: "v1=", ..HEX }]),
    macs("clearbit", &[Mac { header: "X-Request-Signature", prefix: "sha1=", ..HEX_SHA1 }]),
    macs("clerk", &[SVIX]),
    macs("coinbase", &[Mac { header: "X-CC-Webhook-Signature", ..HEX }]),
    provider("contentful", Scheme::CanonicalRequest),
    macs("docusign", &[Mac { header: "X-DocuSign-Signature-1", ..BASE64 }]),
    macs("dropbox", &[Mac { header: "X-Dropbox-Signature", ..HEX }]),
    macs("facebook_graph_api", &[HUB]),
    macs("facebook_messenger", &[HUB]),
    macs(
        "frameio",
        &[Mac {
            header: "X-Frameio-Signature",
            time: Some(TimePlace::Header("X-Frameio-Request-Timestamp")),
            ..SLACK
        }],
    ),
    macs("github", &[HUB]),
    provider("gitlab", Scheme::Token("X-Gitlab-Token")),
    macs("go1", &[Mac { header: "Go1-Signature", ..STRIPE }]),
    provider("graphcms", Scheme::JsonEnvelope),
    macs("heroku", &[Mac { header: "Heroku-Webhook-Hmac-SHA256", ..BASE64 }]),
    macs("hostedhooks", &[Mac { header: "HostedHooks-Signature", prefix: "s=", ..STRIPE }]),
    macs(
        "hubspot",
        &[Mac {
            header: "X-HubSpot-Signature-v3",
            time: Some(TimePlace::Header("X-HubSpot-Request-Timestamp")),
            signed: &[Part::Method, Part::HubspotUrl, Part::Body, Part::Time],
            ..BASE64
        }],
    ),
    macs("instagram", &[HUB]),
    macs("intercom", &[Mac { header: "X-Hub-Signature", prefix: "sha1=", ..HEX_SHA1 }]),
    macs("jira", &[Mac { header: "X-Hub-Signature", ..HUB }]),
    macs("launch_darkly", &[Mac { header: "X-LD-Signature", ..HEX }]),
    macs("linear", &[Mac { header: "Linear-Signature", ..HEX }]),
    macs("mailchimp", &[Mac { header: "X-Mandrill-Signature", ..TWILIO }]),
    provider("mailgun", Scheme::JsonFields),
    macs(
        "microsoft_teams",
        &[Mac { header: "Authorization", prefix: "HMAC ", key: KeyForm::Base64, ..BASE64 }],
    ),
    macs("modern_treasury", &[Mac { header: "X-Signature", ..HEX }]),
    macs("mongodb", &[Mac { header: "X-MMS-Signature", digest: Digest::Sha1, ..BASE64 }]),
    macs("mux", &[Mac { header: "Mux-Signature", ..STRIPE }]),
    macs(
        "orb",
        &[Mac {
            header: "X-Orb-Signature",
            prefix: "v1=",
            time: Some(TimePlace::Header("X-Orb-Timestamp")),
            signed: &[Part::Text("v1:"), Part::Time, Part::Text(":"), Part::Body],
            ..HEX
        }],
    ),
    macs("pagerduty", &[Mac { header: "X-PagerDuty-Signature", prefix: "v1=", ..HEX }]),
    macs(
        "pinwheel",
        &[Mac {
            header: "X-Pinwheel-Signature",
            prefix: "v2=",
            time: Some(TimePlace::Header("X-Timestamp")),
            signed: &[Part::Text("v2:"), Part::Time, Part::Text(":"), Part::Body],
            ..HEX
        }],
    ),
    macs(
        "plivo",
        &[
            Mac {
                header: "X-Plivo-Signature-V3",
                signed: &[
                    Part::PlivoUrl,
                    Part::Text("."),
                    Part::Header("X-Plivo-Signature-V3-Nonce"),
                ],
                ..BASE64
            },
            Mac {
                header: "X-Plivo-Signature-V2",
                signed: &[Part::UrlWithoutQuery, Part::Header("X-Plivo-Signature-V2-Nonce")],
                ..BASE64
            },
        ],
    ),
    macs("pusher", &[Mac { header: "X-Pusher-Signature", ..HEX }]),
    provider("sendgrid", Scheme::Ecdsa),
    macs("sentry", &[Mac { header: "Sentry-Hook-Signature", ..HEX }]),
    macs("shopify", &[Mac { header: "X-Shopify-Hmac-Sha256", ..BASE64 }]),
    macs(
        "slack",
        &[Mac {
            header: "X-Slack-Signature",
            time: Some(TimePlace::Header("X-Slack-Request-Timestamp")),
            ..SLACK
        }],
    ),
    macs("sonatype", &[Mac { header: "X-Nexus-Webhook-Signature", ..HEX_SHA1 }]),
    macs(
        "square",
        &[Mac {
            header: "x-square-hmacsha256-signature",
            signed: &[Part::Url, Part::Body],
            ..BASE64
        }],
    ),
    macs("stripe", &[Mac { header: "Stripe-Signature", ..STRIPE }]),
    macs("svix", &[SVIX]),
    macs(
        "terraform",
        &[Mac { header: "X-TFE-Notification-Signature", digest: Digest::Sha512, ..HEX }],
    ),
    macs("tiktok", &[Mac { header: "TikTok-Signature", prefix: "s=", ..STRIPE }]),
    macs("trendmicro_conformity", &[Mac { header: "X-Conformity-Signature", ..HEX }]),
    macs("twilio", &[Mac { header: "X-Twilio-Signature", ..TWILIO }]),
    challenging(
        macs(
            "twitter",
            &[Mac { header: "X-Twitter-Webhooks-Signature", prefix: "sha256=", ..BASE64 }],
        ),
        Challenge::CrcToken,
    ),
    macs("typeform", &[Mac { header: "Typeform-Signature", prefix: "sha256=", ..BASE64 }]),
    provider("vmware", Scheme::Basic),
    macs("webex", &[Mac { header: "X-Spark-Signature", ..HEX_SHA1 }]),
    macs("whatsapp", &[HUB]),
    challenging(
        macs("worldline", &[Mac { header: "X-GCS-Signature", ..BASE64 }]),
        Challenge::EchoedHeader,
    ),
    challenging(
        macs("xero", &[Mac { header: "x-xero-signature", ..BASE64 }]),
        Challenge::EmptyEvents,
    ),
    macs(
        "zendesk",
        &[Mac {
            header: "X-Zendesk-Webhook-Signature",
            time: Some(TimePlace::Header("X-Zendesk-Webhook-Signature-Timestamp")),
            signed: &[Part::Time, Part::Body],
            ..BASE64
        }],
    ),
    challenging(
        macs(
            "zoom",
            &[Mac {
                header: "x-zm-signature",
                time: Some(TimePlace::Header("x-zm-request-timestamp")),
                ..SLACK
            }],
        ),
        Challenge::PlainToken,
    ),
];

/// Providers of ngrok that the edge cannot verify, with the reason.
pub static UNSUPPORTED: &[(&str, &str)] = &[
    ("orbit", "it does not document how it signs"),
    ("signal_sciences", "it does not document how it signs"),
    ("sns", "its certificate would have to be fetched from the provider"),
];

/// Returns the provider with this name. VMware's has two.
pub fn find(name: &str) -> Option<&'static Provider> {
    let name = if name == "vmware_workspace" { "vmware" } else { name };
    PROVIDERS.iter().find(|provider| provider.name == name)
}
