//! Numbers over changes, mistakes and restarts.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Published, Store, StoreError, state};

fn workload(name: &str) -> String {
    format!(
        "[[workload]]\nname = \"{name}\"\nlabels = {{ app = \"{name}\" }}\nmatch = {{ systemd-unit = \"{name}.service\" }}\n"
    )
}

/// A policy and a state directory.
struct Dirs(TempDir);

impl Dirs {
    fn new() -> Result<Self> {
        let dirs = Self(tempfile::tempdir()?);
        fs::create_dir(dirs.0.path().join("policy"))?;
        Ok(dirs)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.path("policy").join(file), text)?)
    }

    fn open(&self) -> Result<(Store, watch::Receiver<Published>), StoreError> {
        Store::open(&self.path("policy"), &self.path("state"))
    }

    /// Opens and closes it: generation, identities of the names, error.
    fn numbers<const N: usize>(&self, names: [&str; N]) -> Result<(u64, [Option<u32>; N], String)> {
        let (_store, published) = self.open()?;
        let published = published.borrow().clone();
        let version = published.version.context("a valid policy")?;
        let identities = names.map(|name| version.identities().get(name).copied());
        Ok((version.generation, identities, published.error))
    }
}

#[test]
fn numbers_survive_restarts_and_are_never_reused() -> Result<()> {
    let dirs = Dirs::new()?;
    dirs.write("b.toml", &workload("web"))?;
    dirs.write("a.toml", &workload("db"))?;
    let none = String::new();
    let both = [Some(256), Some(257)];
    assert_eq!(dirs.numbers(["db", "web"])?, (1, both, none.clone()));
    assert_eq!(dirs.numbers(["db", "web"])?, (1, both, none.clone()));

    dirs.write("a.toml", &workload("cache"))?;
    let three = [Some(256), Some(257), Some(258)];
    let names = ["db", "web", "cache"];
    assert_eq!(dirs.numbers(names)?, (2, three, none.clone()));

    dirs.write("a.toml", &workload("db"))?;
    assert_eq!(dirs.numbers(names)?, (3, three, none));
    Ok(())
}

#[test]
fn an_invalid_directory_is_told_with_every_diagnostic() -> Result<()> {
    let dirs = Dirs::new()?;
    dirs.write("a.toml", "[[workloud]]\n")?;
    dirs.write("b.toml", "\nnonsense")?;
    let (mut store, receiver) = dirs.open()?;
    let published = receiver.borrow().clone();
    assert!(published.version.is_none());
    assert!(published.error.contains("a.toml:1"), "{}", published.error);
    assert!(published.error.contains("b.toml:2"), "{}", published.error);

    fs::remove_file(dirs.path("policy").join("b.toml"))?;
    dirs.write("a.toml", &workload("web"))?;
    store.reload();
    let published = receiver.borrow().clone();
    assert_eq!(published.version.map(|version| version.generation), Some(1));
    assert_eq!(published.error, "");

    dirs.write("a.toml", "nonsense")?;
    store.reload();
    let published = receiver.borrow().clone();
    assert_eq!(published.version.map(|version| version.generation), Some(1));
    assert!(published.error.contains("a.toml:1"));

    dirs.write("a.toml", &workload("web"))?;
    store.reload();
    let published = receiver.borrow().clone();
    assert_eq!(published.version.map(|version| version.generation), Some(1));
    assert_eq!(published.error, "");
    Ok(())
}

#[test]
fn nothing_is_left_out_silently() -> Result<()> {
    let dirs = Dirs::new()?;
    let error = || -> Result<String> {
        let (_store, receiver) = dirs.open()?;
        let error = receiver.borrow().error.clone();
        Ok(error)
    };
    ensure!(error()?.contains("holds no .toml file"));
    dirs.write(".hidden.toml", "nonsense")?;
    dirs.write("README", "nonsense")?;
    ensure!(error()?.contains("holds no .toml file"));
    fs::create_dir(dirs.path("policy").join("d.toml"))?;
    ensure!(error()?.contains("not a regular file"));
    fs::remove_dir(dirs.path("policy").join("d.toml"))?;
    fs::write(dirs.path("policy").join("e.toml"), [0xff])?;
    ensure!(error()?.contains("not UTF-8"));
    fs::rename(
        dirs.path("policy").join("e.toml"),
        dirs.path("policy").join("e\n.toml"),
    )?;
    ensure!(error()?.contains("printable"));
    fs::remove_dir_all(dirs.path("policy"))?;
    ensure!(error()?.contains("does not exist"));
    Ok(())
}

#[test]
fn a_damaged_state_stops_the_start() -> Result<()> {
    let dirs = Dirs::new()?;
    dirs.write("a.toml", &workload("web"))?;
    drop(dirs.open()?);
    let path = dirs.path("state").join(state::FILE);
    let whole = fs::read(&path)?;
    for length in 0..whole.len() {
        fs::write(&path, whole.get(..length).unwrap_or_default())?;
        let Err(error @ StoreError::Damaged { .. }) = dirs.open() else {
            bail!("{length} bytes are not a state");
        };
        ensure!(error.to_string().contains("backup"));
    }
    fs::write(&path, whole)?;
    drop(dirs.open()?);
    Ok(())
}

#[test]
fn a_second_controller_is_kept_off_the_state() -> Result<()> {
    let dirs = Dirs::new()?;
    let (_store, _receiver) = dirs.open()?;
    let second = dirs.open().err();
    assert!(matches!(second, Some(StoreError::Locked(_))), "{second:?}");
    Ok(())
}

/// A store that runs.
struct Running {
    receiver: watch::Receiver<Published>,
    reload: Arc<Notify>,
    cancel: CancellationToken,
    task: JoinHandle<Result<(), StoreError>>,
}

impl Running {
    fn start(dirs: &Dirs) -> Result<Self> {
        let (store, receiver) = dirs.open()?;
        let (reload, cancel) = (Arc::new(Notify::new()), CancellationToken::new());
        let task = tokio::spawn(store.run(Arc::clone(&reload), cancel.clone()));
        Ok(Self {
            receiver,
            reload,
            cancel,
            task,
        })
    }

    async fn until(&mut self, wanted: impl FnMut(&Published) -> bool) -> Result<Published> {
        let published = self.receiver.wait_for(wanted);
        Ok(timeout(Duration::from_secs(20), published).await??.clone())
    }

    async fn generation(&mut self, generation: u64) -> Result<Published> {
        self.until(|published| {
            published
                .version
                .as_ref()
                .is_some_and(|version| version.generation == generation)
        })
        .await
    }

    async fn stop(self) -> Result<()> {
        self.cancel.cancel();
        Ok(self.task.await??)
    }
}

#[tokio::test]
async fn changes_are_served_as_they_are_written() -> Result<()> {
    let dirs = Dirs::new()?;
    dirs.write("a.toml", &workload("web"))?;
    let mut running = Running::start(&dirs)?;
    drop(running.generation(1).await?);

    dirs.write("b.toml", &workload("db"))?;
    drop(running.generation(2).await?);
    dirs.write(".c", &workload("cache"))?;
    let policy = dirs.path("policy");
    fs::rename(policy.join(".c"), policy.join("c.toml"))?;
    drop(running.generation(3).await?);
    fs::remove_file(policy.join("b.toml"))?;
    let published = running.generation(4).await?;
    let version = published.version.context("a policy")?;
    assert_eq!(version.documents().len(), 2);
    assert_eq!(version.identities().len(), 3);

    dirs.write("c.toml", "nonsense")?;
    let published = running
        .until(|published| !published.error.is_empty())
        .await?;
    assert_eq!(published.version.map(|version| version.generation), Some(4));
    running.stop().await
}

#[tokio::test]
async fn a_directory_may_be_replaced_or_linked_as_kubernetes_does() -> Result<()> {
    let dirs = Dirs::new()?;
    let policy = dirs.path("policy");
    dirs.write("a.toml", &workload("web"))?;
    let mut running = Running::start(&dirs)?;
    drop(running.generation(1).await?);

    fs::rename(&policy, dirs.path("old"))?;
    drop(
        running
            .until(|published| !published.error.is_empty())
            .await?,
    );
    let data = |name: &str| -> Result<()> {
        fs::create_dir_all(policy.join(name))?;
        Ok(fs::write(
            policy.join(name).join("a.toml"),
            workload(name.trim_start_matches('.')),
        )?)
    };
    data(".one")?;
    symlink(".one", policy.join("..data"))?;
    symlink(Path::new("..data/a.toml"), policy.join("a.toml"))?;
    drop(running.generation(2).await?);

    data(".two")?;
    symlink(".two", policy.join(".data-new"))?;
    fs::rename(policy.join(".data-new"), policy.join("..data"))?;
    let published = running.generation(3).await?;
    let identities = published.version.context("a policy")?;
    assert_eq!(identities.identities().len(), 3);
    running.stop().await
}

#[tokio::test]
async fn a_reload_reads_what_inotify_cannot_see() -> Result<()> {
    let dirs = Dirs::new()?;
    let elsewhere = dirs.path("elsewhere.toml");
    fs::write(&elsewhere, workload("web"))?;
    symlink(&elsewhere, dirs.path("policy").join("a.toml"))?;
    let mut running = Running::start(&dirs)?;
    drop(running.generation(1).await?);
    fs::write(&elsewhere, workload("db"))?;
    running.reload.notify_one();
    drop(running.generation(2).await?);
    running.stop().await
}
