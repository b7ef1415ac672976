//! Where answers go, in which form and with which colours.

use std::{
    env,
    io::{self, BufWriter, IsTerminal as _, Write},
};

use comfy_table::{Table, presets::NOTHING};
use ringfence_proto::text::escape_json;
use serde_json::Value;

use super::{CliError, args::Format};

/// Colours that carry meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Good,
    Bad,
    Warning,
    Faint,
}

/// Writes text, with colours or without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    colours: bool,
}

impl Style {
    #[cfg(test)]
    pub(super) const fn plain() -> Self {
        Self { colours: false }
    }

    /// `text` in `colour`, if colours are wanted.
    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Good => 32,
            Colour::Bad => 31,
            Colour::Warning => 33,
            Colour::Faint => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Where answers go.
pub(super) struct Output {
    writer: Box<dyn Write>,
    format: Option<Format>,
    pub(super) style: Style,
}

impl Output {
    /// Standard output; colours only on a terminal and without `NO_COLOR` (<https://no-color.org>).
    pub(super) fn stdout(format: Option<Format>) -> Self {
        let stdout = io::stdout();
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            style: Style {
                colours: stdout.is_terminal() && !refused && !dumb,
            },
            writer: Box::new(BufWriter::new(stdout)),
            format,
        }
    }

    #[cfg(test)]
    pub(super) fn new(writer: Box<dyn Write>, format: Option<Format>) -> Self {
        Self {
            writer,
            format,
            style: Style::plain(),
        }
    }

    /// The form asked for, else `default`.
    pub(super) fn format_or(&self, default: Format) -> Format {
        self.format.unwrap_or(default)
    }

    pub(super) fn line(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.writer, "{text}").map_err(CliError::Output)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.writer.write_all(bytes).map_err(CliError::Output)
    }

    /// Pretty JSON.
    pub(super) fn json(&mut self, value: &Value) -> Result<(), CliError> {
        self.line(&escape_json(&format!("{value:#}")))
    }

    /// JSON on one line.
    pub(super) fn json_line(&mut self, value: &Value) -> Result<(), CliError> {
        self.line(&escape_json(&value.to_string()))
    }

    /// Columns without borders; without a header in compact form.
    pub(super) fn table(
        &mut self,
        header: &[&str],
        rows: Vec<Vec<String>>,
    ) -> Result<(), CliError> {
        let with_header = self.format_or(Format::Table) == Format::Table;
        let text = columns(with_header.then_some(header), rows);
        if text.is_empty() {
            Ok(())
        } else {
            self.line(&text)
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        self.writer.flush().map_err(CliError::Output)
    }
}

/// Columns without borders, two blanks apart; empty cells show `-`.
pub(super) fn columns(header: Option<&[&str]>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    let _table = table.load_preset(NOTHING);
    if let Some(header) = header {
        let _table = table.set_header(header);
    }
    for row in rows {
        let cells = row.into_iter().map(|cell| match cell.as_str() {
            "" => "-".to_owned(),
            _ => cell,
        });
        let _table = table.add_row(cells);
    }
    for column in table.column_iter_mut() {
        let _column = column.set_padding((0, 2));
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}
