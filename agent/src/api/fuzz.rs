//! An entrance for the fuzz targets.

use std::sync::{Arc, LazyLock};

use prost::Message as _;
use ringfence_policy::{
    compile::{self, compile, derive_identities},
    model::Document,
    parse::parse,
};
use ringfence_proto::v1;
use time::OffsetDateTime;

use super::{PolicyView, explain::Judge};
use crate::{config::Mode, flow::Filter, identity::Inventory};

const POLICY: &str = "[[workload]]\nname = \"web\"\nlabels = { app = \"web\" }\nmatch = { cgroup = \"/web\" }\n\
    [[policy]]\nname = \"web\"\napplies-to = { app = \"web\" }\n\
    [[policy.egress]]\nto = [{ cidr = \"10.0.0.0/8\" }]\nports = [\"80/tcp\"]\n";

static VIEW: LazyLock<Arc<PolicyView>> = LazyLock::new(|| Arc::new(view().unwrap_or_default()));

/// Requests that carry more than a number: one to explain, then filters of flows, each with its length before it.
pub fn requests(mut bytes: &[u8]) {
    let Ok(request) = v1::ExplainRequest::decode_length_delimited(&mut bytes) else {
        return;
    };
    let judge = Judge {
        view: Arc::clone(&VIEW),
        failsafe: &[],
        mode: Mode::Enforce,
        now_boot_ns: 1,
    };
    let _answer = judge.explain(&request);
    if let Ok(request) = v1::GetFlowsRequest::decode_length_delimited(&mut bytes) {
        let _filters: Result<Vec<Filter>, _> =
            request.filters.into_iter().map(Filter::try_from).collect();
    }
}

fn view() -> Option<PolicyView> {
    let document = Document {
        name: "a.toml".to_owned(),
        text: POLICY.into(),
    };
    let set = parse(&[document]).ok()?;
    let identities = derive_identities(&set).ok()?;
    let context = compile::Context {
        now: OffsetDateTime::UNIX_EPOCH,
        boot_now_ns: 1,
        deny_unselected: false,
    };
    let compiled = compile(&set, &identities, &context).ok()?;
    Some(PolicyView {
        set: set.into(),
        identities: identities.into(),
        compiled: compiled.into(),
        cgroups: Inventory::default(),
    })
}
