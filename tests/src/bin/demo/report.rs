//! One line for each thing that is shown.
#![expect(clippy::print_stdout, reason = "the demo talks to people")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    process::ExitCode,
    sync::{Arc, Mutex},
};

/// Columns of what is claimed; what was seen follows.
const WIDTH: usize = 58;

/// What held so far.
pub struct Report {
    held: usize,
    failed: usize,
}

impl Report {
    pub fn new() -> Self {
        Self { held: 0, failed: 0 }
    }

    /// A line of its own.
    #[expect(clippy::unused_self, reason = "whoever may write holds the report")]
    pub fn say(&mut self, text: &str) {
        println!("{text}");
    }

    /// Begins a part.
    pub fn part(&mut self, title: &str) {
        self.say(&format!("\n{title}"));
    }

    /// Shows a claim and what was seen of it; a panic is what was seen, too. Whether it held.
    pub fn check(&mut self, claim: &str, see: impl FnOnce() -> Result<String, String>) -> bool {
        let (result, mark);
        match self.quietly(see) {
            Ok(seen) => {
                self.held += 1;
                (result, mark) = (seen, '✔');
            }
            Err(seen) => {
                self.failed += 1;
                (result, mark) = (seen, '✘');
            }
        }
        println!("  {mark} {claim:<WIDTH$} {result}");
        mark == '✔'
    }

    /// Runs a step that shows nothing; `None` if it panicked, which is shown.
    pub fn step<T>(&mut self, what: &str, run: impl FnOnce() -> T) -> Option<T> {
        match self.quietly(|| Ok(run())) {
            Ok(made) => Some(made),
            Err(seen) => {
                self.failed += 1;
                println!("  ✘ {what:<WIDTH$} {seen}");
                None
            }
        }
    }

    /// Ends with the sum.
    pub fn finish(self) -> ExitCode {
        let Self { held, failed } = self;
        println!("\n{held} shown, {failed} failed");
        ExitCode::from(u8::from(failed > 0))
    }

    /// Turns a panic into an error with its message.
    #[expect(clippy::unused_self, reason = "panic hooks are global: one at a time")]
    fn quietly<T>(&mut self, run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let message = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&message);
        let hook = take_hook();
        set_hook(Box::new(move |info| {
            if let Ok(mut text) = to.lock() {
                *text = info.to_string();
            }
        }));
        let done = catch_unwind(AssertUnwindSafe(run));
        set_hook(hook);
        done.unwrap_or_else(|_| Err(message.lock().map(|text| text.clone()).unwrap_or_default()))
    }
}
