//! `/ip_policies`, `/ip_policy_rules` and `/ip_restrictions`: lists of networks, and their use
//! for agents, endpoints and the REST API.

use serde_json::{Map, Value, json};

use crate::cidr::Cidr;
use crate::edge::accounts::merge::{
    RESTRICTION_ENFORCED, RESTRICTION_POLICIES, RESTRICTION_TYPE, RULE_ACTION, RULE_CIDR,
    RULE_POLICY,
};
use crate::edge::accounts::table::ObjectTable;
use crate::edge::rest::body::{FieldRule, FieldType, FieldUse};
use crate::edge::rest::context::ApiContext;
use crate::edge::rest::error::ApiError;
use crate::edge::rest::stored::{Draft, StoredResource, keep, remove_alone};
use crate::edge::store::{ObjectKind, StoreChange, StoredObject};
use crate::http1::text::shortened;

const POLICIES_PATH: &str = "ip_policies";

/// Lists of networks.
pub const IP_POLICIES: StoredResource = StoredResource {
    path: POLICIES_PATH,
    plural: POLICIES_PATH,
    kind: ObjectKind::IpPolicy,
    rules: &[
        FieldRule::DESCRIPTION,
        FieldRule::METADATA,
        // Clients of older versions send it. Rules have an action of their own.
        FieldRule::text("action", FieldUse::Create),
    ],
    create: |_, _, draft| {
        draft.object.fields.remove("action");
        Ok(())
    },
    update: keep,
    remove: remove_policy,
    show: |_, _, _| Map::new(),
};

/// Networks in the lists.
pub const IP_POLICY_RULES: StoredResource = StoredResource {
    path: "ip_policy_rules",
    plural: "ip_policy_rules",
    kind: ObjectKind::IpPolicyRule,
    rules: &[
        FieldRule::DESCRIPTION,
        FieldRule::METADATA,
        FieldRule::text(RULE_CIDR, FieldUse::Both),
        FieldRule::text(RULE_POLICY, FieldUse::Required),
        FieldRule::text(RULE_ACTION, FieldUse::Create),
    ],
    create: create_rule,
    update: check_cidr,
    remove: remove_alone,
    show: show_rule,
};

/// Uses of the lists.
pub const IP_RESTRICTIONS: StoredResource = StoredResource {
    path: "ip_restrictions",
    plural: "ip_restrictions",
    kind: ObjectKind::IpRestriction,
    rules: &[
        FieldRule::DESCRIPTION,
        FieldRule::METADATA,
        FieldRule::new(RESTRICTION_ENFORCED, FieldType::Flag, FieldUse::Both),
        FieldRule::text(RESTRICTION_TYPE, FieldUse::Required),
        FieldRule::new(RESTRICTION_POLICIES, FieldType::Texts, FieldUse::Both),
    ],
    create: create_restriction,
    update: update_restriction,
    remove: remove_alone,
    show: show_restriction,
};

/// Removes the rules of a policy with it. A policy in use stays.
fn remove_policy(table: &ObjectTable, policy: &StoredObject) -> Result<Vec<StoreChange>, ApiError> {
    let uses =
        |o: &&std::sync::Arc<StoredObject>| o.texts(RESTRICTION_POLICIES).contains(&policy.id);
    if let Some(user) = table.of_kind(ObjectKind::IpRestriction).find(uses) {
        let text = format!("The IP restriction {} uses this policy. Change it first.", user.id);
        return Err(ApiError::in_use(text));
    }
    let rules = table.of_kind(ObjectKind::IpPolicyRule);
    let own = rules.filter(|rule| rule.text(RULE_POLICY) == policy.id);
    Ok(own.map(|rule| StoreChange::Delete(rule.id.clone())).collect())
}

fn create_rule(
    context: &ApiContext<'_>,
    table: &ObjectTable,
    draft: &mut Draft,
) -> Result<(), ApiError> {
    check_policy(table, draft.object.text(RULE_POLICY))?;
    match draft.object.text(RULE_ACTION) {
        "" => _ = draft.object.fields.insert(RULE_ACTION.into(), "allow".into()),
        "allow" | "deny" => {}
        other => {
            let text = format!("The field 'action' is '{other}', and must be allow or deny.");
            return Err(ApiError::invalid(text));
        }
    }
    check_cidr(context, table, draft)
}

fn check_cidr(_: &ApiContext<'_>, _: &ObjectTable, draft: &mut Draft) -> Result<(), ApiError> {
    let text = draft.object.text(RULE_CIDR);
    match Cidr::parse(text) {
        Some(_) => Ok(()),
        None => {
            let text = format!("The field 'cidr' is '{text}'; write e.g. 192.0.2.0/24.");
            Err(ApiError::new(400, 362, text))
        }
    }
}

fn check_policy(table: &ObjectTable, id: &str) -> Result<(), ApiError> {
    match table.find(ObjectKind::IpPolicy, id) {
        Some(_) => Ok(()),
        None => {
            let shown = shortened(id);
            Err(ApiError::new(400, 223, format!("The IP policy '{shown}' does not exist.")))
        }
    }
}

fn create_restriction(
    _: &ApiContext<'_>,
    table: &ObjectTable,
    draft: &mut Draft,
) -> Result<(), ApiError> {
    match draft.object.text(RESTRICTION_TYPE) {
        "agent" | "endpoints" | "api" | "rest" => {}
        other => {
            let text = format!(
                "The field 'type' is '{other}', and must be agent, endpoints, api or rest."
            );
            return Err(ApiError::invalid(text));
        }
    }
    check_policies(table, draft)
}

/// Clients send an empty list for one that they do not change, so it only clears the list when
/// the request has no other field.
fn update_restriction(
    _: &ApiContext<'_>,
    table: &ObjectTable,
    draft: &mut Draft,
) -> Result<(), ApiError> {
    let given = draft.given.get(RESTRICTION_POLICIES).and_then(Value::as_array);
    if given.is_some_and(Vec::is_empty)
        && draft.given.len() > 1
        && let Some(old) = table.get(&draft.object.id)
    {
        let list = old.fields.get(RESTRICTION_POLICIES).cloned().unwrap_or_default();
        draft.object.fields.insert(RESTRICTION_POLICIES.into(), list);
    }
    check_policies(table, draft)
}

fn check_policies(table: &ObjectTable, draft: &Draft) -> Result<(), ApiError> {
    draft.object.texts(RESTRICTION_POLICIES).iter().try_for_each(|id| check_policy(table, id))
}

fn show_rule(context: &ApiContext<'_>, _: &ObjectTable, rule: &StoredObject) -> Map<String, Value> {
    let fields = json!({
        "cidr": rule.text(RULE_CIDR),
        "ip_policy": context.reference(POLICIES_PATH, rule.text(RULE_POLICY)),
        "action": rule.text(RULE_ACTION),
    });
    fields.as_object().cloned().unwrap_or_default()
}

fn show_restriction(
    context: &ApiContext<'_>,
    _: &ObjectTable,
    object: &StoredObject,
) -> Map<String, Value> {
    let policies = object.texts(RESTRICTION_POLICIES);
    let policies: Vec<Value> =
        policies.iter().map(|id| context.reference(POLICIES_PATH, id)).collect();
    let fields = json!({
        "enforced": object.flag(RESTRICTION_ENFORCED),
        "type": object.text(RESTRICTION_TYPE),
        "ip_policies": policies,
    });
    fields.as_object().cloned().unwrap_or_default()
}
