//! Tables that outgrow the kernel.

use super::{POLICY, context, identities, set};
use crate::compile::{CompileError, compile_within};

fn outgrown(lines: &str, limit: usize) -> Option<&'static str> {
    let set = set(&format!("{POLICY}{lines}"));
    match compile_within(&set, &identities(), &context(), limit) {
        Ok(_) => None,
        Err(CompileError::TooLarge { workload, what }) => {
            assert_eq!(workload, "web");
            Some(what)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn entries_are_bounded() {
    let lines = "[[policy.egress]]\nports = [\"80/tcp\", \"90/tcp\", \"100/tcp\"]\n";
    assert_eq!(outgrown(lines, 3), None);
    assert_eq!(outgrown(lines, 2), Some("entries"));
}

#[test]
fn entries_of_address_classes_are_bounded() {
    let lines = "[[policy.egress]]\nports = [\"80/tcp\", \"90/tcp\", \"100/tcp\"]\nto = [{ cidr = \"10.0.0.0/8\" }]\n";
    assert_eq!(outgrown(lines, 3), None);
    assert_eq!(outgrown(lines, 2), Some("entries"));
}

#[test]
fn prefixes_and_classes_are_bounded() {
    let lines = "[[policy.egress]]\nto = [{ cidr = \"10.0.0.0/8\" }, { cidr = \"11.0.0.0/8\" }]\n[[policy.egress]]\nto = [{ cidr = \"10.0.0.0/9\" }]\n";
    assert_eq!(outgrown(lines, 5), None);
    assert_eq!(outgrown(lines, 4), Some("address classes"));
    assert_eq!(outgrown(lines, 2), Some("address prefixes"));
}
