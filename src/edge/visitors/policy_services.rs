//! What policies use of the edge. Which rules a visitor meets is decided in
//! [`crate::edge::policy`].

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use super::{internal, internal_request};
use crate::edge::Edge;
use crate::edge::accounts::merge;
use crate::edge::agents::address::Protocol;
use crate::edge::fetch::{FetchError, FetchErrorKind, FetchResponse};
use crate::edge::login::LoginServices;
use crate::edge::login::clients::OAuthClient;
use crate::edge::policy::phases::{InternalFault, InternalRequest, PolicyServices};
use crate::edge::policy::rate_limit::RateTable;
use crate::edge::policy::request_places::RequestPlace;
use crate::edge::policy::search_time::ThreadClock;
use crate::edge::restrictions::IpRules;
use crate::edge::workers::Job;
use crate::proto::secret::Secret;
use crate::sys;

/// The requests of the policies of one account hold at most this part of the threads.
const REQUEST_SHARE: usize = 4;

/// The edge, as policies see it.
pub struct EdgeServices {
    edge: Weak<Edge>,
}

impl EdgeServices {
    /// Returns the services of an edge.
    pub fn new(edge: &Arc<Edge>) -> Self {
        EdgeServices { edge: Arc::downgrade(edge) }
    }
}

impl fmt::Debug for EdgeServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EdgeServices")
    }
}

impl PolicyServices for EdgeServices {
    fn check_internal(
        &self,
        account: &str,
        protocol: Protocol,
        url: &str,
    ) -> Result<(), InternalFault> {
        let edge = self
            .edge
            .upgrade()
            .ok_or_else(|| InternalFault { code: 724, text: "The edge is stopping.".to_owned() })?;
        internal::find(&edge, account, protocol, url).map(drop)
    }

    fn request_internal(&self, request: &InternalRequest<'_>) -> Result<FetchResponse, FetchError> {
        let stopping = || FetchError::new(FetchErrorKind::Failed, "the edge is stopping");
        internal_request::send(&*self.edge.upgrade().ok_or_else(stopping)?, request)
    }

    fn request_place(&self, account: &str) -> Option<RequestPlace> {
        let edge = self.edge.upgrade()?;
        let most = (edge.config().limits.threads / REQUEST_SHARE).max(1);
        let place = edge.policy_requests.enter(account, most);
        if place.is_none() {
            edge.warn_full("requests of policies of an account");
        }
        place
    }

    fn run_blocking(&self, client: IpAddr, work: Job) -> bool {
        self.edge.upgrade().is_some_and(|edge| edge.run_for_visitor(client, work))
    }

    fn ip_policy(&self, id: &str) -> Option<Arc<IpRules>> {
        self.edge.upgrade()?.config().ip_policies.get(id).cloned()
    }

    fn certificate_authority(&self, id: &str) -> Option<String> {
        merge::certificate_authority(&self.edge.upgrade()?.accounts.table(), id)
    }

    fn secret(&self, account: &str, vault: &str, name: &str) -> Option<Secret> {
        let edge = self.edge.upgrade()?;
        // A credential with an ACL may belong to a guest: secrets are the operator's.
        edge.config().credentials.by_id(account).filter(|owner| !owner.acl.is_limited())?;
        merge::secret(&edge.accounts.table(), &edge.key, vault, name)
    }

    fn rates(&self) -> Arc<RateTable> {
        // An edge that stops has no visitors any more.
        self.edge.upgrade().map_or_else(RateTable::new, |edge| Arc::clone(&edge.rates))
    }

    fn thread_clock(&self) -> ThreadClock {
        sys::thread_time
    }

    fn logins(&self) -> Option<Arc<LoginServices>> {
        Some(Arc::clone(&self.edge.upgrade()?.logins))
    }

    fn oauth_clients(&self) -> Vec<OAuthClient> {
        self.edge.upgrade().map(|edge| edge.config().oauth.clone()).unwrap_or_default()
    }

    fn is_shared(&self, account: &str, domain: &str) -> bool {
        self.edge.upgrade().is_none_or(|edge| edge.config().is_shared(account, domain))
    }
}
