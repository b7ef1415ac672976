//! What others do to the hooks, the pins and the guarded cgroup.

use super::{Engine, Repairs};
use crate::{
    datapath::{DatapathError, Link},
    identity::root,
};

impl Engine {
    /// Whether the guarded cgroup is still the one that was opened.
    ///
    /// # Errors
    /// It was removed and made again: what is known of cgroups is about the one before.
    pub fn check_root(&self) -> Result<(), String> {
        let path = self.resolver.root();
        match root::cgroup_id(path) {
            Ok(id) if id != self.resolver.root_id() => Err(format!(
                "the guarded cgroup {} was removed and made again: the agent ends, to be started anew and guard it",
                path.display()
            )),
            _ => Ok(()),
        }
    }

    /// Pins again what someone else has unpinned, and attaches hooks that someone else has detached.
    ///
    /// # Errors
    /// It can't be done.
    pub fn check_links(&mut self) -> Result<Repairs, String> {
        let text = |error: DatapathError| error.to_string();
        let gone = |link: &&Link| link.info().is_none_or(|info| info.cgroup == 0);
        let pins = self.datapath.restore_pins().map_err(text)?;
        let hooks = self.datapath.links().iter().filter(gone).count();
        if hooks > 0 {
            self.datapath.attach().map_err(text)?;
        }
        self.repairs.hooks += hooks;
        self.repairs.pins += pins;
        Ok(Repairs { hooks, pins })
    }
}
