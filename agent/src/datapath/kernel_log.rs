//! Debug messages of the kernel programs, into the agent's own log.

use std::{convert::Infallible, io};

use aya_log::EbpfLogger;
use log::Log;
use tokio::io::unix::AsyncFd;

use super::poll;

/// Reading end of the programs' debug messages.
pub struct KernelLog {
    logger: AsyncFd<EbpfLogger<&'static dyn Log>>,
}

impl KernelLog {
    pub(super) fn new(logger: EbpfLogger<&'static dyn Log>) -> io::Result<Self> {
        Ok(Self {
            logger: poll::register(logger)?,
        })
    }

    /// Passes messages on until the ring fails.
    ///
    /// # Errors
    /// The kernel's, when the ring can't be polled.
    pub async fn run(mut self) -> io::Result<Infallible> {
        loop {
            let mut guard = self.logger.readable_mut().await?;
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }
}
