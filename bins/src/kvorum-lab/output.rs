//! What a command prints on standard output.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write};

use serde_json::Value as Json;

use crate::error::LabError;

/// For whom the output is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    // Not documentation comments: they would make every help text five lines longer.
    #[default]
    Text,
    Json,
}

/// Standard output, buffered; what was printed is out after [`Output::flush`].
pub(crate) struct Output {
    /// For whom it is.
    pub(crate) format: Format,
    writer: BufWriter<Stdout>,
}

impl Output {
    /// Takes standard output.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, writer: BufWriter::new(io::stdout()) }
    }

    /// Prints text as it is, and a newline.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> Result<(), LabError> {
        self.text(line)?;
        self.text("\n")
    }

    /// Prints text as it is.
    pub(crate) fn text(&mut self, text: impl AsRef<str>) -> Result<(), LabError> {
        self.writer.write_all(text.as_ref().as_bytes()).map_err(failed)
    }

    /// Prints JSON on a line of its own.
    pub(crate) fn json(&mut self, json: &Json) -> Result<(), LabError> {
        self.line(json.to_string())
    }

    /// Tells a person something besides the result, on standard error, where it disturbs nobody who
    /// compares two runs; programs are not told.
    pub(crate) fn note(&mut self, note: &str) -> Result<(), LabError> {
        self.flush()?;
        if self.format == Format::Text {
            // A note that cannot be shown is no reason to fail.
            let _ = writeln!(io::stderr(), "{note}");
        }
        Ok(())
    }

    /// Reports an error that does not end the command.
    pub(crate) fn error(&mut self, error: &LabError) -> Result<(), LabError> {
        self.flush()?;
        // There is nobody to tell that standard error is gone.
        let _ = writeln!(io::stderr(), "{}", error.render(self.format));
        Ok(())
    }

    /// Whether a person waits for it and can see a progress line.
    pub(crate) fn is_watched(&self) -> bool {
        self.format == Format::Text && io::stderr().is_terminal()
    }

    /// Hands everything printed so far to the operating system.
    pub(crate) fn flush(&mut self) -> Result<(), LabError> {
        self.writer.flush().map_err(failed)
    }
}

fn failed(error: io::Error) -> LabError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return LabError::OutputClosed;
    }
    LabError::cannot("cannot write to standard output", &error)
}
