//! `cargo xtask soak`: builds everything and lets traffic run for long while policy, agent and controller come
//! and go.
//!
//! The soak itself is a program of the crate `tests`: it uses what the root tests use.

use anyhow::{Result, bail};

use crate::{system, tests_program};

#[derive(clap::Args)]
pub struct Args {
    /// How long
    #[arg(long, default_value_t = 30)]
    minutes: u32,
    /// Build without optimisation
    #[arg(long)]
    debug: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if !system::is_root() {
        bail!(
            "the soak loads programs into the kernel and makes cgroups and namespaces: \
             `sudo -E env \"PATH=$PATH\" cargo xtask soak`"
        );
    }
    let minutes = args.minutes.to_string();
    if !tests_program::run("ringfence-soak", &[&minutes], args.debug)? {
        bail!("something was wrong, see above");
    }
    Ok(())
}
