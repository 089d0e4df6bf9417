//! Steps from one configuration of an endpoint to another. Decisions only: the supervisor
//! carries them out.

use crate::config;
use crate::config::modules::HostHeader;
use crate::proto::messages::PatchRequest;

/// The least disruptive change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangePlan {
    /// The configurations are equal.
    Unchanged,
    /// Only the upstream or its options differ: the edge is not involved.
    Local,
    /// The edge can change it in place.
    Patch,
    /// The endpoint is removed and added again.
    Rebind,
}

impl ChangePlan {
    pub(super) fn new(old: &config::Endpoint, new: &config::Endpoint) -> ChangePlan {
        if old == new {
            return ChangePlan::Unchanged;
        }
        let mut like = old.clone();
        // The edge's changes to requests may depend on the upstream.
        let apart = old.modules.host_header != HostHeader::Rewrite;
        if apart && old.upstream.scheme == new.upstream.scheme {
            like.upstream = new.upstream.clone();
        }
        like.verify = new.verify.clone();
        like.inspect = new.inspect;
        if like == *new {
            return ChangePlan::Local;
        }
        like.description.clone_from(&new.description);
        like.metadata.clone_from(&new.metadata);
        like.traffic_policy.clone_from(&new.traffic_policy);
        like.pooling = new.pooling;
        if like == *new { ChangePlan::Patch } else { ChangePlan::Rebind }
    }
}

/// Returns the fields that differ, without the endpoint's id.
pub(super) fn patch_request(old: &config::Endpoint, new: &config::Endpoint) -> PatchRequest {
    let differs = |old: &str, new: &str| (old != new).then(|| new.to_owned());
    PatchRequest {
        tunnel_id: String::new(),
        name: None,
        description: differs(&old.description, &new.description),
        metadata: differs(&old.metadata, &new.metadata),
        traffic_policy: differs(&old.traffic_policy, &new.traffic_policy),
        pooling_enabled: (old.pooling != new.pooling).then_some(new.pooling),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EndpointKind, Upstream};

    #[test]
    fn as_little_ado_as_possible() {
        let upstream = |text: &str| Upstream::parse(EndpointKind::Http, text).expect("an upstream");
        let old = config::Endpoint::new("a", EndpointKind::Http, upstream("8080"));
        let with = |change: fn(&mut config::Endpoint)| {
            let mut new = old.clone();
            change(&mut new);
            ChangePlan::new(&old, &new)
        };
        assert_eq!(with(|_| {}), ChangePlan::Unchanged);
        assert_eq!(with(|e| e.upstream.port = 1), ChangePlan::Local);
        assert_eq!(with(|e| e.inspect = false), ChangePlan::Local);
        assert_eq!(with(|e| e.traffic_policy = "x".into()), ChangePlan::Patch);
        assert_eq!(
            with(|e| {
                e.description = "x".into();
                e.upstream.port = 1;
            }),
            ChangePlan::Patch
        );
        assert_eq!(with(|e| e.url = "http://b.example".into()), ChangePlan::Rebind);
        assert_eq!(with(|e| e.upstream.scheme = config::UpstreamScheme::Https), ChangePlan::Rebind);
        assert_eq!(with(|e| e.proxy_protocol = 1), ChangePlan::Rebind);
        let mut old = old.clone();
        old.modules.host_header = HostHeader::Rewrite;
        let mut new = old.clone();
        new.upstream.port = 1;
        assert_eq!(ChangePlan::new(&old, &new), ChangePlan::Rebind);
    }
}
