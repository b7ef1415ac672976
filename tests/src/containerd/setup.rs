//! What a containerd needs before it starts: a configuration, a runc, an image.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::IMAGE;
use crate::{container, podman::output};

/// containerd gives a pod a share of the CPU, and refuses where cgroup v2 has no such controller (hybrid layouts).
const RUNC: &str = "#!/bin/sh\nbefore=\nfor word; do\n\
    [ \"$before\" != --bundle ] || sed -i 's/\"cpu\":{\"shares\":[0-9]*}/\"cpu\":{}/' \"$word/config.json\"\n\
    before=$word\ndone\nexec runc \"$@\"\n";

/// Writes configuration and runc into `dir`.
pub(super) fn write(dir: &Path) {
    fs::write(dir.join("config.toml"), configuration(dir)).unwrap();
    let runc = dir.join("runc");
    fs::write(&runc, RUNC).unwrap();
    fs::set_permissions(&runc, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Makes a `docker save` archive of busybox in `dir`.
pub(super) fn image(dir: &Path) -> PathBuf {
    let dir = dir.join("image");
    let root = dir.join("root");
    fs::create_dir(&dir).unwrap();
    container::root(&root);
    let layer = dir.join("layer.tar");
    let mut tar = Command::new("tar");
    let _archived = output(tar.arg("-C").arg(&root).arg("-cf").arg(&layer).arg("."));
    let sum = output(Command::new("sha256sum").arg(&layer));
    let digest = sum.split(' ').next().unwrap_or_default();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": ["/bin/sleep", "1000000"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = serde_json::json!([
        { "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] },
    ]);
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = dir.join("image.tar");
    let mut tar = Command::new("tar");
    let files = ["manifest.json", "config.json", "layer.tar"];
    let _archived = output(tar.arg("-C").arg(&dir).arg("-cf").arg(&archive).args(files));
    archive
}

fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\n\
         [grpc]\naddress = \"{dir}/containerd.sock\"\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{dir}/opt\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{IMAGE}\"\n\
         restrict_oom_score_adj = true\ndisable_apparmor = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = \"{dir}/cni\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
         runtime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n\
         BinaryName = \"{dir}/runc\"\n"
    )
}
