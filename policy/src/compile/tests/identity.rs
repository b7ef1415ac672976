//! Derived identities and refused ones.

use std::{collections::HashMap, sync::Arc};

use ringfence_common::abi::identity::is_workload;

use super::{context, identities, set};
use crate::{
    compile::{CompileError, compile, derive_identities, derive_identity},
    model::PolicySet,
};

#[test]
fn derived_identities_never_change() {
    // Other hosts and older agents use these numbers: a change cuts a deployment in two.
    assert_eq!(derive_identity("web"), 6_202_358);
    assert_eq!(derive_identity("payments-api"), 2_786_631);
    let names = (0..2_000).map(|number| format!("workload-{number}"));
    assert!(
        names
            .into_iter()
            .all(|name| is_workload(derive_identity(&name)))
    );
}

#[test]
fn every_workload_gets_its_identity() {
    let derived = derive_identities(&set("")).unwrap();
    assert_eq!(derived["web"], derive_identity("web"));
    assert_eq!(derived.len(), 2);
}

#[test]
fn a_collision_names_both_workloads() {
    let mut seen = HashMap::new();
    let (first, second) = (0..)
        .map(|number| format!("w{number}"))
        .find_map(|name| {
            let earlier = seen.insert(derive_identity(&name), name.clone());
            earlier.map(|earlier: String| (earlier, name))
        })
        .unwrap();
    let template = set("").workloads[0].as_ref().clone();
    let workload = |name: &String| {
        let mut workload = template.clone();
        workload.name.clone_from(name);
        Arc::new(workload)
    };
    let set = PolicySet {
        workloads: vec![workload(&first), workload(&second)].into(),
        policies: Vec::new(),
    };
    let identity = derive_identity(&first);
    let error = derive_identities(&set).unwrap_err();
    assert_eq!(
        error,
        CompileError::IdentityCollision {
            first,
            second,
            identity
        }
    );
    assert!(error.to_string().ends_with("rename one of them"));
}

#[test]
fn identities_are_checked() {
    let refused = |name: &str, identity: Option<u32>| {
        let mut identities = identities();
        let _ = identities.remove(name);
        identities.extend(identity.map(|identity| (name.to_owned(), identity)));
        compile(&set(""), &identities, &context()).unwrap_err()
    };
    assert_eq!(
        refused("db", None),
        CompileError::IdentityMissing("db".to_owned())
    );
    for identity in [0, 255, 1 << 24] {
        let workload = "db".to_owned();
        assert_eq!(
            refused("db", Some(identity)),
            CompileError::IdentityOutOfRange { workload, identity }
        );
    }
    let (first, second) = ("db".to_owned(), "web".to_owned());
    assert_eq!(
        refused("db", Some(1000)),
        CompileError::IdentityCollision {
            first,
            second,
            identity: 1000
        }
    );
}
