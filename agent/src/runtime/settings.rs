//! Which runtimes are asked, and whom they must belong to.

use std::path::{Path, PathBuf};

use super::Kind;

/// Where the runtimes of the Docker API listen, if they are there: podman (as root) and docker.
const DOCKER: [&str; 2] = ["/run/podman/podman.sock", "/run/docker.sock"];
/// Where the runtimes of Kubernetes listen, if they are there: containerd and CRI-O.
const CRI: [&str; 2] = ["/run/containerd/containerd.sock", "/run/crio/crio.sock"];
/// Root.
const ROOT: u32 = 0;

/// Which runtimes are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub(super) sources: Vec<Source>,
    /// User that socket files and those behind them must belong to.
    pub(super) owner: u32,
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub kind: Kind,
    pub path: PathBuf,
    /// Named by the operator: it must be there.
    pub named: bool,
}

impl Settings {
    /// The sockets of each kind; `None` = the well-known ones, as far as they exist.
    #[must_use]
    pub fn new(docker: Option<Vec<PathBuf>>, cri: Option<Vec<PathBuf>>) -> Self {
        // In the order of preference: where docker runs the containers of pods (cri-dockerd), only CRI knows the pod.
        let mut sources = of_kind(Kind::Cri, cri, &CRI);
        sources.append(&mut of_kind(Kind::Docker, docker, &DOCKER));
        Self {
            sources,
            owner: ROOT,
        }
    }

    /// The sockets that the operator named.
    pub fn named(&self) -> impl Iterator<Item = (Kind, &Path)> {
        let named = self.sources.iter().filter(|source| source.named);
        named.map(|source| (source.kind, source.path.as_path()))
    }

    /// For tests, which may not be root.
    #[cfg(test)]
    pub(super) fn trusting(mut self, owner: u32) -> Self {
        self.owner = owner;
        self
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(None, None)
    }
}

fn of_kind(kind: Kind, named: Option<Vec<PathBuf>>, known: &[&str]) -> Vec<Source> {
    let is_named = named.is_some();
    let paths = named.unwrap_or_else(|| known.iter().map(PathBuf::from).collect());
    let source = |path| Source {
        kind,
        path,
        named: is_named,
    };
    paths.into_iter().map(source).collect()
}
