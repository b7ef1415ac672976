//! Names of users and groups, as the host's databases (`nsswitch.conf`) know them now.

use nix::unistd::{Group, User};

/// Number of a user.
pub(super) fn user(name: &str) -> Option<u32> {
    match User::from_name(name) {
        Ok(user) => user.map(|user| user.uid.as_raw()),
        Err(error) => {
            tracing::warn!(user = name, %error, "user database cannot be read");
            None
        }
    }
}

/// Number of a group.
pub(super) fn group(name: &str) -> Option<u32> {
    match Group::from_name(name) {
        Ok(group) => group.map(|group| group.gid.as_raw()),
        Err(error) => {
            tracing::warn!(group = name, %error, "group database cannot be read");
            None
        }
    }
}
