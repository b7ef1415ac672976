//! Errors found so far in one document, or in a part of it.

use std::ops::Range;

use super::Diagnostic;

/// What is wrong and what to do about it, where the place is known to the caller.
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// Byte range in the document.
pub(super) type Span = Range<usize>;

/// Collects errors and turns byte offsets into lines.
pub(super) struct Report<'d> {
    file: &'d str,
    /// Line before the first one.
    above: usize,
    line_starts: Vec<usize>,
    pub(super) found: Vec<Diagnostic>,
}

impl<'d> Report<'d> {
    /// For a text that stands in `file` below `above` lines.
    pub(super) fn new(file: &'d str, above: usize, text: &str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            file,
            above,
            line_starts: after_newlines.collect(),
            found: Vec::new(),
        }
    }

    pub(super) fn file(&self) -> String {
        self.file.to_owned()
    }

    /// Line of the span's start, from 1.
    pub(super) fn line(&self, span: &Span) -> usize {
        let starts = self
            .line_starts
            .partition_point(|&start| start <= span.start);
        self.above + 1 + starts
    }

    pub(super) fn error(
        &mut self,
        span: &Span,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let diagnostic = Diagnostic {
            file: self.file(),
            line: self.line(span),
            message: message.into(),
            remedy: remedy.into(),
        };
        self.found.push(diagnostic);
    }

    pub(super) fn fault(&mut self, span: &Span, fault: Fault) {
        self.error(span, fault.message, fault.remedy);
    }
}
