//! What a command prints on standard output.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write};

use serde_json::{Map, Value as Json, json};

use crate::error::{CommandError, Kind};

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

    /// Prints bytes as they are, and a newline.
    pub(crate) fn line(&mut self, line: impl AsRef<[u8]>) -> Result<(), CommandError> {
        let written = self.writer.write_all(line.as_ref());
        written.and_then(|()| self.writer.write_all(b"\n")).map_err(|error| failed(&error))
    }

    /// Prints a JSON object on a line of its own.
    pub(crate) fn object(&mut self, object: Map<String, Json>) -> Result<(), CommandError> {
        self.json(&Json::Object(object))
    }

    /// Prints JSON on a line of its own.
    pub(crate) fn json(&mut self, json: &Json) -> Result<(), CommandError> {
        serde_json::to_writer(&mut self.writer, json)
            .map_err(io::Error::from)
            .and_then(|()| self.writer.write_all(b"\n"))
            .map_err(|error| failed(&error))
    }

    /// Tells a person something besides the result, on standard error; programs are not told.
    pub(crate) fn note(&mut self, note: &str) -> Result<(), CommandError> {
        self.flush()?;
        if self.format == Format::Text {
            // A note that cannot be shown is no reason to fail.
            let _ = writeln!(io::stderr(), "{note}");
        }
        Ok(())
    }

    /// Says on standard error that the result is not all that it might be; programs are told too.
    pub(crate) fn warn(&mut self, warning: &str) -> Result<(), CommandError> {
        self.flush()?;
        let warning = match self.format {
            Format::Text => format!("warning: {warning}"),
            Format::Json => json!({"warning": warning}).to_string(),
        };
        // The exit code says it as well.
        let _ = writeln!(io::stderr(), "{warning}");
        Ok(())
    }

    /// Whether a person looks at it.
    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Hands everything printed so far to the operating system.
    pub(crate) fn flush(&mut self) -> Result<(), CommandError> {
        self.writer.flush().map_err(|error| failed(&error))
    }
}

fn failed(error: &io::Error) -> CommandError {
    let mut failed = CommandError::io("cannot write to standard output", error);
    if error.kind() == io::ErrorKind::BrokenPipe {
        failed.kind = Kind::OutputClosed;
    }
    failed
}
