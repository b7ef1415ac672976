//! `cargo xtask demo`: builds everything and shows a policy allow, block and revoke on this machine.
//!
//! The demo itself is a program of the crate `tests`: it uses what the root tests use.

use anyhow::{Result, bail};

use crate::{system, tests_program};

#[derive(clap::Args)]
pub struct Args {
    /// Build without optimisation
    #[arg(long)]
    debug: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if !system::is_root() {
        bail!(
            "the demo loads programs into the kernel and makes cgroups and namespaces: \
             `sudo -E env \"PATH=$PATH\" cargo xtask demo`"
        );
    }
    if !tests_program::run("ringfence-demo", &[], args.debug)? {
        bail!("the demo did not show what it should, see above");
    }
    Ok(())
}
