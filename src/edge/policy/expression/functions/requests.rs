//! Functions that look into the request and the response.

use super::super::call::{Call, FunctionSpec};
use super::super::error::EvalError;
use super::super::read;
use super::super::value::Value;
use super::super::variables::{PhaseSet, Variable};
use super::{global, of};

type Evaluated = Result<Value, EvalError>;

const Q: PhaseSet = PhaseSet::Http;
const S: PhaseSet = PhaseSet::Response;

pub(super) static FUNCTIONS: &[FunctionSpec] = &[
    of(Q, global("getReqHeader", (1, 1), |call| list(call, Variable::ReqHeaders))),
    of(Q, global("hasReqHeader", (1, 1), |call| has(call, Variable::ReqHeaders))),
    of(Q, global("getReqCookie", (1, 1), |call| cookie(call, Variable::ReqCookies))),
    of(Q, global("hasReqCookie", (1, 1), |call| has(call, Variable::ReqCookies))),
    of(Q, global("getQueryParam", (1, 1), |call| list(call, Variable::ReqUrlQueryParams))),
    of(Q, global("hasQueryParam", (1, 1), |call| has(call, Variable::ReqUrlQueryParams))),
    of(S, global("getResHeader", (1, 1), |call| list(call, Variable::ResHeaders))),
    of(S, global("hasResHeader", (1, 1), |call| has(call, Variable::ResHeaders))),
    of(S, global("getResCookie", (1, 1), |call| cookie(call, Variable::ResCookies))),
    of(S, global("hasResCookie", (1, 1), |call| has(call, Variable::ResCookies))),
];

fn entry(call: &mut Call<'_>, variable: Variable) -> Result<Option<Value>, EvalError> {
    let key = call.text(0)?;
    read::entry(call.variables, call.budget, variable, key)
}

fn list(call: &mut Call<'_>, variable: Variable) -> Evaluated {
    Ok(entry(call, variable)?.unwrap_or_else(|| Value::list([])))
}

fn has(call: &mut Call<'_>, variable: Variable) -> Evaluated {
    Ok(Value::Bool(entry(call, variable)?.is_some()))
}

/// Returns the first cookie of the longest path. Those of a request have no path.
fn cookie(call: &mut Call<'_>, variable: Variable) -> Evaluated {
    let path_len = |cookie: &Value| {
        let path = cookie.members().and_then(|members| members.get_text("path"));
        path.and_then(Value::as_text).map_or(0, str::len)
    };
    let cookies = entry(call, variable)?;
    let cookies = cookies.as_ref().and_then(Value::as_list).unwrap_or_default();
    let best = cookies.iter().rev().max_by_key(|cookie| path_len(cookie));
    best.cloned().ok_or_else(|| EvalError::missing("the cookie does not exist"))
}
